# SPDX-License-Identifier: BSD-3-Clause
"""Run the server of a job, and leave nothing of the job on the node when it is over.

    python -I -S keep_job.py [--report-port] -- COMMAND [ARGUMENT...]

Three processes, each a child of the one before:

    keeper   what the batch script becomes: in the job's session, so Torque ends it with the job
    watcher  in a session of its own, which Torque does not know; adopts every orphan below it
    server   COMMAND, in a session of its own

The keeper hands signals on, and ends as the server did. When the server has ended, or the keeper
is gone (qdel, walltime, kill), the watcher ends whatever is left below it: SIGTERM, a bound,
SIGKILL. No process can leave its descent, whatever it does with sessions, groups or environment:
the kernel gives orphans to the nearest ancestor that asked for them (PR_SET_CHILD_SUBREAPER,
prctl(2)). Should the watcher be killed, the keeper does its work. What the job's login shell
started from a profile, before the keeper, is known by the job's cookie in its environment; of
that, what has a terminal belongs to somebody who works there, and the job's session to Torque.

Why the server is not in the job's session: Torque kills the session 0 to 3 ms after its SIGTERM,
so a server there could save nothing, and its kernels, always in sessions of their own, would be
left behind. Outside, it has the bound above to close its kernels and files, whoever ends the job.
The price is that Torque's `resources_used` counts the keeper alone; kernels it never counted.
Limits are inherited all the same, and `qsig` arrives through the keeper.

With --report-port the server finds a free port in JUPYTERHUB_SERVICE_URL, and the hub is told it
(JUPYTERHUB_API_URL, JUPYTERHUB_API_TOKEN) beside the server's start, also when it is down then.

The last lines on standard output, the job's log, are for programs too. How it ended is one of
"with status N", "by signal N", "from outside" (the keeper was killed); and something may be left:

    keep_job: ended with status 0 after 12.5 s at 1795333110.2
    keep_job: nothing is left on node01

    keep_job: ended from outside after 3610.0 s at 1795333110.2
    keep_job: left on node01: 4711 (tar)
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable

GRACE_S = 2.0
"""From SIGTERM to SIGKILL."""
PATIENCE_S = 30.0
"""After SIGKILL: a system call that hangs, on a lost file system, outlives even that."""
REPORT_S = 600.0
"""How long a hub that does not answer is told the port."""
REPORT_PAUSES_S = (0.5, 30.0)
REPORT_TIMEOUT_S = 10.0

FORWARDED = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}

Ending = tuple[str, int]
"""("status", N), ("signal", N) or ("outside", 0)."""


def say(text: str) -> None:
    """Write a line to the job's log. A full disk does not end the job."""
    try:
        os.write(1, f"keep_job: {text}\n".encode())
    except OSError:
        return


# --- the processes of the job ------------------------------------------------------------------


class Process:
    """What /proc/PID/stat says (proc(5)). Raises OSError when the process is gone."""

    def __init__(self, pid: int) -> None:
        head, _, tail = _read(f"/proc/{pid}/stat").rpartition(b")")
        fields = tail.split()
        self.pid = pid
        self.name = head.partition(b"(")[2].decode("ascii", "replace")
        self.dead = fields[0] in (b"Z", b"X")
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.has_terminal = fields[4] != b"0"
        # Numbers are given again, with another start time.
        self.identity = pid, fields[19]

    def cookie(self) -> bytes:
        """PBS_JOBCOOKIE, as the process was started with; empty for somebody else's process."""
        try:
            variables = _read(f"/proc/{self.pid}/environ").split(b"\0")
        except OSError:
            return b""
        name = b"PBS_JOBCOOKIE="
        return next((text[len(name) :] for text in variables if text.startswith(name)), b"")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123  pathlib is slow to import
        return file.read()


def _processes() -> list[Process]:
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                found.append(Process(int(name)))
            except OSError:  # it has just ended
                continue
    return found


def _below(ancestor: int, processes: list[Process]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(ancestor, []))
    for process in found:  # grows while it is walked
        found.extend(children.get(process.pid, []))
    return found


