# SPDX-License-Identifier: BSD-3-Clause
"""What a job wrote, read as its owner, and how its keeper says that it ended."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Literal

from custom_pbs_spawner import commands
from custom_pbs_spawner.torque import is_job_id

log = logging.getLogger(__name__)

MAX_CHARACTERS = 8192

_UNPRINTABLE = re.compile(r"[^\n\t\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Characters that change the direction of the text around them hide what a line says.
_DIRECTION = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")

# The last lines of bin/keep_job.py.
_ENDING = re.compile(
    r"^keep_job: ended (?:with (?P<status>status) (?P<number>[0-9]{1,3})"
    r"|by (?P<signal>signal) (?P<which>[0-9]{1,2})|from outside)"
    r" after (?P<ran>[0-9]{1,12}\.[0-9]) s at (?P<at>[0-9]{1,12}\.[0-9])$"
    r"(?P<nothing_left>\nkeep_job: nothing is left on .*$)?",
    re.MULTILINE,
)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Ending:
    """How the server of a job ended, as its keeper saw it.

    `value` is the exit status or the signal's number; 0 for "outside", when the keeper itself was
    ended (by the queue, for instance). `at` is in seconds since the epoch, `ran` in seconds.
    """

    kind: Literal["status", "signal", "outside"]
    value: int
    at: float
    nothing_left: bool
    ran: float = 0.0


@dataclass(frozen=True)
class JobLog:
    """The end of a job's log, fit to be shown, and the ending if the log tells one."""

    text: str
    ending: Ending | None


async def read(
    user: str, job_id: str, *, sudo: str, reader: str, timeout: float  # noqa: ASYNC109
) -> JobLog:  # fmt: skip
    """Read the end of the log of a job of `user`. Empty, with a line in the hub's log, if not."""
    if not is_job_id(job_id) or not _USER.fullmatch(user):
        log.warning("The log of job %.60r of %.60r is not read.", job_id, user)
        return JobLog("", None)
    argv = [sudo, "-n", "-u", user, reader, job_id]
    try:
        result = await commands.run(argv, timeout=timeout)
    except (commands.CommandTimeoutError, OSError) as error:
        log.warning("The log of job %s cannot be read: %s", job_id, error)
        return JobLog("", None)
    if result.status:
        why = " ".join(result.stderr.split())[:300] or f"exit status {result.status}"
        log.warning("The log of job %s cannot be read: %s", job_id, why)
        return JobLog("", None)
    text = clean(result.stdout)
    return JobLog(text, parse_ending(text))


def clean(text: str) -> str:
    """The last characters of a text, what does not print replaced, lines as they look.

    What a progress bar overwrote (a carriage return) is gone, as on a terminal.
    """
    text = text.replace("\r\n", "\n")
    lines = (line.rpartition("\r")[2] for line in text.split("\n"))
    text = _DIRECTION.sub("\ufffd", _UNPRINTABLE.sub("\ufffd", "\n".join(lines)))
    return text[-MAX_CHARACTERS:]


def parse_ending(text: str) -> Ending | None:
    """The last ending that a log tells."""
    endings = list(_ENDING.finditer(text))
    if not endings:
        return None
    last = endings[-1]
    ran, at, nothing_left = float(last["ran"]), float(last["at"]), last["nothing_left"] is not None
    if last["status"]:
        return Ending("status", int(last["number"]), at, nothing_left, ran)
    if last["signal"]:
        return Ending("signal", int(last["which"]), at, nothing_left, ran)
    return Ending("outside", 0, at, nothing_left, ran)
