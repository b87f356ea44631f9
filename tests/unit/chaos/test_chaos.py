# SPDX-License-Identifier: BSD-3-Clause
"""The judge of the chaos runs: each invariant is seen to be violated, and to be patient."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tests.chaos import invariants, leaks
from tests.chaos.faults import Bench
from tests.chaos.invariants import Watch
from tests.chaos.lives import Person
from tests.chaos.timeline import Ledger, Scene, Timeline, Verdicts
from tests.chaos.world import Account, Claim, Job, OutOfReachError, Process, World

OWNER = "meteo1"
LIMIT = 2


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Cluster:
    """A cluster on paper, in the place of World and of its only Person."""

    def __init__(self) -> None:
        self.accounts = [Account(OWNER, "secret", 2001)]
        self.name = OWNER
        self.secrets: set[str] = set()
        self.queue: dict[str, Job] = {}
        self.claimed: dict[tuple[str, str], Claim] = {}
        self.shown: dict[str, dict[str, Any]] = {}
        self.running: list[Process] = []

    def jobs(self) -> dict[str, Job]:
        return self.queue

    def claims(self) -> dict[tuple[str, str], Claim]:
        return self.claimed

    def servers(self) -> dict[str, dict[str, Any]]:
        return self.shown

    def processes(self, node: str) -> list[Process]:
        return [process for process in self.running if process.node == node]

    def hub_secrets(self) -> set[str]:
        return set()

    def run(self, host: str, *_argv: str, **_more: object) -> str:
        raise OutOfReachError(host)

    def home(self, user: str) -> str:
        return f"/home/{user}"

    def add_job(self, number: int, state: str = "R", node: str = "node01") -> Job:
        job = Job(f"{number}.encina", "notebook", OWNER, state, node, "", None, time.time())
        self.queue[job.id] = job
        return job

    def add_server(self, name: str, job: Job) -> None:
        self.claimed[OWNER, name] = Claim(OWNER, name, job.id, "", running=True)
        self.shown[name] = {"ready": True, "pending": None}


class Bed:
    """A watch over the cluster on paper."""

    def __init__(self, clock: Clock, folder: Path) -> None:
        self.clock = clock
        self.cluster = Cluster()
        self.ledger = Ledger()
        timeline = Timeline(folder / "timeline.jsonl")
        self.verdicts = Verdicts(timeline)
        scene = Scene(cast(World, self.cluster), timeline, self.ledger, self.verdicts)
        self.watch = Watch(scene, [cast(Person, self.cluster)], LIMIT)

    def look_for(self, seconds: float) -> list[str]:
        """Look, let time pass, look again; the invariants that are violated by then."""
        self.watch.look()
        self.clock.seconds += seconds
        self.watch.look()
        return [violation.invariant for violation in self.verdicts.violations]


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bed:
    """A watch, an empty cluster, and a clock that stands still."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    made = Bed(clock, tmp_path)
    clock.seconds += 1000  # all has been well for long
    return made


def orphan(cluster: Cluster) -> None:
    cluster.add_job(1)


def ghost(cluster: Cluster) -> None:
    cluster.add_server("", cluster.add_job(1, state="C"))


def leftover(cluster: Cluster) -> None:
    cluster.running.append(Process("node01", 4711, OWNER, "1.encina", "sleep 3600", ""))


def hidden_leftover(cluster: Cluster) -> None:
    cluster.running.append(Process("node02", 4712, OWNER, "", "sleep 3601", ""))


def stuck_stop(cluster: Cluster) -> None:
    cluster.add_server("", cluster.add_job(1))
    cluster.shown[""] = {"ready": False, "pending": "stop"}


def stuck_start(cluster: Cluster) -> None:
    cluster.add_server("", cluster.add_job(1))
    cluster.shown[""] = {"ready": False, "pending": "spawn"}


DOUBTS: list[tuple[Callable[[Cluster], None], str, float]] = [
    (orphan, "every job has a server", invariants.ORPHAN),
    (ghost, "every running server has a job", invariants.GHOST),
    (leftover, "no process outlives its job", invariants.LEFTOVER),
    (hidden_leftover, "no process outlives its job", invariants.LEFTOVER),
    (stuck_stop, "no start or stop is stuck", invariants.STUCK),
    (stuck_start, "no start or stop is stuck", invariants.UNFINISHED),
]


@pytest.mark.parametrize(("wrong", "invariant", "bound"), DOUBTS)
def test_doubt_becomes_a_violation_after_its_bound(
    bed: Bed, wrong: Callable[[Cluster], None], invariant: str, bound: float
) -> None:
    wrong(bed.cluster)
    assert bed.look_for(bound - 1) == []
    assert bed.look_for(2) == [invariant]


