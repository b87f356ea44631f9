# SPDX-License-Identifier: BSD-3-Clause
"""Nobody's job stays in the queue: what this hub submitted and no server claims is deleted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from custom_pbs_spawner import metrics
from custom_pbs_spawner.queue_view import QueueView
from custom_pbs_spawner.record import JobRecord
from custom_pbs_spawner.scheduler import (
    AlreadyEndingError,
    Job,
    NotPermittedError,
    SchedulerError,
    UnknownJobError,
)

log = logging.getLogger(__name__)

GRACE = 15.0
"""Seconds for which a job may be without a server before it is deleted."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds between two tries to delete a job; doubled each time."""


@dataclass
class Orphan:
    """A job without a server. Times are those of the event loop."""

    found: float
    next_try: float
    pause: float = FIRST_PAUSE
    forbidden: bool = False
    """The owner is nobody the hub may act for: somebody imitated a tag."""


class Census:
    """Compares the queue's table with the servers that there are.

    It needs no memory: a job carries the hub's id in its tag. `claims` gives the records of all
    servers, also of those that are starting or stopping. After `overdue_after` seconds the log
    and the metrics tell of a job that does not end.
    """

    def __init__(
        self,
        view: QueueView,
        hub: str,
        claims: Callable[[], Mapping[str, JobRecord]],
        overdue_after: float,
    ) -> None:
        self._view = view
        self._prefix = f"{hub}-"
        self._claims = claims
        self._overdue_after = overdue_after
        self._orphans: dict[str, Orphan] = {}

    async def run(self, interval: float) -> None:
        """Count again and again, every `interval` seconds."""
        while True:
            try:
                await self.count(interval)
            except Exception:
                # Whatever it was: without a census jobs would be lost for good.
                log.exception("The census of the jobs failed; it is repeated.")
            await asyncio.sleep(interval)

    async def count(self, max_age: float) -> None:
        """One comparison. Deletes what has been without a server for GRACE seconds."""
        table = await self._view.table(max_age=max_age)
        claims = self._claims()
        self._show(table, claims)
        if table is None:
            return
        mine = {key: job for key, job in table.items() if job.tag.startswith(self._prefix)}
        orphans = {key: job for key, job in mine.items() if not job.over and job.tag not in claims}
        for key in self._orphans.keys() - orphans.keys():
            self._ended(key, claimed=key in mine and not mine[key].over)
        now = asyncio.get_running_loop().time()
        for key, job in orphans.items():
            if key not in self._orphans:
                self._orphans[key] = Orphan(found=now, next_try=now + GRACE)
                metrics.ORPHANS_FOUND.inc()
                log.warning("Job %s of %s has no server.", key, job.owner)
        due = [job for key, job in orphans.items() if now >= self._orphans[key].next_try]
        await asyncio.gather(*(self._delete(job) for job in due))

    def _show(self, table: Mapping[str, Job] | None, claims: Mapping[str, JobRecord]) -> None:
        """Put the jobs by state and profile into the metrics."""
        counts: Counter[tuple[str, str]] = Counter()
        for job in (table or {}).values():
            if job.tag.startswith(self._prefix) and not job.over:
                record = claims.get(job.tag)
                counts[job.state.value, record.profile if record else "none"] += 1
        if table is not None:
            metrics.set_jobs(counts)

    def _ended(self, job_id: str, *, claimed: bool) -> None:
        orphan = self._orphans.pop(job_id)
        metrics.overdue.discard(job_id)
        if claimed:
            metrics.ORPHANS_ADOPTED.inc()
            log.info("Job %s has its server again.", job_id)
        elif not orphan.forbidden:
            metrics.ORPHANS_DELETED.inc()
            log.info("Job %s, which had no server, has ended.", job_id)

    async def _delete(self, job: Job) -> None:
        orphan = self._orphans[job.id]
        if orphan.forbidden:
            return
        try:
            await self._view.scheduler.delete(job.owner, job.id)
        except (UnknownJobError, AlreadyEndingError):
            log.debug("Job %s was ending already.", job.id)
        except NotPermittedError as error:
            orphan.forbidden = True
            log.warning("Job %s of %s may not be deleted: %s", job.id, job.owner, error)
        except SchedulerError as error:
            metrics.FAULTS.labels("delete").inc()
            log.warning("Job %s has no server and could not be deleted: %s", job.id, error)
        now = asyncio.get_running_loop().time()
        orphan.next_try = now + orphan.pause
        orphan.pause = min(2 * orphan.pause, LONGEST_PAUSE)
        without_server = now - orphan.found
        if without_server > self._overdue_after:
            metrics.overdue.add(job.id)
            log.error(
                "Job %s has had no server for %.0f s and does not end.", job.id, without_server
            )
