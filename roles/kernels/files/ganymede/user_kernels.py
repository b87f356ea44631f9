# SPDX-License-Identifier: BSD-3-Clause
"""ganymede-kernel: a researcher's own environments as kernels of her notebooks.

    ganymede-kernel add PREFIX [--name NAME] [--display-name TEXT] [--language python|R]
    ganymede-kernel list
    ganymede-kernel remove NAME

Knows environments of conda, micromamba and venv, and R. A kernel is started and asked before it is
offered. Status 0: done, or nothing to do; 1: not possible, nothing was changed; 2: command line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_core.paths import jupyter_data_dir

ADDED_BY = "ganymede-kernel"
LOOK_TIMEOUT = 60  # seconds; a cold file system is slow
START_TIMEOUT = 120  # seconds
MAX_NAME = 64

TEXTS = {
    "added": (
        "{name}: added. JupyterLab offers it as “{shown}” (reload the page).",
        "{name}: añadido. JupyterLab lo ofrece como «{shown}» (recargue la página).",
    ),
    "same": (
        "{name}: it is there already, and it answers.",
        "{name}: ya estaba, y responde.",
    ),
    "answers": ("{name}: started, {what} answers.", "{name}: iniciado, {what} responde."),
    "removed": (
        "{name}: removed. The environment {prefix} was left alone.",
        "{name}: retirado. El entorno {prefix} no se ha tocado.",
    ),
    "none": (
        "You have no kernels of your own. Add one: ganymede-kernel add PREFIX",
        "No tiene núcleos propios. Añada uno: ganymede-kernel add RUTA",
    ),
    "gone": ("its environment is gone", "su entorno ya no existe"),
    "fine": ("ok", "bien"),
    "foreign": ("not made by ganymede-kernel", "no creado por ganymede-kernel"),
    "control": (
        "{prefix}: the path has a control character; rename the folder.",
        "{prefix}: la ruta tiene un carácter de control; cambie el nombre de la carpeta.",
    ),
    "no_folder": (
        "{prefix} is not a folder on this machine. Write the folder of an environment, "
        "the one above bin.",
        "{prefix} no es una carpeta en esta máquina. Escriba la carpeta de un entorno, "
        "la que contiene bin.",
    ),
    "no_environment": (
        "{prefix} is no environment: there is no bin/python and no bin/R in it. Write the folder "
        "of an environment of conda, micromamba or venv, or of an R.",
        "{prefix} no es un entorno: no contiene bin/python ni bin/R. Escriba la carpeta de un "
        "entorno de conda, micromamba o venv, o de un R.",
    ),
    "no_program": (
        "{prefix}: there is no bin/{program} in it. Write the folder of an environment that has "
        "it, or leave --language out.",
        "{prefix}: no contiene bin/{program}. Escriba la carpeta de un entorno que lo tenga, "
        "o quite --language.",
    ),
    "no_kernel": (
        "{prefix} has no kernel yet: {package} is missing. Install it, then call this again:\n"
        "  {command}",
        "{prefix} aún no tiene núcleo: falta {package}. Instálelo y repita esta orden:\n"
        "  {command}",
    ),
    "said": ("It said: {words}", "Dijo: {words}"),
    "no_reply": (
        "{program} did not answer within {seconds} s, so nothing was added.",
        "{program} no respondió en {seconds} s, así que no se ha añadido nada.",
    ),
    "no_answer": (
        "{prefix}: the kernel was started and did not answer, so it was not added.",
        "{prefix}: el núcleo se inició y no respondió, así que no se ha añadido.",
    ),
    "bad_name": (
        "{name!r} cannot be a kernel's name: write letters, digits, ., - and _ (at most 64).",
        "{name!r} no puede ser el nombre de un núcleo: escriba letras, cifras, ., - y _ "
        "(64 como mucho).",
    ),
    "bad_display_name": (
        "{name!r} cannot be shown in JupyterLab: it is blank or has a control character. "
        "Write another: --display-name TEXT",
        "{name!r} no se puede mostrar en JupyterLab: está en blanco o tiene un carácter de "
        "control. Escriba otro: --display-name TEXTO",
    ),
    "table_name": (
        "{name} is the name of a kernel that everybody has. Choose another: --name NAME",
        "{name} es el nombre de un núcleo que tienen todos. Elija otro: --name NOMBRE",
    ),
    "taken": (
        "You have a kernel {name} already, of {other}. Choose another name: --name NAME",
        "Ya tiene un núcleo {name}, de {other}. Elija otro nombre: --name NOMBRE",
    ),
    "unknown": (
        "You have no kernel {name}. There are: {names}.",
        "No tiene ningún núcleo {name}. Los que hay: {names}.",
    ),
    "not_ours": (
        "{name} was not made by ganymede-kernel; remove its folder yourself: {folder}",
        "{name} no lo creó ganymede-kernel; borre usted su carpeta: {folder}",
    ),
    "not_written": (
        "Nothing was changed, {path} cannot be written: {reason}.",
        "No se ha cambiado nada, no se puede escribir {path}: {reason}.",
    ),
}


class RefusalError(Exception):
    """What was asked for is not possible; the message is for the researcher."""


def text(key: str, **values: object) -> str:
    """A sentence in the researcher's language."""
    names = ("LC_ALL", "LC_MESSAGES", "LANG")
    locale = next((os.environ[name] for name in names if os.environ.get(name)), "")
    return TEXTS[key][locale.startswith("es")].format(**values)


