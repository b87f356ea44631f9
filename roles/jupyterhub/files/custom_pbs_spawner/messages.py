# SPDX-License-Identifier: BSD-3-Clause
"""What researchers read, in English and Spanish."""

from __future__ import annotations

LANGUAGES = ("en", "es")

_TEXTS: dict[str, tuple[str, str]] = {
    # Login
    "wrong_login": (
        "The name or the password is wrong. Use those of your account on the cluster.",
        "El nombre o la contraseña no son correctos. Use los de su cuenta en el clúster.",
    ),
    "no_access": (
        "The account {account} may not use this hub. Ask an administrator for access.",
        "La cuenta {account} no puede usar este servicio. Pida acceso a un administrador.",
    ),
    "too_many_logins": (
        "There were too many attempts to log in. Try again in {wait}.",
        "Ha habido demasiados intentos de acceso. Vuelva a intentarlo dentro de {wait}.",
    ),
    # The menu
    "menu": ("Where should the notebook run?", "¿Dónde debe ejecutarse el cuaderno?"),
    "core": ("1 core", "1 núcleo"),
    "cores": ("{count} cores", "{count} núcleos"),
    "memory": ("{amount} of memory", "{amount} de memoria"),
    "up_to": ("up to {time}", "hasta {time}"),
    "hour": ("1 hour", "1 hora"),
    "hours": ("{count} hours", "{count} horas"),
    "minute": ("1 minute", "1 minuto"),
    "minutes": ("{count} minutes", "{count} minutos"),
    "second": ("1 second", "1 segundo"),
    "seconds": ("{count} seconds", "{count} segundos"),
    "and": ("{first} and {second}", "{first} y {second}"),
    "queue": ("queue {queue}", "cola {queue}"),
    "kernel_too_small": (
        "Too small for the kernel {kernel}: it needs {amount} of memory.",
        "Demasiado pequeño para el núcleo de cuaderno {kernel}: necesita {amount} de memoria.",
    ),
    "kernel_not_meant": (
        "Not meant for the kernel {kernel}.",
        "No está pensado para el núcleo de cuaderno {kernel}.",
    ),
    "local": (
        "A small server for light work, at once and without the queue. "
        "It shares its machine with everybody.",
        "Un servidor pequeño para tareas ligeras, al momento y sin cola. "
        "Comparte la máquina con todos.",
    ),
    # A choice that is refused
    "no_profile": (
        "Choose a profile. There are: {profiles}.",
        "Elija un perfil. Los que hay: {profiles}.",
    ),
    "unknown_profile": (
        "There is no profile {profile}. There are: {profiles}.",
        "No existe el perfil {profile}. Los que hay: {profiles}.",
    ),
    "only_profile": (
        'Only "profile" can be chosen, and it is one word. There are: {profiles}.',
        'Solo se puede elegir "profile", y es una palabra. Los que hay: {profiles}.',
    ),
    "too_many": (
        "You have {count} jobs already, and may have {limit}. Stop one of your servers first; "
        "a job whose server was lost is deleted by itself within a few minutes.",
        "Ya tiene {count} trabajos y puede tener {limit}. Pare antes uno de sus servidores; "
        "un trabajo cuyo servidor se perdió se borra solo en unos minutos.",
    ),
    "no_table": (
        "The profiles cannot be read at the moment. Please tell an administrator.",
        "Los perfiles no se pueden leer en este momento. Avise a un administrador.",
    ),
    # While the job starts
    "submitting": ("Submitting the job to the queue…", "Enviando el trabajo a la cola…"),
    "moment": ("a moment", "un momento"),
    "queued": (
        "Job {job} has been waiting in queue {queue} for {waited}.",
        "El trabajo {job} lleva {waited} esperando en la cola {queue}.",
    ),
    "remark": ("The queue says: {comment}", "La cola dice: {comment}"),
    "held": (
        "Job {job} has been held in the queue for {waited}; "
        "it starts when you or an administrator release it.",
        "El trabajo {job} lleva {waited} retenido en la cola; "
        "empezará cuando usted o un administrador lo libere.",
    ),
    "starting": (
        "Job {job} has started on {host}; JupyterLab is starting there…",
        "El trabajo {job} ha empezado en {host}; allí se está iniciando JupyterLab…",
    ),
    "listening": ("JupyterLab answers on {host}.", "JupyterLab responde en {host}."),
    "silent": (
        "The queue does not answer at the moment. Job {job} is not lost; waiting…",
        "La cola no responde en este momento. El trabajo {job} no se ha perdido; esperando…",
    ),
    "searching": (
        "The queue does not answer; looking whether the job was submitted…",
        "La cola no responde; comprobando si el trabajo se envió…",
    ),
    "removing": (
        "Removing job {job} from the queue…",
        "Retirando el trabajo {job} de la cola…",
    ),
    "removing_silent": (
        "Job {job} is being removed, but the queue does not answer at the moment. "
        "It is tried again until it works.",
        "Se está retirando el trabajo {job}, pero la cola no responde en este momento. "
        "Se volverá a intentar hasta que funcione.",
    ),
    "removing_fails": (
        "Job {job} could not be removed yet; it is tried again until it works. "
        "The queue says: {answer}",
        "El trabajo {job} aún no se ha podido retirar; se volverá a intentar hasta que funcione. "
        "La cola dice: {answer}",
    ),
    # Beside a running server
    "silent_running": (
        "The queue does not answer at the moment. Your notebook is not lost.",
        "La cola no responde en este momento. Su cuaderno no se ha perdido.",
    ),
    "node_lost": (
        "Node {host} does not answer the queue. You can stop this server and start another one; "
        "job {job} is deleted as soon as the node is back.",
        "El nodo {host} no responde a la cola. Puede parar este servidor e iniciar otro; "
        "el trabajo {job} se borrará en cuanto el nodo vuelva.",
    ),
    # Why it did not start
    "refused": (
        "The queue did not accept the job: {answer}",
        "La cola no ha aceptado el trabajo: {answer}",
    ),
    "not_permitted": (
        "The hub may not submit jobs in your name. Please tell an administrator.",
        "El servidor no puede enviar trabajos en su nombre. Avise a un administrador.",
    ),
    "unreachable": (
        "The queue does not answer, so no job was submitted. Try again in a few minutes.",
        "La cola no responde y no se ha enviado ningún trabajo. "
        "Inténtelo de nuevo dentro de unos minutos.",
    ),
    "unreadable": (
        "The queue gave an answer that makes no sense. Please tell an administrator.",
        "La cola ha dado una respuesta sin sentido. Avise a un administrador.",
    ),
    "no_script": (
        "The job could not be written. Please tell an administrator.",
        "No se ha podido escribir el trabajo. Avise a un administrador.",
    ),
    "too_long": (
        "The job did not start within {waited} and was removed from the queue. "
        "Try again later, or choose a smaller profile.",
        "El trabajo no ha empezado en {waited} y se ha retirado de la cola. "
        "Inténtelo más tarde o elija un perfil menor.",
    ),
    "flipping": (
        "Job {job} was sent back by its node again and again, and was removed from the queue. "
        "Please tell an administrator: your account may be missing on the node.",
        "El nodo ha devuelto el trabajo {job} una y otra vez, y se ha retirado de la cola. "
        "Avise a un administrador: puede que su cuenta no exista en el nodo.",
    ),
    "interrupted": (
        "The hub was restarted in the moment in which the job was submitted, and there is no job. "
        "Start the server again.",
        "El servicio se reinició justo al enviar el trabajo, y no hay ningún trabajo. "
        "Inicie el servidor de nuevo.",
    ),
    # Why it ended
    "ended": (
        "The notebook server has ended, and job {job} with it.",
        "El servidor de cuadernos ha terminado, y con él el trabajo {job}.",
    ),
    "ended_status": (
        "The notebook server of job {job} ended with exit status {status}.",
        "El servidor de cuadernos del trabajo {job} ha terminado con estado de salida {status}.",
    ),
    "ended_signal": (
        "The notebook server of job {job} was killed on its node (signal {signal}).",
        "El servidor de cuadernos del trabajo {job} fue terminado en su nodo (señal {signal}).",
    ),
    "ended_deleted": (
        "Job {job} was deleted from the queue, by you or by an administrator.",
        "El trabajo {job} se ha borrado de la cola; lo ha hecho usted o un administrador.",
    ),
    "ended_walltime": (
        "Job {job} has used up the time of its profile.",
        "El trabajo {job} ha agotado el tiempo de su perfil.",
    ),
    "ended_memory": (
        "The notebook server of job {job} could get no more memory. The memory of a profile is "
        "what each single process may use; choose a profile with more.",
        "El servidor de cuadernos del trabajo {job} no ha podido obtener más memoria. La memoria "
        "de un perfil es la que puede usar cada proceso; elija un perfil con más.",
    ),
    "ended_home_full": (
        "Job {job} could not write to your home: it is full. Delete some files and start again.",
        "El trabajo {job} no ha podido escribir en su carpeta personal: está llena. "
        "Borre archivos y vuelva a empezar.",
    ),
    "ended_no_environment": (
        "The software of the notebook server is missing on the node of job {job}. "
        "Please tell an administrator.",
        "Falta el programa del servidor de cuadernos en el nodo del trabajo {job}. "
        "Avise a un administrador.",
    ),
    "ended_node_lost": (
        "Node {host}, on which job {job} ran, does not answer any more.",
        "El nodo {host}, en el que se ejecutaba el trabajo {job}, ya no responde.",
    ),
    "log": ("Its output is in {log}.", "Su salida está en {log}."),
}