@pytest.mark.parametrize(("wrong", "invariant", "bound"), DOUBTS)
def test_time_does_not_count_while_something_is_broken(
    bed: Bed, wrong: Callable[[Cluster], None], invariant: str, bound: float
) -> None:
    wrong(bed.cluster)
    with bed.ledger.broken(["queue", "hub", "node01", "node02"]):
        assert bed.look_for(10 * bound) == []
    bed.clock.seconds += 1
    assert bed.look_for(bound - 1) == []
    assert bed.look_for(2) == [invariant]


def test_doubt_that_is_settled_is_forgotten(bed: Bed) -> None:
    job = bed.cluster.add_job(1)
    assert bed.look_for(invariants.ORPHAN - 1) == []
    bed.cluster.add_server("", job)
    assert bed.look_for(1) == []
    assert bed.watch.doubts.open() == []


def test_notebook_that_the_hub_drops_is_lost(bed: Bed) -> None:
    bed.cluster.add_server("", bed.cluster.add_job(1))
    assert bed.look_for(1) == []
    bed.cluster.claimed.clear()
    bed.cluster.shown.clear()
    assert bed.look_for(0) == ["no notebook is lost"]


@pytest.mark.parametrize("state", ["C", "R"])
def test_fault_excuses_the_end_of_a_job_that_is_over(bed: Bed, state: str) -> None:
    bed.cluster.add_server("", bed.cluster.add_job(1))
    assert bed.look_for(1) == []
    bed.ledger.excuse("1.encina", "job is killed")
    bed.cluster.add_job(1, state)
    bed.cluster.claimed.clear()
    bed.cluster.shown.clear()
    assert bed.look_for(0) == ([] if state == "C" else ["no notebook is lost"])


@pytest.mark.parametrize("again", [False, True])
def test_stop_explains_the_end_of_its_own_job_alone(bed: Bed, again: bool) -> None:
    """A stop from before the start that made the job has nothing to do with it."""
    server = (OWNER, "")
    bed.ledger.ask_start(server)
    bed.ledger.ask_stop(server)
    if again:
        bed.ledger.ask_start(server)
    bed.cluster.add_server("", bed.cluster.add_job(1))
    assert bed.look_for(1) == []
    bed.cluster.claimed.clear()
    bed.cluster.shown.clear()
    assert bed.look_for(0) == (["no notebook is lost"] if again else [])


def test_limit_counts_jobs_at_each_look(bed: Bed) -> None:
    for number in range(LIMIT + 1):
        bed.cluster.add_server(str(number), bed.cluster.add_job(number, state="Q", node=""))
    assert bed.look_for(0) == ["the limit of jobs is kept"]


def test_jobs_on_a_lost_node_do_not_count_for_the_limit(bed: Bed) -> None:
    for number in range(LIMIT + 1):
        node = "node02" if number == 0 else "node01"
        bed.cluster.add_server(str(number), bed.cluster.add_job(number, node=node))
    with bed.ledger.broken(["node02"]):
        assert bed.look_for(0) == []


def test_job_of_others_that_is_deleted_is_seen(bed: Bed) -> None:
    bed.watch.strangers = {bed.cluster.add_job(1, state="H").id}
    assert bed.look_for(1000) == []
    bed.cluster.queue.clear()
    assert bed.look_for(0) == ["other people's jobs are left alone"]


def test_seed_repeats_the_faults() -> None:
    def faults(seed: int) -> list[tuple[str, float]]:
        bench = Bench(cast(World, Cluster()), Ledger(), random.Random(seed))  # noqa: S311
        return [(fault.kind, fault.seconds) for fault in (bench.draw() for _ in range(200))]

    assert faults(1) == faults(1)
    assert faults(1) != faults(2)


def test_every_fault_is_drawn() -> None:
    bench = Bench(cast(World, Cluster()), Ledger(), random.Random(1))  # noqa: S311
    kinds = {bench.draw().kind for _ in range(3000)}
    assert len(kinds) == 30, sorted(kinds)


@pytest.mark.parametrize("told", [True, False])
def test_search_finds_a_secret_where_it_is(tmp_path: Path, told: bool) -> None:
    secret = "0123456789abcdef"
    (tmp_path / "log").write_text(f"token {secret}\n" if told else "nothing\n")
    task = {
        "secrets": {secret: ["somebody", "a token"]},
        "folders": [str(tmp_path)],
        "since": 0,
        "commands": [["echo", "-n", secret]],
        "processes": False,
        "people": [],
    }
    done = subprocess.run(
        [sys.executable, "-c", leaks.SEARCH],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    places = [json.loads(line)[0] for line in done.stdout.splitlines()]
    assert places == ([str(tmp_path / "log")] if told else []) + ["echo -n"]
    assert secret not in done.stdout