@dataclass(frozen=True)
class Language:
    """How a kernel of a language starts, and how to see that it is installed."""

    program: str
    package: str
    argv: tuple[str, ...]
    look: tuple[str, ...]
    metadata: tuple[tuple[str, bool], ...] = ()


# Where ipykernel is missing, the same call tells what could install it: a venv may have no pip.
LOOK_PYTHON = """
try:
    import ipykernel
except Exception:
    from importlib.util import find_spec
    print(" ".join(filter(find_spec, ("pip", "ensurepip"))))
    raise
"""

LANGUAGES = {
    "python": Language(
        "python",
        "ipykernel",
        ("python", "-m", "ipykernel_launcher", "-f", "{connection_file}"),
        ("python", "-c", LOOK_PYTHON),
        (("debugger", True),),
    ),
    "R": Language(
        "R",
        "IRkernel",
        ("R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"),
        ("Rscript", "-e", "library(IRkernel)"),
    ),
}


@dataclass(frozen=True)
class Site:
    """Where things are: the wrapper, the kernels of the table, hers."""

    wrapper: str
    table: Path
    own: Path


def install_command(prefix: Path, language: str, tools: list[str]) -> str:
    """The command that installs the missing kernel; `tools`: of pip and ensurepip what is there."""
    where = shlex.quote(str(prefix))
    if (prefix / "conda-meta").is_dir():
        package = {"python": "ipykernel", "R": "r-irkernel"}[language]
        return f"micromamba install -p {where} -c conda-forge {package}    (conda: the same)"
    if language == "R":
        words = 'install.packages("IRkernel")'
        return f"{shlex.quote(str(prefix / 'bin/Rscript'))} -e {shlex.quote(words)}"
    python = shlex.quote(str(prefix / "bin/python"))
    if "pip" in tools:
        return f"{python} -m pip install ipykernel"
    if "ensurepip" in tools:
        return f"{python} -m ensurepip && {python} -m pip install ipykernel"
    # The notebook server's own pip installs into other environments too.
    return f"{shlex.quote(sys.executable)} -m pip --python {python} install ipykernel"


def activated(site: Site, prefix: Path, words: tuple[str, ...]) -> list[str]:
    """A command in an environment."""
    return [site.wrapper, "--environment", str(prefix), "--", *words]