class Job:
    """The processes of one job on this node, seen from the one that ends them.

    `session` is the job's own; `cookie` the random text that Torque gives each job, or "".
    """

    def __init__(self, session: int, cookie: str) -> None:
        self.session = session
        self.cookie = cookie.encode()

    def left(self) -> list[Process]:
        """What still runs below this process, and what else has the job's cookie."""
        processes = _processes()
        found = {process.pid: process for process in _below(os.getpid(), processes)}
        if self.cookie:
            found.update({p.pid: p for p in processes if self._is_stray(p)})
        return [process for process in found.values() if not process.dead]

    def _is_stray(self, process: Process) -> bool:
        return (
            process.pid != os.getpid()
            and process.session != self.session
            and not process.has_terminal
            and process.cookie() == self.cookie
        )

    def end(self) -> bool:
        """End all of it; False when something is still there after all patience."""
        return self._send(signal.SIGTERM, GRACE_S) or self._send(signal.SIGKILL, PATIENCE_S)

    def _send(self, number: int, bound: float) -> bool:
        """Send a signal once to each, also to what appears meanwhile; whether all have ended."""
        deadline = time.monotonic() + bound
        sent = set()
        pause = 0.01
        while True:
            if number == signal.SIGKILL:
                kill_children()
            children = reap()
            left = self.left()
            # One that is born during the look may be missed there, but it is somebody's child.
            if not left and not children:
                return True
            if time.monotonic() > deadline:
                return False
            fresh = [process for process in left if process.identity not in sent]
            for process in fresh:
                send(process.pid, number)
                sent.add(process.identity)
            pause = 0.01 if fresh else min(2 * pause, 0.2)
            time.sleep(pause)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone, or somebody else's (a set-user-ID program)."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def fork(work: Callable[[], object]) -> int:
    """Do something in a child process; its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except Exception:  # noqa: BLE001  a child must not go on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def reap() -> bool:
    """Take the exit statuses of children that have ended; whether there are others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return False
    return True


def kill_children() -> None:
    """Kill child after child, faster than one that starts the next and ends can do so."""
    for _ in range(1000):
        if not reap():
            return
        try:
            children = _read("/proc/thread-self/children").split()
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN
            return
        for pid in children:
            send(int(pid), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    set_child_subreaper = 36  # linux/prctl.h
    if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0):
        say(f"orphans cannot be adopted: {os.strerror(ctypes.get_errno())}")


def clean_up(job: Job, ending: Ending, started: float) -> None:
    """End what is left of the job, and write down how it ended."""
    moment, ran = time.time(), time.monotonic() - started
    ended = job.end()
    kind, number = ending
    how = {"status": f"with status {number}", "signal": f"by signal {number}"}
    say(f"ended {how.get(kind, 'from outside')} after {ran:.1f} s at {moment:.1f}")
    node = os.uname().nodename
    if ended:
        say(f"nothing is left on {node}")
    else:
        left = ", ".join(f"{process.pid} ({process.name})" for process in job.left())
        say(f"left on {node}: {left}")


# --- the watcher -------------------------------------------------------------------------------


