# SPDX-License-Identifier: BSD-3-Clause
"""What the hub's database keeps of a job: enough to find it again, and no secret."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from hashlib import sha256

from custom_pbs_spawner.scheduler import is_tag
from custom_pbs_spawner.torque import is_job_id

log = logging.getLogger(__name__)

MIN_PORT, MAX_PORT = 1024, 65535


def token_digest(token: str) -> str:
    """What is kept of a server's token: it can be recognised by this, not recovered."""
    return sha256(token.encode()).hexdigest()


@dataclass(frozen=True)
class JobRecord:
    """A submission and its job. Times are seconds since the epoch.

    It is stored before `qsub` is called, with an empty `job_id`: `tag` finds the job in the queue
    if the answer is lost. `host` and `port` are empty until the server answers; `reported` is the
    port that it told, once, perhaps to a hub that was killed since. `digest` recognises the
    server's token when it reports its port to a hub that was restarted since.
    `stopping` is when a stop was asked for, 0 while nobody did.
    """

    job_id: str
    profile: str
    submitted: float
    digest: str
    tag: str = ""
    host: str = ""
    port: int = 0
    ready: float = 0.0
    stopping: float = 0.0
    reported: int = 0

    def to_state(self) -> dict[str, object]:
        """The record as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: object) -> JobRecord | None:
        """Read a record; whatever does not fit is dropped.

        Without a sensible job id or tag there is no record. Such a state may come from another
        spawner or an older version; one that raised would lock its owner out for ever.
        """
        if not isinstance(state, dict):
            return None
        job_id, tag = state.get("job_id"), state.get("tag")
        if not is_job_id(job_id) and not (job_id == "" and is_tag(tag)):
            if state:
                log.warning("A stored state without a job is dropped.")
            return None
        return cls(
            job_id=_text(job_id),
            profile=_text(state.get("profile")),
            submitted=_time(state.get("submitted")),
            digest=_text(state.get("digest")),
            tag=_text(tag) if is_tag(tag) else "",
            host=_text(state.get("host")),
            port=_port(state.get("port")),
            reported=_port(state.get("reported")),
            ready=_time(state.get("ready")),
            stopping=_time(state.get("stopping")),
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _time(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _port(value: object) -> int:
    return value if type(value) is int and MIN_PORT <= value <= MAX_PORT else 0