def find_language(site: Site, prefix: Path, wanted: str | None) -> str:
    """The language whose kernel the environment has. Raises RefusalError."""
    offered = [
        name
        for name, language in LANGUAGES.items()
        if (prefix / "bin" / language.program).exists() and wanted in {None, name}
    ]
    if not offered and wanted:
        raise RefusalError(text("no_program", prefix=prefix, program=LANGUAGES[wanted].program))
    if not offered:
        raise RefusalError(text("no_environment", prefix=prefix))
    refusals = []
    for name in offered:
        command = activated(site, prefix, LANGUAGES[name].look)
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=LOOK_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            program = prefix / "bin" / LANGUAGES[name].look[0]
            refusals.append(text("no_reply", program=program, seconds=LOOK_TIMEOUT))
            continue
        if done.returncode == 0:
            return name
        missing = LANGUAGES[name].package
        command_line = install_command(prefix, name, last_line(done.stdout).split())
        refusals.append(
            text("no_kernel", prefix=prefix, package=missing, command=command_line)
            + "\n"
            + text("said", words=last_line(done.stderr))
        )
    raise RefusalError(refusals[0])


def last_line(output: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")


def answer(folder: Path, name: str) -> str:
    """Start the kernel of `folder`/`name` and return what it says it is. Raises RefusalError."""
    specs = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    manager = KernelManager(kernel_name=name, kernel_spec_manager=specs)
    with tempfile.TemporaryFile() as output:
        client = None
        try:
            manager.start_kernel(stdout=output, stderr=output)
            client = manager.blocking_client()
            client.start_channels()
            client.wait_for_ready(timeout=START_TIMEOUT)
            reply = client.kernel_info(reply=True, timeout=START_TIMEOUT)
        except (RuntimeError, TimeoutError, OSError) as error:
            output.seek(0)
            words = last_line(output.read().decode(errors="replace")) or str(error)
            raise RefusalError(text("said", words=words)) from error
        finally:
            if client is not None:
                client.stop_channels()
            if manager.has_kernel:
                manager.shutdown_kernel(now=True)
    info = reply["content"]["language_info"]
    return f"{info['name']} {info['version']}"


def specification(path: Path) -> dict[str, Any]:
    """What a kernel.json says; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def metadata(spec: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a kernelspec, which may be anything in one that others made."""
    found = spec.get("metadata")
    return found if isinstance(found, dict) else {}


def own_kernels(site: Site) -> dict[str, dict[str, Any]]:
    """Her kernels by name."""
    return {
        path.parent.name: specification(path) for path in sorted(site.own.glob("*/kernel.json"))
    }


def choose_name(site: Site, prefix: Path, wanted: str | None) -> str:
    """The name of the kernel of an environment. Raises RefusalError."""
    if wanted is None:
        wanted = re.sub(r"[^A-Za-z0-9._-]+", "-", prefix.name).strip("-.")
    name = wanted.lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) or len(name) > MAX_NAME:
        raise RefusalError(text("bad_name", name=name))
    everybodys = {path.name.lower() for path in site.table.glob("*") if path.is_dir()}
    if name in everybodys:
        raise RefusalError(text("table_name", name=name))
    spec = own_kernels(site).get(name)
    if spec is not None and metadata(spec).get("prefix") != str(prefix):
        other = metadata(spec).get("prefix") or text("foreign")
        raise RefusalError(text("taken", name=name, other=other))
    return name


def is_visible(name: str) -> bool:
    """Whether a name can be shown in one line, and there is something to see."""
    return bool(name.strip()) and name.isprintable()


