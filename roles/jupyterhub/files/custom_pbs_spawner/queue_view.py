# SPDX-License-Identifier: BSD-3-Clause
"""The queue's table of jobs, asked for once and shared by all spawners."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from custom_pbs_spawner.scheduler import (
    Job,
    JobState,
    Scheduler,
    SchedulerError,
    UnknownJobError,
)

log = logging.getLogger(__name__)

MIN_GAP = 0.5
"""Seconds between the beginnings of two queries, whoever wants them."""

FIRST_SIGHT = 15.0
"""Seconds in which a job that was just submitted may be missing from the queue."""


LONG_AGO = float("-inf")


@dataclass(frozen=True)
class Sight:
    """What is known of one job.

    `known`: the scheduler's word; `job` is then the job, or None when it is gone.
    Not `known`: the queue did not answer, or not clearly; `job` is what was last seen of it.
    """

    known: bool
    job: Job | None

    @property
    def over(self) -> bool:
        """Whether the scheduler says that the job has ended."""
        return self.known and (self.job is None or self.job.state is JobState.COMPLETED)


class QueueView:
    """One query serves everybody whose question it is young enough for.

    A failed query changes nothing that is known: jobs stay as they were last seen, and every
    answer says `known=False` until the queue speaks again. Times are those of the event loop.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.queries = 0
        self.failures = 0
        self.silent_since: float | None = None
        """When the queue began not to answer, None while it does."""
        self._jobs: dict[str, Job] = {}
        self._asked = LONG_AGO
        self._query: asyncio.Task[None] | None = None
        self._single_queries = asyncio.Semaphore(4)

    async def look(
        self, job_id: str, *, max_age: float, since: float = LONG_AGO, submitted: float = LONG_AGO
    ) -> Sight:
        """What the queue says of a job, at most `max_age` seconds old.

        An answer that was asked for before `since` does not count: something was done to the
        job then. `submitted` is when the job was, if this hub did it.
        """
        await self._refresh(max_age, max(since, submitted))
        job = self._jobs.get(job_id)
        if self.silent_since is not None or (job and job.state is JobState.UNREADABLE):
            return Sight(False, job)
        return Sight(True, job) if job else await self._confirm_absence(job_id, submitted)

    def last_seen(self, job_id: str) -> Job | None:
        """The job as the latest query showed it; asks nothing."""
        return self._jobs.get(job_id)

    async def _refresh(self, max_age: float, since: float) -> None:
        now = asyncio.get_running_loop().time
        wanted = max(now() - max_age, since)
        while self._asked < wanted:
            if self._query is None:
                self._query = asyncio.ensure_future(self._ask(self._asked + MIN_GAP - now()))
            # The query goes on when one of those who wait for it is cancelled.
            await asyncio.shield(self._query)

    async def _ask(self, pause: float) -> None:
        await asyncio.sleep(max(0.0, pause))
        begun = asyncio.get_running_loop().time()
        self.queries += 1
        try:
            self._jobs = await self.scheduler.jobs()
        except SchedulerError as error:
            self.failures += 1
            if self.silent_since is None:
                self.silent_since = begun
                log.warning("The queue does not answer, jobs count as they were: %s", error)
        else:
            if self.silent_since is not None:
                log.warning("The queue answers again after %.0f s.", begun - self.silent_since)
            self.silent_since = None
        finally:
            self._asked = begun
            self._query = None

    async def _confirm_absence(self, job_id: str, submitted: float) -> Sight:
        """Ask for a job that is not in the table: only `unknown job` means that it is gone.

        It may also be hidden from the hub, or too new.
        """
        try:
            async with self._single_queries:
                job = await self.scheduler.job(job_id)
        except UnknownJobError:
            age = asyncio.get_running_loop().time() - submitted
            return Sight(age > FIRST_SIGHT, None)
        except SchedulerError as error:
            log.warning("Nothing is known of job %s: %s", job_id, error)
            return Sight(False, None)
        return Sight(job.state is not JobState.UNREADABLE, job)
