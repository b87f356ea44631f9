# SPDX-License-Identifier: BSD-3-Clause
"""External commands: argument lists without a shell, a small environment, an end in time.

Each runs in a thread. asyncio's own subprocesses fork in the event loop, and one that is cancelled
while it starts can wait for ever (CPython 3.11), which would keep the hub from ending.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath

log = logging.getLogger(__name__)

# Named one by one: nothing of the hub's own environment (tokens, keys) may reach a command.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C"}

AT_ONCE = 32
"""Commands that run at the same time; more wait for their turn."""
DEATH = 2.0
"""Seconds in which a command that was told to end should be gone."""

_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="command")
_birth = threading.Lock()
"""CPython starts a process without letting other threads run: one after the other, or the event
loop would wait for all of them."""


class CommandTimeoutError(Exception):
    """The command did not end in time and was told to."""


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed, bytes that are not UTF-8 replaced."""

    status: int
    stdout: str
    stderr: str


async def run(argv: Sequence[str], *, stdin: str = "", timeout: float) -> Result:  # noqa: ASYNC109
    """Run a command to its end, at most `timeout` seconds.

    Its working directory is `/`: the hub's own may be closed to the user the command runs as.
    Raises CommandTimeoutError, and OSError when the command cannot be started.
    """
    command = _Command(argv)
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(_threads, command.run, stdin.encode(), timeout)
    except asyncio.CancelledError:
        command.cancel()
        raise


class _Command:
    """One command, in the thread that waits for it."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def run(self, stdin: bytes, timeout: float) -> Result:
        with _birth:
            process = self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                # Enough to end all of it. A session would get a share of the processors of its
                # own (autogroup, sched(7)), and this thread holds the interpreter until it has one.
                process_group=0,
            )
        if self._cancelled:
            self._signal(signal.SIGTERM)
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            self._end(process)
            raise CommandTimeoutError(
                f"{self._argv[0]} did not answer within {timeout:g} s"
            ) from None
        return Result(process.returncode, _text(stdout), _text(stderr))

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self._cancelled = True
        self._signal(signal.SIGTERM)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End a command with all its children.

        sudo hands SIGTERM on to what it runs, which belongs to another user; killed, it would
        leave that behind without any bound. `TIMEOUT=` in its rule ends what is deaf.
        """
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=DEATH)
            return
        if PurePath(self._argv[0]).name == "sudo":
            log.warning("%s does not end yet; its rule ends it.", " ".join(self._argv))
            return
        self._signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=DEATH)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            log.debug("Process %d had just ended.", self._process.pid)
        except PermissionError:
            log.warning("Process %d may not be ended from here.", self._process.pid)


def _text(output: bytes) -> str:
    return output.decode(errors="replace")
