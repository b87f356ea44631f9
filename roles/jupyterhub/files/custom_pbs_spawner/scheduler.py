# SPDX-License-Identifier: BSD-3-Clause
"""What the spawner needs of a batch system, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
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


class UnreachableError(SchedulerError):
    """The scheduler did not answer, or not in time. Nothing is known."""


class UnreadableError(SchedulerError):
    """The scheduler answered something that could not be understood. Nothing is known."""


class NodeUnreachableError(SchedulerError):
    """The scheduler answered, but it cannot reach the node of the job."""


class UnknownJobError(SchedulerError):
    """The scheduler says that it has no such job."""


class AlreadyEndingError(SchedulerError):
    """The job is over, or about to be: there is nothing left to delete."""


class Scheduler(Protocol):
    """The commands of a batch system. Every call is bounded in time."""

    async def submit(self, user: str, script: str) -> str:
        """Submit a job as `user` and return its id.

        Raises RefusedError, NotPermittedError, UnreachableError, UnreadableError.
        """

    async def delete(self, user: str, job_id: str) -> None:
        """Ask for the end of a job of `user`.

        Raises UnknownJobError, AlreadyEndingError, NotPermittedError, NodeUnreachableError,
        UnreachableError.
        """

    async def jobs(self) -> dict[str, Job]:
        """All jobs that the hub may see, by id. Raises UnreachableError, UnreadableError."""

    async def job(self, job_id: str) -> Job:
        """One job.

        Raises UnknownJobError (the scheduler's word that it is gone), NotPermittedError (it may
        exist, but the hub may not see it), UnreachableError, UnreadableError.
        """