def add(site: Site, options: argparse.Namespace) -> None:
    """Offer an environment as a kernel. Raises RefusalError."""
    given = os.path.expanduser(options.prefix)  # noqa: PTH111 - Path refuses a home that is not there
    if not given.isprintable():
        raise RefusalError(text("control", prefix=ascii(given)))
    if options.display_name is not None and not is_visible(options.display_name):
        raise RefusalError(text("bad_display_name", name=options.display_name))
    prefix = Path(os.path.abspath(given))  # noqa: PTH100 - links stay: they may be switched
    if not prefix.is_dir():
        raise RefusalError(text("no_folder", prefix=prefix))
    language = find_language(site, prefix, options.language)
    name = choose_name(site, prefix, options.name)
    present = own_kernels(site).get(name, {})
    shown = options.display_name or present.get("display_name") or f"{prefix.name} ({language})"
    spec = {
        "argv": activated(site, prefix, LANGUAGES[language].argv),
        "display_name": shown,
        "language": language,
        "interrupt_mode": "signal",
        "metadata": {
            **dict(LANGUAGES[language].metadata),
            "added_by": ADDED_BY,
            "prefix": str(prefix),
        },
    }
    try:
        with tempfile.TemporaryDirectory(prefix="ganymede-kernel-") as folder:
            write(Path(folder) / name, spec)
            try:
                what = answer(Path(folder), name)
            except RefusalError as refusal:
                raise RefusalError(f"{text('no_answer', prefix=prefix)}\n{refusal}") from refusal
        if present == spec:
            print(text("same", name=name))
            return
        print(text("answers", name=name, what=what))
        write(site.own / name, spec)
    except OSError as error:
        reason = error.strerror or str(error)
        path = error.filename or site.own / name
        raise RefusalError(text("not_written", path=path, reason=reason)) from error
    print(text("added", name=name, shown=shown))


def write(folder: Path, spec: dict[str, Any]) -> None:
    """Write a kernelspec in one step: whole, or as it was before. Raises OSError."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / ".kernel.json"
    try:
        fresh.write_text(json.dumps(spec, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        fresh.replace(folder / "kernel.json")
    except OSError:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            fresh.unlink(missing_ok=True)
        raise


def show(site: Site) -> None:
    """List her kernels: name, what JupyterLab shows, state, environment."""
    kernels = own_kernels(site)
    if not kernels:
        print(text("none"))
    width = max((len(name) for name in kernels), default=0)
    for name, spec in kernels.items():
        prefix = metadata(spec).get("prefix")
        if metadata(spec).get("added_by") != ADDED_BY:
            state = text("foreign")
        else:
            state = text("fine") if Path(str(prefix)).is_dir() else text("gone")
        print(f"{name:{width}}  {spec.get('display_name', '')}  [{state}]  {prefix or ''}".rstrip())


def remove(site: Site, options: argparse.Namespace) -> None:
    """Take one of her kernels away; its environment stays. Raises RefusalError."""
    kernels = own_kernels(site)
    name = options.name.lower()
    if name not in kernels:
        raise RefusalError(text("unknown", name=options.name, names=", ".join(kernels) or "-"))
    found = metadata(kernels[name])
    if found.get("added_by") != ADDED_BY:
        raise RefusalError(text("not_ours", name=name, folder=site.own / name))
    try:
        shutil.rmtree(site.own / name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RefusalError(text("not_written", path=site.own / name, reason=reason)) from error
    print(text("removed", name=name, prefix=found.get("prefix")))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="ganymede-kernel", allow_abbrev=False, description=__doc__)
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = top.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", allow_abbrev=False)
    adding.add_argument("prefix", metavar="PREFIX")
    adding.add_argument("--name")
    adding.add_argument("--display-name")
    adding.add_argument("--language", choices=list(LANGUAGES))
    commands.add_parser("list", allow_abbrev=False)
    commands.add_parser("remove", allow_abbrev=False).add_argument("name", metavar="NAME")
    return top


def main(wrapper: str, table: str, *arguments: str) -> int:
    """Run the command line; `wrapper` is start-kernel, `table` the folder of the table's."""
    options = parser().parse_args(arguments)
    site = Site(wrapper, Path(table), Path(jupyter_data_dir()) / "kernels")
    try:
        if options.command == "add":
            add(site, options)
        elif options.command == "list":
            show(site)
        else:
            remove(site, options)
    except RefusalError as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
