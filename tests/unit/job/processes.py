# SPDX-License-Identifier: BSD-3-Clause
"""A job under its keeper, and processes that do not want to go with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

FILES = Path(__file__).parents[3] / "roles" / "jupyterhub" / "files"
KEEPER = FILES / "bin" / "keep_job.py"
PYTHON = "/usr/bin/python3"
"""Not the tests' own, which a job of another account may not be allowed to read."""
PATIENCE_S = 40.0
T = TypeVar("T")

DOUBLE_FORK = (
    "import os, sys; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0);"
    "os.execv('/bin/sleep', ['sleep', sys.argv[1]])"
)
CLINGING = {
    "a plain child": "sleep {number} &",
    "nohup": "nohup sleep {number} >/dev/null 2>&1 &",
    "setsid": "setsid sleep {number} &",
    "an orphan": "(setsid sleep {number} &)",
    "two forks": f'{PYTHON} -c "{DOUBLE_FORK}" {{number}} &',
    "no environment": "setsid env -i /bin/sleep {number} &",
    "deaf to SIGTERM": """sh -c "trap '' TERM HUP INT; sleep {number}" &""",
    "deaf, alone, nameless": """(setsid env -i /bin/sh -c "trap '' TERM; sleep {number}" &)""",
    "stopped": "setsid sleep {number} & sleep 0.2; kill -STOP $!",
}
"""Lines of a shell that leave a process `sleep {number}` behind; a kernel is like "setsid"."""


def wait_for(what: str, look: Callable[[], T]) -> T:
    """The first true value of `look`."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        value = look()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {PATIENCE_S:.0f} s")


def new_number() -> str:
    """A number of seconds that no other process of this machine sleeps."""
    return f"{1_000_000 + secrets.randbelow(9_000_000)}.{secrets.randbelow(1_000_000):06}"


def running(word: str) -> list[int]:
    """The processes that have this word in their command line, zombies excluded."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if word.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def sleeping(number: str) -> list[int]:
    """The processes that sleep that long, as such: not shells that talk of it."""
    words = (b"sleep", b"/bin/sleep")
    return [
        pid for pid in running(number) if _command_line(pid)[:1] and _command_line(pid)[0] in words
    ]


def _command_line(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def switches(pid: int) -> int:
    """How often a process went to sleep by itself: it does not grow while it sleeps."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


class KeptJob:
    """The keeper with a shell script as its server, in a session of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        self.number = new_number()
        self.cookie = secrets.token_hex(16)
        self.environment = {"PATH": "/usr/bin:/bin", "PBS_JOBCOOKIE": self.cookie}
        self._server = root / f"server-{secrets.token_hex(8)}"
        self._keeper: subprocess.Popen[bytes] | None = None

    def start(self, script: str, *options: str, before: str = "", stdout: str = "") -> None:
        """Run the keeper, as a batch script does: `before`, then exec.

        `{number}` in the scripts is this job's own.
        """
        self._server.write_text(f"#!/bin/sh\n{script.replace('{number}', self.number)}\n")
        self._server.chmod(0o755)
        words = " ".join([PYTHON, "-I", "-S", str(KEEPER), *options, "--", str(self._server)])
        batch = f"{before.replace('{number}', self.number)}\nexec {words}"
        with open(stdout or self.log, "ab") as log:  # noqa: PTH123 - a path, or a device
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", batch],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment, cwd=self.root, start_new_session=True,
            )  # fmt: skip

    @property
    def keeper(self) -> int:
        assert self._keeper is not None
        return self._keeper.pid

    @property
    def watcher(self) -> int:
        """The process between the keeper and the server."""
        return parent(self.server)

    @property
    def server(self) -> int:
        def shell() -> int:
            shells = [p for p in running(str(self._server)) if _command_line(p)[0] == b"/bin/sh"]
            return min((p for p in shells if parent(parent(p)) == self.keeper), default=0)

        return wait_for("the server", shell)

    def children(self) -> list[int]:
        """What is directly below the watcher: the server, and the report of its port."""
        pid = sleeping(self.number)[0]
        return [
            int(word)
            for word in Path(f"/proc/{parent(pid)}/task/{parent(pid)}/children").read_text().split()
        ]

    def wait(self) -> int:
        """The keeper's exit status, negative for a signal."""
        assert self._keeper is not None
        return self._keeper.wait(PATIENCE_S)

    def text(self) -> str:
        return self.log.read_text()

    def wait_text(self, text: str) -> str:
        """The log, once it has this text."""
        return wait_for(text, lambda: self.text() if text in self.text() else "")

    def kill_everything(self) -> None:
        """After a test that failed."""
        for pid in [*running(str(self._server)), *running(self.number)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()
