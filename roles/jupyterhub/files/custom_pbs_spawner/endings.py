# SPDX-License-Identifier: BSD-3-Clause
"""Why a job ended, from three witnesses who each may be silent or wrong.

Torque's exit status: negative for its own reasons, 256 + n when the login shell was ended by a
signal. It is lost where `keep_completed` is 0, and it is 0 for every job that outlived a restart
of the node's daemon, so a 0 is not believed against the keeper. The keeper's last lines in the log
(bin/keep_job.py) are the server's own end. Known words in the log say why a server gave up.
"""

from __future__ import annotations

import re
import signal

from custom_pbs_spawner.job_log import Ending, JobLog
from custom_pbs_spawner.record import JobRecord

WALLTIME = -11
"""JOB_EXEC_OVERLIMIT_WT, what Torque reports after a walltime."""
BY_SIGNAL = 256
SHELL_BY_SIGNAL = 128
STARTING_S = 5.0
"""From the start of the job to the keeper's, which counts the seconds."""

_TERMINATED = frozenset({signal.SIGTERM, signal.SIGKILL})

_NO_ENVIRONMENT = re.compile(r"^There is no notebook environment on ", re.MULTILINE)
_HOME_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_MEMORY = re.compile(
    r"\bMemoryError\b|Cannot allocate memory|java\.lang\.OutOfMemoryError|std::bad_alloc"
)


def reason(  # noqa: PLR0913
    *,
    status: int | None,
    log: JobLog,
    record: JobRecord,
    walltime: float | None,
    node_lost: bool,
    now: float,
) -> tuple[str, dict[str, object]]:
    """The key of a message (messages.py, "Why it ended"), and its values.

    `status` is Torque's, None when nobody told; `walltime` in seconds, `now` since the epoch.
    """
    values: dict[str, object] = {"job": record.job_id}
    if node_lost:
        return "ended_node_lost", {**values, "host": record.host or "-"}
    if _used_up_walltime(status, log.ending, record, walltime, now):
        return "ended_walltime", values
    if _was_deleted(status, log.ending):
        return "ended_deleted", values
    kind, number = _own_end(status, log.ending)
    if number:
        for pattern, key in (
            (_NO_ENVIRONMENT, "ended_no_environment"),
            (_HOME_FULL, "ended_home_full"),
            (_MEMORY, "ended_memory"),
        ):
            if pattern.search(log.text):
                return key, values
        return f"ended_{kind}", {**values, kind: number}
    return "ended", values


def _used_up_walltime(
    status: int | None,
    ending: Ending | None,
    record: JobRecord,
    walltime: float | None,
    now: float,
) -> bool:
    """By Torque's word; else when the job was ended, and had run as long as it might."""
    if status == WALLTIME or walltime is None:
        return status == WALLTIME
    if ending is not None:
        return _from_outside(ending) and ending.ran + STARTING_S >= walltime
    # Nobody tells: a server that answered so long ago cannot but have been over its time.
    return not status and record.ready > 0 and now - record.ready >= walltime


def _was_deleted(status: int | None, ending: Ending | None) -> bool:
    """`qdel` ends the login shell by a signal; where no status is kept, the keeper saw it."""
    if status:
        return status - BY_SIGNAL in _TERMINATED
    return ending is not None and _from_outside(ending)


def _from_outside(ending: Ending) -> bool:
    """Torque's SIGTERM may end the server before it ends the keeper."""
    return ending.kind == "outside" or (ending.kind, ending.value) == ("signal", signal.SIGTERM)


def _own_end(status: int | None, ending: Ending | None) -> tuple[str, int]:
    """How the server itself ended: ("status", N) or ("signal", N); N is 0 for nothing known."""
    if ending is not None and ending.kind != "outside":
        return ending.kind, ending.value
    if not status:
        return "status", 0
    for offset in (BY_SIGNAL, SHELL_BY_SIGNAL):
        if offset < status <= offset + signal.SIGRTMAX:
            return "signal", status - offset
    return "status", status
