# SPDX-License-Identifier: BSD-3-Clause
"""What the spawner needs of a batch system, whichever it is."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Protocol


class JobState(Enum):
    """What the queue says of a job; each scheduler maps its own states to these."""

    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    EXITING = "exiting"
    COMPLETED = "completed"
    UNREADABLE = "unreadable"
    """The queue lists the job, but what it says of it could not be understood."""


@dataclass(frozen=True)
class Job:
    """One job in the queue's table. Times are seconds since the epoch."""

    id: str
    state: JobState
    name: str = ""
    owner: str = ""
    queue: str = ""
    host: str = ""
    """The first node the job was given, empty while it has none."""
    exit_status: int | None = None
    started: int | None = None
    comment: str = ""
    """The scheduler's own remark, for instance why the job waits."""
    starts: int = 0
    """How often it was started; it grows while nodes send it back."""
    tag: str = ""
    """What `new_tag` gave the submission, empty for jobs that no hub made."""

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.state is JobState.COMPLETED


@dataclass(frozen=True)
class Queue:
    """One queue and its limits: seconds, bytes, cores; None where there is no limit."""

    name: str
    walltime: int | None = None
    memory: int | None = None
    cores: int | None = None
    enabled: bool = True
    started: bool = True


class SchedulerError(Exception):
    """A command of the batch system did not do what was asked."""


class RefusedError(SchedulerError):
    """The scheduler understood the request and will not do it; the text is its reason."""


class NotPermittedError(SchedulerError):
    """The caller may not do this: a rule of sudo or of the scheduler is missing."""


class UnauthorizedError(NotPermittedError):
    """It is the scheduler that does not permit it."""


class UnreachableError(SchedulerError):
    """The scheduler did not answer, or not in time. Nothing is known."""


class UnreadableError(SchedulerError):
    """The scheduler answered something that could not be understood. Nothing is known."""


class NodeUnreachableError(SchedulerError):
    """The scheduler answered, but it cannot reach the node of the job."""


class UnknownJobError(SchedulerError):
    """The scheduler says that it has no such job."""


class HiddenJobError(SchedulerError):
    """The job may exist, but the scheduler does not show it to this caller."""


class AlreadyEndingError(SchedulerError):
    """The job is over, or about to be: there is nothing left to delete."""


_TAG = re.compile(r"[0-9a-f]{8}-[0-9a-f]{16}", re.ASCII)


def hub_id(api_url: str) -> str:
    """What tells the jobs of this hub from those of another on the same queue: 8 hex digits.

    Made of the address by which the nodes reach the hub, so that it outlives the database.
    """
    return sha256(api_url.encode()).hexdigest()[:8]


def new_tag(hub: str) -> str:
    """A name for one submission, by which its job is found when the answer was lost."""
    return f"{hub}-{secrets.token_hex(8)}"


def is_tag(text: object) -> bool:
    """Whether this can have come from `new_tag`."""
    return isinstance(text, str) and _TAG.fullmatch(text) is not None


class Scheduler(Protocol):
    """The commands of a batch system. Every call is bounded in time."""

    async def submit(self, user: str, script: str) -> str:
        """Submit a job as `user` and return its id.

        Raises RefusedError and NotPermittedError when there is no job; UnreachableError and
        UnreadableError when there may be one.
        """

    async def delete(self, user: str, job_id: str) -> None:
        """Ask for the end of a job of `user`.

        Raises UnknownJobError, AlreadyEndingError, NotPermittedError, NodeUnreachableError,
        UnreachableError.
        """

    async def jobs(self, user: str | None = None) -> dict[str, Job]:
        """All jobs that the hub may see, or that `user` may see, by id.

        Raises NotPermittedError, UnreachableError, UnreadableError.
        """

    async def job(self, job_id: str, user: str | None = None) -> Job:
        """One job, asked for by the hub or by `user`.

        Raises UnknownJobError (the scheduler's word that it is gone), HiddenJobError,
        NotPermittedError, UnreachableError, UnreadableError.
        """

    async def nodes(self) -> dict[str, bool]:
        """Whether each node answers the scheduler. Raises UnreachableError, UnreadableError."""
