# SPDX-License-Identifier: BSD-3-Clause
"""S3, A1, A5-A7: what an account may do is start and stop its own servers, up to its limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest
import requests

from tests.pitfalls.bed import Bed, Researcher, prepared, reached, stays

NAMED = 2
JOBS = NAMED + 1


@pytest.fixture
def limited(own_bed: Bed) -> Iterator[Bed]:
    """A hub that allows each user two named servers beside the first."""
    own_bed.extra = f"c.JupyterHub.named_server_limit_per_user = {NAMED}"
    own_bed.start()
    own_bed.queue.knob("schedule", "hold")
    yield own_bed
    own_bed.queue.reset()


def most_jobs(ana: Researcher, seconds: float) -> int:
    """The largest number of her jobs that is seen within some seconds."""
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, len(ana.jobs()))
        return True

    stays("", look, seconds)
    return most


# --- S3: jobs count, not objects -------------------------------------------------------------


@pytest.mark.row("S3")
def test_servers_that_were_given_up_count_while_their_jobs_live(limited: Bed) -> None:
    """The queue refuses qdel; each server is stopped, removed, and asked for anew."""
    limited.queue.knob("qdel", "fail 15 qdel: Unauthorized Request")
    ana = limited.researcher()
    for turn in range(2):
        for server in ("", "one", "two"):
            ana.start(server=server and f"{server}{turn}")
        for server in ("", "one", "two"):
            path = f"/servers/{server}{turn}" if server else "/server"
            ana.api("DELETE", path, json={"remove": bool(server)})
    assert most_jobs(ana, 2) <= JOBS


@pytest.mark.row("S3")
def test_a_server_that_its_job_disowns_counts(limited: Bed) -> None:
    """The job says to the hub whatever it can, so that the hub forgets it."""
    ana = limited.researcher()
    for _ in range(JOBS + 1):
        ana.start()
        prepared("the start is over", lambda: ana.jobs() or not ana.model(), 10)
        for number in ana.jobs():
            token = limited.server_token(number)
            for body in ({"child_spawner": None}, {"child_state": {}, "child_profile": "gone"}):
                ana.report(body, token)
        ana.stop()
        limited.queue.knob("qdel", "fail 15 qdel: Unauthorized Request")
    assert most_jobs(ana, 2) <= JOBS


@pytest.mark.row("S3")
def test_a_start_over_the_limit_is_refused_with_the_number(limited: Bed) -> None:
    ana = limited.researcher()
    for server in ("", "one", "two"):
        ana.start(server=server)
    prepared("all are submitted", lambda: len(ana.jobs()) == JOBS)
    answer = ana.start(server="three")
    # The hub's own limit of named servers says it first.
    assert answer.status_code in (400, 429)
    assert str(NAMED) in answer.text or str(JOBS) in answer.text
    stays("nothing more is submitted", lambda: len(ana.jobs()) == JOBS, 1)


@pytest.mark.row("A5")
def test_all_doors_at_once_lead_to_no_more_jobs(limited: Bed) -> None:
    """REST, the page and named servers in the same moment, while qsub is slow."""
    limited.queue.knob("qsub", "slow 1")
    ana = limited.researcher()
    session = limited.login(ana.name)
    page = f"{limited.url}/spawn"
    calls: list[Callable[[], object]] = [ana.start] * 3
    calls += [partial(ana.start, server=f"n{n}") for n in range(5)]
    calls += [partial(session.get, f"{page}?opt-profile=tintel", timeout=20)] * 2
    calls += [partial(session.get, f"{page}/{ana.name}/p?opt-profile=tintel", timeout=20)]
    at_once(calls)
    assert most_jobs(ana, 3) <= JOBS


@pytest.mark.row("A5")
def test_renaming_makes_no_room(limited: Bed) -> None:
    """PATCH gives a server another name; its job counts on."""
    limited.queue.knob("qdel", "fail 15 qdel: Unauthorized Request")
    ana = limited.researcher()
    for turn in range(2):
        for server in ("one", "two"):
            ana.start(server=server)
        prepared("submitted", ana.jobs)
        for server in ("one", "two"):
            ana.stop(server)
            ana.api("PATCH", f"/servers/{server}", json={"name": f"{server}-{turn}"})
            ana.api("DELETE", f"/servers/{server}-{turn}", json={"remove": True})
    assert most_jobs(ana, 2) <= JOBS


def at_once(calls: list[Callable[[], object]]) -> None:
    """Run all in the same moment, and wait for their ends."""
    threads = [threading.Thread(target=_quietly, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _quietly(call: Callable[[], object]) -> None:
    with suppress(requests.RequestException):
        call()


# --- A1: whose word counts -------------------------------------------------------------------


@pytest.mark.row("A1")
def test_the_report_of_one_server_moves_no_other(bed: Bed) -> None:
    """A job's token speaks for its own server: neither a sibling nor a neighbour hears it."""
    ana, eva = bed.researcher(), bed.researcher()
    first, second = ana.queue_one(), ana.queue_one(server="second")
    third = eva.queue_one()
    for number in (first, second, third):
        bed.queue.change(number, state="R")
    before = eva.model()["state"], ana.model("second")["state"]
    assert ana.report({"port": 40001}, bed.server_token(first)) in (200, 201)
    assert (eva.model()["state"], ana.model("second")["state"]) == before
    assert ana.report({"port": 40001}, ana.token) in range(400, 500), "no server's token"


# --- A6: what the token of a job may do ------------------------------------------------------


@pytest.mark.row("A6")
def test_the_token_of_a_job_reaches_nothing_of_others(bed: Bed) -> None:
    ana, eva = bed.researcher(), bed.researcher()
    token = bed.server_token(ana.run())
    eva.run()
    for method, path in (
        ("GET", f"/users/{eva.name}"),
        ("GET", "/users"),
        ("POST", f"/users/{eva.name}/servers/x"),
        ("DELETE", f"/users/{eva.name}/server"),
        ("GET", f"/users/{eva.name}/server/progress"),
        ("POST", f"/users/{ana.name}/tokens"),
        ("POST", f"/users/{ana.name}/servers/x"),
        ("GET", "/proxy"),
        ("POST", "/shutdown"),
    ):
        answer = bed.api(method, path, token=token)
        assert answer.status_code in (403, 404), f"{method} {path}: {answer.status_code}"
    assert eva.ready()


@pytest.mark.row("A6")
def test_the_token_of_a_job_ends_with_it(bed: Bed) -> None:
    ana = bed.researcher()
    number = ana.run()
    token = bed.server_token(number)
    assert bed.api("GET", "/user", token=token).ok
    bed.queue.kill(number)
    reached("the end is seen", lambda: not ana.model())
    reached("its token is worth nothing", lambda: _refused(bed, token), 3)


def _refused(bed: Bed, token: str) -> bool:
    return bed.api("GET", "/user", token=token).status_code == 403


# --- A7: others' waiting pages ---------------------------------------------------------------


@pytest.mark.row("A7")
def test_nobody_reads_how_another_s_start_goes(bed: Bed) -> None:
    ana, eva = bed.researcher(), bed.researcher()
    ana.queue_one()
    answer = bed.api("GET", f"/users/{ana.name}/server/progress", token=eva.token)
    assert answer.status_code in (403, 404)
    page = bed.login(eva.name).get(f"{bed.url}/spawn-pending/{ana.name}", timeout=10)
    assert page.status_code in (403, 404)