def text(language: str, key: str, **values: object) -> str:
    """One message. Values are inserted as they are: escape them where HTML is made."""
    return _TEXTS[key][LANGUAGES.index(language)].format(**values)


def count(language: str, unit: str, number: int) -> str:
    """`1 core`, `4 cores`; `unit` is the singular key."""
    return text(language, unit if number == 1 else f"{unit}s", count=number)


def duration(language: str, seconds: float) -> str:
    """A length of time in its two largest units: `24 hours`, `1 hour and 30 minutes`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [
        count(language, unit, number)
        for unit, number in (("hour", hours), ("minute", minutes), ("second", rest))
        if number
    ][:2]
    if not parts:
        return count(language, "second", 0)
    return parts[0] if len(parts) == 1 else text(language, "and", first=parts[0], second=parts[1])


def choose_language(accept_language: str, default: str) -> str:
    """The language a browser prefers among ours, from its Accept-Language header."""
    ranked: list[tuple[float, str]] = []
    for part in accept_language[:1000].split(","):
        tag, _, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        language = tag.strip().lower().partition("-")[0]
        if language in LANGUAGES and quality > 0:
            ranked.append((quality, language))
    # max() takes the first of equals: the order of the header decides.
    return max(ranked, key=lambda pair: pair[0], default=(0.0, default))[1]
