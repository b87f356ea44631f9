# SPDX-License-Identifier: BSD-3-Clause
"""External commands: argument lists without a shell, a small environment, an end in time."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

# Named one by one: nothing of the hub's own environment (tokens, keys) may reach a command.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C"}

_DEATH = 1.0
"""Seconds in which a killed process should be gone."""

# The event loop keeps no strong reference to a task.
_dying: set[asyncio.Task[int]] = set()


class CommandTimeoutError(Exception):
    """The command did not end in time and was killed."""


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
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    )
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(stdin.encode()), timeout)
    except TimeoutError:
        await asyncio.wait([_kill(process)], timeout=_DEATH)
        raise CommandTimeoutError(f"{argv[0]} did not answer within {timeout:g} s") from None
    except asyncio.CancelledError:
        _kill(process)
        raise
    status = process.returncode if process.returncode is not None else -1
    return Result(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _kill(process: asyncio.subprocess.Process) -> asyncio.Task[int]:
    """Kill a command with all its children; the task ends when it is dead.

    A process under sudo belongs to root and may not be killed from here; it is then left to
    its own end. A `command_timeout` in the sudo rule bounds that.
    """
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        log.debug("Process %d had just ended.", process.pid)
    except PermissionError:
        log.warning("Process %d does not end and may not be killed from here.", process.pid)
    task = asyncio.ensure_future(process.wait())
    _dying.add(task)
    task.add_done_callback(_dying.discard)
    return task
