# SPDX-License-Identifier: BSD-3-Clause
"""One view of the queue for all: who asks, how old an answer is, what silence means."""

from __future__ import annotations

import asyncio

import pytest
from custom_pbs_spawner import queue_view
from custom_pbs_spawner.queue_view import QueueView, Sight
from custom_pbs_spawner.scheduler import (
    HiddenJobError,
    Job,
    JobState,
    NotPermittedError,
    SchedulerError,
    UnknownJobError,
    UnreachableError,
    new_tag,
)

A, B = "1.encina", "2.encina"
TAG = new_tag("0123abcd")
pytestmark = pytest.mark.asyncio


class Queue:
    """A scheduler in memory."""

    def __init__(self, *jobs: Job) -> None:
        self.table = {job.id: job for job in jobs}
        self.error: SchedulerError | None = None
        self.hidden = False
        self.asked = 0
        self.asked_for: list[str] = []
        self.asked_for_nodes = 0
        self.askers: list[str | None] = []
        self.refused: set[str | None] = set()
        self.node_answers = {"node01": True, "node02": True}

    async def jobs(self, user: str | None = None) -> dict[str, Job]:
        self.asked += 1
        self.askers.append(user)
        table = {
            key: job
            for key, job in self.table.items()
            if (user is None and not self.hidden) or job.owner == user
        }
        await asyncio.sleep(0.02)
        if self.error or user in self.refused:
            raise self.error or NotPermittedError("sudo")
        return table

    async def job(self, job_id: str, user: str | None = None) -> Job:
        self.asked_for.append(job_id)
        if self.error:
            raise self.error
        if self.hidden and user is None:
            raise HiddenJobError(job_id)
        if job_id not in self.table:
            raise UnknownJobError(job_id)
        return self.table[job_id]

    async def nodes(self) -> dict[str, bool]:
        self.asked_for_nodes += 1
        return dict(self.node_answers)

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


def running(job_id: str = A, owner: str = "ana") -> Job:
    return Job(job_id, JobState.RUNNING, owner=owner, host="node01", tag=TAG)


async def test_many_questions_are_one_query() -> None:
    queue = Queue(*(running(f"{number}.encina") for number in range(200)))
    view = QueueView(queue)
    sights = await asyncio.gather(
        *(view.look(f"{number}.encina", owner="ana", max_age=10) for number in range(200))
    )
    assert all(sight.known and sight.job for sight in sights)
    assert (queue.asked, queue.asked_for) == (1, [])


async def test_answer_is_used_while_it_is_young_enough() -> None:
    queue = Queue(running())
    view = QueueView(queue)
    await view.look(A, owner="ana", max_age=10)
    await asyncio.sleep(0.15)
    await view.look(A, owner="ana", max_age=10)
    assert queue.asked == 1
    await view.look(A, owner="ana", max_age=0.1)
    assert queue.asked == 2


async def test_answer_from_before_the_submission_does_not_count() -> None:
    queue = Queue()
    view = QueueView(queue)
    early = asyncio.ensure_future(view.look(B, owner="ana", max_age=10))
    await asyncio.sleep(0.01)  # its query is on the way
    submitted = now()
    queue.table[A] = running()
    assert (await view.look(A, owner="ana", max_age=10, submitted=submitted)).job == running()
    await early
    assert queue.asked == 2


async def test_queries_keep_a_distance() -> None:
    queue = Queue(running())
    view = QueueView(queue)
    begun = now()
    for _ in range(5):
        await view.look(A, owner="ana", max_age=10, since=now())
    assert now() - begun >= 0.4
    assert queue.asked == 5


async def test_silence_changes_nothing_that_is_known() -> None:
    queue = Queue(running())
    view = QueueView(queue)
    await view.look(A, owner="ana", max_age=0)
    queue.error = UnreachableError("no answer")
    sight = await view.look(A, owner="ana", max_age=0)
    assert sight == Sight(False, running())
    assert not sight.over
    assert (await view.look(B, owner="ana", max_age=0)) == Sight(False, None)
    assert view.silent_since is not None
    queue.error = None
    assert (await view.look(A, owner="ana", max_age=0)).known
    assert view.silent_since is None
    assert view.failures == 2


