# SPDX-License-Identifier: BSD-3-Clause
"""One view of the queue for all: who asks, how old an answer is, what silence means."""

from __future__ import annotations

import asyncio

import pytest
from custom_pbs_spawner import queue_view
from custom_pbs_spawner.queue_view import QueueView, Sight
from custom_pbs_spawner.scheduler import (
    Job,
    JobState,
    NotPermittedError,
    SchedulerError,
    UnknownJobError,
    UnreachableError,
)

A, B = "1.encina", "2.encina"
pytestmark = pytest.mark.asyncio


class Queue:
    """A scheduler in memory."""

    def __init__(self, *jobs: Job) -> None:
        self.table = {job.id: job for job in jobs}
        self.error: SchedulerError | None = None
        self.hidden = False
        self.asked = 0
        self.asked_for: list[str] = []

    async def jobs(self) -> dict[str, Job]:
        self.asked += 1
        table = {} if self.hidden else dict(self.table)
        await asyncio.sleep(0.02)
        if self.error:
            raise self.error
        return table

    async def job(self, job_id: str) -> Job:
        self.asked_for.append(job_id)
        if self.error:
            raise self.error
        if self.hidden:
            raise NotPermittedError(job_id)
        if job_id not in self.table:
            raise UnknownJobError(job_id)
        return self.table[job_id]

    async def submit(self, user: str, script: str) -> str:
        raise NotImplementedError

    async def delete(self, user: str, job_id: str) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_view, "MIN_GAP", 0.1)
    monkeypatch.setattr(queue_view, "FIRST_SIGHT", 0.3)


def now() -> float:
    return asyncio.get_running_loop().time()


def running(job_id: str = A) -> Job:
    return Job(job_id, JobState.RUNNING)


async def test_many_questions_are_one_query() -> None:
    queue = Queue(*(running(f"{number}.encina") for number in range(200)))
    view = QueueView(queue)
    sights = await asyncio.gather(
        *(view.look(f"{number}.encina", max_age=10) for number in range(200))
    )
    assert all(sight.known and sight.job for sight in sights)
    assert (queue.asked, queue.asked_for) == (1, [])


async def test_answer_is_used_while_it_is_young_enough() -> None:
    queue = Queue(running())
    view = QueueView(queue)
    await view.look(A, max_age=10)
    await asyncio.sleep(0.15)
    await view.look(A, max_age=10)
    assert queue.asked == 1
    await view.look(A, max_age=0.1)
    assert queue.asked == 2


async def test_answer_from_before_the_submission_does_not_count() -> None:
    queue = Queue()
    view = QueueView(queue)
    early = asyncio.ensure_future(view.look(B, max_age=10))
    await asyncio.sleep(0.01)  # its query is on the way
    submitted = now()
    queue.table[A] = running()
    assert (await view.look(A, max_age=10, submitted=submitted)).job == running()
    await early
    assert queue.asked == 2


async def test_queries_keep_a_distance() -> None:
    queue = Queue(running())
    view = QueueView(queue)
    begun = now()
    for _ in range(5):
        await view.look(A, max_age=10, since=now())
    assert now() - begun >= 0.4
    assert queue.asked == 5


async def test_silence_changes_nothing_that_is_known() -> None:
    queue = Queue(running())
    view = QueueView(queue)
    await view.look(A, max_age=0)
    queue.error = UnreachableError("no answer")
    sight = await view.look(A, max_age=0)
    assert sight == Sight(False, running())
    assert not sight.over
    assert (await view.look(B, max_age=0)) == Sight(False, None)
    assert view.silent_since is not None
    queue.error = None
    assert (await view.look(A, max_age=0)).known
    assert view.silent_since is None
    assert (view.queries, view.failures) == (4, 2)


async def test_job_is_gone_on_the_word_of_the_scheduler_only() -> None:
    queue = Queue()
    view = QueueView(queue)
    assert (await view.look(A, max_age=0)).over
    assert queue.asked_for == [A]
    queue.hidden = True
    sight = await view.look(A, max_age=0)
    assert sight == Sight(False, None)
    assert not sight.over


async def test_new_job_may_be_missing_for_a_while() -> None:
    view = QueueView(Queue())
    submitted = now()
    assert not (await view.look(A, max_age=0, submitted=submitted)).over
    await asyncio.sleep(0.3)
    assert (await view.look(A, max_age=0, submitted=submitted)).over


async def test_unreadable_job_is_unknown() -> None:
    view = QueueView(Queue(Job(A, JobState.UNREADABLE)))
    assert not (await view.look(A, max_age=0)).known


@pytest.mark.parametrize(
    ("state", "over"),
    [
        (JobState.QUEUED, False),
        (JobState.HELD, False),
        (JobState.RUNNING, False),
        (JobState.EXITING, False),
        (JobState.COMPLETED, True),
    ],
)
async def test_which_states_are_the_end(state: JobState, over: bool) -> None:
    view = QueueView(Queue(Job(A, state)))
    assert (await view.look(A, max_age=0)).over is over


async def test_query_goes_on_when_one_who_waits_is_cancelled() -> None:
    queue = Queue(running())
    view = QueueView(queue)
    first = asyncio.ensure_future(view.look(A, max_age=10))
    second = asyncio.ensure_future(view.look(A, max_age=10))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).known
    assert queue.asked == 1
