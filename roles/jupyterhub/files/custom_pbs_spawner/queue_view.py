# SPDX-License-Identifier: BSD-3-Clause
"""The queue's table of jobs, asked for once and shared by all spawners."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from custom_pbs_spawner.scheduler import (
    HiddenJobError,
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

SINGLE_QUERIES = 4
"""How many queries for one job, or for one owner, run at once."""

HIDDEN_RETRY = 60.0
"""Seconds after which a queue that hid other people's jobs is tried again."""

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
        return self.known and (self.job is None or self.job.over)


class QueueView:
    """One query serves everybody whose question it is young enough for.

    A failed query changes nothing that is known: jobs stay as they were last seen, and every
    answer says `known=False` until the queue speaks again. Times are those of the event loop.

    Where the server hides other people's jobs from the hub (`query_other_jobs` off) the table is
    put together from one query for each of `owners`, asked for as that owner.
    """

    def __init__(self, scheduler: Scheduler, *, node_interval: float = 30.0) -> None:
        self.scheduler = scheduler
        self.owners: set[str] = set()
        """Who may have jobs: grows with each look, shrinks when an owner turns out to have none."""
        self.queries = 0
        self.failures = 0
        self.silent_since: float | None = None
        """When the queue began not to answer, None while it does."""
        self._node_interval = node_interval
        self._jobs: dict[str, Job] = {}
        self._asked = LONG_AGO
        self._answered = LONG_AGO
        self._query: asyncio.Task[None] | None = None
        self._single_queries = asyncio.Semaphore(SINGLE_QUERIES)
        self._hidden_since: float | None = None
        self._silent_owners: set[str] = set()
        self._nodes: dict[str, bool] = {}
        self._nodes_asked = LONG_AGO
        self._node_query: asyncio.Task[None] | None = None

    @property
    def age(self) -> float:
        """Seconds since the queue last answered, infinite before it ever did."""
        return asyncio.get_running_loop().time() - self._answered

    @property
    def hides_jobs(self) -> bool:
        """Whether the server shows the hub no jobs but its own."""
        return self._hidden_since is not None

    async def look(
        self,
        job_id: str,
        *,
        owner: str,
        max_age: float,
        since: float = LONG_AGO,
        submitted: float = LONG_AGO,
    ) -> Sight:
        """What the queue says of a job, at most `max_age` seconds old.

        An answer that was asked for before `since` does not count: something was done to the
        job then. `submitted` is when the job was, if this hub did it.
        """
        self.owners.add(owner)
        await self._refresh(max_age, max(since, submitted))
        job = self._jobs.get(job_id)
        if job and _belongs_to_another(job, owner):
            return Sight(self.silent_since is None, None)
        if self._silent_about(owner) or (job and job.state is JobState.UNREADABLE):
            return Sight(False, job)
        return Sight(True, job) if job else await self._confirm_absence(job_id, owner, submitted)

    async def table(self, *, max_age: float, since: float = LONG_AGO) -> dict[str, Job] | None:
        """All jobs the hub can see, by id; None when the queue does not answer."""
        await self._refresh(max_age, since)
        return None if self.silent_since is not None else dict(self._jobs)

    def last_seen(self, job_id: str) -> Job | None:
        """The job as the latest query showed it; asks nothing."""
        return self._jobs.get(job_id)

    def last_table(self) -> list[Job]:
        """All jobs as the latest query showed them; asks nothing."""
        return list(self._jobs.values())

    def node_answers(self, host: str) -> bool:
        """Whether the scheduler hears of a node, as far as is known; asks nothing."""
        return self._nodes.get(host, True)

    def _silent_about(self, owner: str) -> bool:
        return self.silent_since is not None or owner in self._silent_owners

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
        try:
            self._jobs = await self._all_jobs(begun)
        except SchedulerError as error:
            self.failures += 1
            if self.silent_since is None:
                self.silent_since = begun
                log.warning("The queue does not answer, jobs count as they were: %s", error)
        else:
            if self.silent_since is not None:
                log.warning("The queue answers again after %.0f s.", begun - self.silent_since)
            self.silent_since = None
            self._answered = begun
            self._watch_nodes(begun)
        finally:
            self._asked = begun
            self._query = None

    async def _all_jobs(self, now: float) -> dict[str, Job]:
        if self._hidden_since is None:
            self.queries += 1
            return await self.scheduler.jobs()
        if now - self._hidden_since > HIDDEN_RETRY:
            self._hidden_since = now
            self.queries += 1
            jobs = await self.scheduler.jobs()
            if jobs.keys() & self._jobs.keys():
                log.warning("The queue shows other people's jobs again: one query for all.")
                self._hidden_since = None
                self._silent_owners.clear()
                return jobs
        return await self._jobs_of_owners()

    async def _jobs_of_owners(self) -> dict[str, Job]:
        """One query for each owner; where it fails, her jobs stay as they were last seen."""
        owners = sorted(self.owners)
        answers = await asyncio.gather(*(self._jobs_of(owner) for owner in owners))
        jobs: dict[str, Job] = {}
        for owner, answer in zip(owners, answers, strict=True):
            before = {key: job for key, job in self._jobs.items() if job.owner == owner}
            jobs.update(before if answer is None else answer)
        return jobs

    async def _jobs_of(self, owner: str) -> dict[str, Job] | None:
        async with self._single_queries:
            self.queries += 1
            try:
                jobs = await self.scheduler.jobs(owner)
            except SchedulerError as error:
                self._silent_owners.add(owner)
                log.warning("Nothing is known of the jobs of %s: %s", owner, error)
                return None
        self._silent_owners.discard(owner)
        if not jobs:
            self.owners.discard(owner)
        return jobs

    def _watch_nodes(self, now: float) -> None:
        """Ask for the nodes beside the jobs: neither query waits in the other's way."""
        busy = self._node_query is not None and not self._node_query.done()
        jobs_run = any(job.host and job.tag and not job.over for job in self._jobs.values())
        if jobs_run and not busy and now - self._nodes_asked >= self._node_interval:
            self._nodes_asked = now
            self._node_query = asyncio.ensure_future(self._ask_for_nodes())

    async def _ask_for_nodes(self) -> None:
        """Whether the nodes answer; without an answer they count as they did before."""
        self.queries += 1
        try:
            nodes = await self.scheduler.nodes()
        except SchedulerError as error:
            log.warning("Nothing is known of the nodes: %s", error)
            return
        for host, answers in nodes.items():
            if answers is not self._nodes.get(host, True):
                log.warning("Node %s %s.", host, "answers again" if answers else "does not answer")
        self._nodes = nodes

    async def _confirm_absence(self, job_id: str, owner: str, submitted: float) -> Sight:
        """Ask for a job that is not in the table: only `unknown job` means that it is gone.

        It may also be hidden from the hub, or too new.
        """
        caller = owner if self.hides_jobs else None
        try:
            async with self._single_queries:
                self.queries += 1
                job = await self.scheduler.job(job_id, caller)
        except UnknownJobError:
            age = asyncio.get_running_loop().time() - submitted
            return Sight(age > FIRST_SIGHT, None)
        except HiddenJobError as error:
            if caller is None:
                self._hide(error)
            return Sight(False, None)
        except SchedulerError as error:
            log.warning("Nothing is known of job %s: %s", job_id, error)
            return Sight(False, None)
        if _belongs_to_another(job, owner):
            return Sight(True, None)
        return Sight(job.state is not JobState.UNREADABLE, job)

    def _hide(self, error: HiddenJobError) -> None:
        """From now on each owner is asked for; the next look does it."""
        if self._hidden_since is None:
            self._hidden_since = asyncio.get_running_loop().time()
            self._asked = LONG_AGO
            log.warning(
                "The queue hides other people's jobs (%s). From now on there is one query through "
                "sudo for each of %d owners and interval, %d at once; "
                "qmgr -c 'set server query_other_jobs = True' makes it one for all.",
                error,
                len(self.owners),
                SINGLE_QUERIES,
            )


def _belongs_to_another(job: Job, owner: str) -> bool:
    """The numbers of a new queue server begin again: a record may name somebody else's job."""
    return job.owner not in ("", owner)