async def test_job_is_gone_on_the_word_of_the_scheduler_only() -> None:
    queue = Queue()
    view = QueueView(queue)
    assert (await view.look(A, owner="ana", max_age=0)).over
    assert queue.asked_for == [A]
    queue.hidden = True
    sight = await view.look(A, owner="ana", max_age=0)
    assert sight == Sight(False, None)
    assert not sight.over


async def test_job_of_somebody_else_with_the_same_number_is_another_job() -> None:
    view = QueueView(Queue(running(A, "bea")))
    assert (await view.look(A, owner="ana", max_age=0)).over


async def test_new_job_may_be_missing_for_a_while() -> None:
    view = QueueView(Queue())
    submitted = now()
    assert not (await view.look(A, owner="ana", max_age=0, submitted=submitted)).over
    await asyncio.sleep(0.3)
    assert (await view.look(A, owner="ana", max_age=0, submitted=submitted)).over


@pytest.fixture
def hiding() -> Queue:
    """A queue with `query_other_jobs` off."""
    queue = Queue(running(), running(B, "bea"))
    queue.hidden = True
    return queue


async def test_hidden_jobs_are_asked_for_as_their_owners(hiding: Queue) -> None:
    view = QueueView(hiding)
    assert not (await view.look(A, owner="ana", max_age=0)).known
    assert view.hides_jobs
    for job_id, owner in ((A, "ana"), (B, "bea")):
        sight = await view.look(job_id, owner=owner, max_age=0)
        assert sight == Sight(True, hiding.table[job_id])
    hiding.askers.clear()
    await asyncio.gather(
        *(view.look(job_id, owner="ana", max_age=0) for job_id in (A, A, A)),
        view.look(B, owner="bea", max_age=0),
    )
    assert hiding.askers == ["ana", "bea"], "one query for an owner, whatever she has"
    del hiding.table[A]
    assert (await view.look(A, owner="ana", max_age=0)).over


async def test_hidden_jobs_of_one_owner_may_be_unknown(hiding: Queue) -> None:
    view = QueueView(hiding)
    for _ in range(2):
        await view.look(A, owner="ana", max_age=0)
        await view.look(B, owner="bea", max_age=0)
    hiding.refused.add("ana")
    assert await view.look(A, owner="ana", max_age=0) == Sight(False, hiding.table[A])
    assert await view.look(B, owner="bea", max_age=0) == Sight(True, hiding.table[B])


async def test_hidden_jobs_that_show_again_are_one_query(
    hiding: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_view, "HIDDEN_RETRY", 0.2)
    view = QueueView(hiding)
    for _ in range(2):
        await view.look(A, owner="ana", max_age=0)
    hiding.hidden = False
    await asyncio.sleep(0.3)
    hiding.askers.clear()
    await view.look(A, owner="ana", max_age=0)
    await view.look(A, owner="ana", max_age=0)
    assert hiding.askers == [None, None]
    assert not view.hides_jobs


async def test_nodes_are_asked_for_while_jobs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    view = QueueView(queue, node_interval=0.15)
    await view.look(A, owner="ana", max_age=0)
    await asyncio.sleep(0.05)
    assert queue.asked_for_nodes == 0
    queue.table[A] = running()
    queue.node_answers["node01"] = False
    for _ in range(4):
        await view.look(A, owner="ana", max_age=0)
    assert queue.asked_for_nodes in (2, 3, 4)
    assert not view.node_answers("node01")
    assert view.node_answers("node02")
    assert view.node_answers("a node nobody has heard of")


async def test_unreadable_job_is_unknown() -> None:
    view = QueueView(Queue(Job(A, JobState.UNREADABLE)))
    assert not (await view.look(A, owner="ana", max_age=0)).known


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
    assert (await view.look(A, owner="ana", max_age=0)).over is over


async def test_query_goes_on_when_one_who_waits_is_cancelled() -> None:
    queue = Queue(running())
    view = QueueView(queue)
    first = asyncio.ensure_future(view.look(A, owner="ana", max_age=10))
    second = asyncio.ensure_future(view.look(A, owner="ana", max_age=10))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).known
    assert queue.asked == 1