class Watcher:
    """Starts the server, and says when it or the keeper has ended.

    `orders` is what the keeper writes, numbers of signals; its end is the keeper's. FORWARDED
    are blocked when this is made; `handlers` and `mask` are how the server shall find them.
    """

    def __init__(
        self, orders: int, handlers: dict[int, signal.Handlers], mask: Iterable[int]
    ) -> None:
        self._orders = orders
        self._handlers = handlers
        self._mask = mask
        self._server = 0
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def start(self, command: list[str], report_port: bool) -> None:
        """Start the server, and beside it what tells the hub its port."""
        if report_port:
            port = free_port()
            os.environ["JUPYTERHUB_SERVICE_URL"] = with_port(
                os.environ["JUPYTERHUB_SERVICE_URL"], port
            )
            self._child(lambda: tell_port(port))
        self._server = self._child(lambda: become(command))

    def _child(self, work: Callable[[], None]) -> int:
        def with_signals() -> None:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            work()

        return fork(with_signals)

    def wait(self) -> Ending:
        """Hand signals on until the end. Sleeps unless something happens."""
        while True:
            ready = select.select([self._orders, self._woken], [], [])[0]
            if self._woken in ready:
                os.read(self._woken, 4096)
                ending = self._ending()
                if ending:
                    return ending
            if self._orders in ready:
                numbers = os.read(self._orders, 64)
                if not numbers:
                    return "outside", 0
                for number in numbers:
                    self._forward(number)

    def _ending(self) -> Ending | None:
        """How the server ended, if it did; orphans that ended are forgotten."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == self._server:
                code = os.waitstatus_to_exitcode(status)
                return ("status", code) if code >= 0 else ("signal", -code)
            if not pid:
                return None

    def _forward(self, number: int) -> None:
        """As Torque signals a session: the server, and what it started in its own group."""
        try:
            os.killpg(self._server, number)
        except ProcessLookupError:  # it has not made its session yet
            send(self._server, number)


def become(command: list[str]) -> None:
    """Go on as another program; returns only where there is none."""
    try:
        os.execv(command[0], command)  # noqa: S606  this is what the program is for
    except OSError as error:
        say(f"{command[0]} cannot be started: {error.strerror}")
    os._exit(127)


# --- the port ----------------------------------------------------------------------------------


def free_port() -> int:
    """A port that nobody listens on."""
    import socket  # noqa: PLC0415  30 ms of the start

    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port


def with_port(url: str, port: int) -> str:
    """`http://0.0.0.0:0/path` with another port."""
    scheme, _, rest = url.partition("://")
    address, slash, path = rest.partition("/")
    return f"{scheme}://{address.rpartition(':')[0]}:{port}{slash}{path}"


def tell_port(port: int) -> None:
    """Tell the hub the port, again and again while it does not answer or fails."""
    os.closerange(3, 64)  # the keeper must see the watcher's end, not this one's
    deadline = time.monotonic() + REPORT_S
    pause, longest = REPORT_PAUSES_S
    while True:
        status, answer = _post_port(port)
        if status < 300:  # noqa: PLR2004
            return
        if status < 500:  # noqa: PLR2004
            say(f"the hub refused port {port}: {status} {answer}")
            return
        if time.monotonic() + pause > deadline:
            say(f"the hub was not told port {port}: {answer}")
            return
        time.sleep(pause)
        pause = min(2 * pause, longest)


def _post_port(port: int) -> tuple[int, str]:
    """One POST: the status, 599 for no answer, and a word on it."""
    import http.client  # noqa: PLC0415  40 ms, beside the start of the server

    scheme, _, rest = os.environ["JUPYTERHUB_API_URL"].partition("://")
    host, _, path = rest.partition("/")
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, timeout=REPORT_TIMEOUT_S)
    headers = {
        "Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}",
        "Content-Type": "application/json",
    }
    try:
        connection.request("POST", f"/{path}/batchspawner", f'{{"port": {port}}}', headers)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return 599, f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return answer.status, answer.reason


# --- the keeper --------------------------------------------------------------------------------


def original_handlers() -> dict[int, signal.Handlers]:
    """What the signals meant before Python and this program changed them."""
    numbers = FORWARDED | PYTHON_IGNORES | {signal.SIGCHLD}
    ignored = {n for n in numbers - PYTHON_IGNORES if signal.getsignal(n) is signal.SIG_IGN}
    return {n: signal.SIG_IGN if n in ignored else signal.SIG_DFL for n in numbers}


def keep(command: list[str], report_port: bool) -> Ending:
    """Run the server to its end; returns how it ended when nothing of the job is left."""
    started = time.monotonic()
    job = Job(os.getsid(0), os.environ.get("PBS_JOBCOOKIE", ""))
    handlers = original_handlers()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    adopt_orphans()
    orders, order = os.pipe()
    result, report = os.pipe()

    def watch() -> None:
        os.close(order)
        os.setsid()
        adopt_orphans()
        watcher = Watcher(orders, handlers, mask)
        watcher.start(command, report_port)
        os.chdir("/")
        ending = watcher.wait()
        clean_up(job, ending, started)
        os.write(report, f"{ending[0]} {ending[1]}".encode())

    fork(watch)
    os.close(orders)
    os.close(report)
    forward_signals(order, mask)
    kind, _, number = os.read(result, 64).decode().partition(" ")
    if number:
        return kind, int(number)
    clean_up(job, ("outside", 0), started)
    return "signal", signal.SIGKILL


def forward_signals(order: int, mask: Iterable[int]) -> None:
    """Have each signal that arrives written to the watcher, as one byte."""
    os.set_blocking(order, False)
    signal.set_wakeup_fd(order, warn_on_full_buffer=False)
    for number in FORWARDED:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end_like(ending: Ending) -> None:
    """End this process as the server ended."""
    import resource  # noqa: PLC0415

    kind, number = ending
    if kind == "signal":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the server's own is enough
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(number)


def main(arguments: list[str]) -> None:
    """Entry point; does not return."""
    options, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    end_like(keep(command, report_port="--report-port" in options))


if __name__ == "__main__":
    main(sys.argv[1:])
