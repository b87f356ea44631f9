# SPDX-License-Identifier: BSD-3-Clause
"""Failures and turns, with a clock of the test's own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from custom_pbs_spawner.login_limit import Buckets, Limits, LoginLimit, TooManyAttemptsError, Turns

HOME, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def fail(limit: LoginLimit, name: str, address: str, times: int = 1) -> None:
    for _ in range(times):
        async with limit.turn(name, address) as attempt:
            attempt.failed()


async def succeed(limit: LoginLimit, name: str, address: str) -> None:
    async with limit.turn(name, address) as attempt:
        attempt.succeeded()


async def wait_of(limit: LoginLimit, name: str, address: str) -> float:
    """Seconds until the next attempt; 0 when it is made."""
    try:
        async with limit.turn(name, address):
            return 0.0
    except TooManyAttemptsError as error:
        return error.wait


def test_a_bucket_drains_one_by_one(clock: Clock) -> None:
    buckets = Buckets(capacity=3, window=30, size=10, clock=clock)
    for _ in range(3):
        assert buckets.wait("a") == 0
        buckets.add("a")
    assert buckets.wait("a") == 10
    clock.now += 10
    assert buckets.wait("a") == 0
    buckets.add("a")
    assert buckets.wait("a") == 10
    assert buckets.wait("b") == 0


def test_the_oldest_bucket_is_forgotten(clock: Clock) -> None:
    buckets = Buckets(capacity=1, window=30, size=2, clock=clock)
    for key in ("a", "b", "a", "c"):
        buckets.add(key)
    assert len(buckets) == 2
    assert [bool(buckets.wait(key)) for key in "abc"] == [True, False, True]


@pytest.mark.asyncio
async def test_no_more_than_so_many_have_a_turn() -> None:
    turns, inside, most = Turns(2), 0, 0

    async def hold() -> None:
        nonlocal inside, most
        async with turns.hold("a"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(hold() for _ in range(9)))
    assert most == 2
    assert len(turns) == 0


@pytest.mark.asyncio
async def test_failures_stop_a_name_at_its_address_only(clock: Clock) -> None:
    limit = LoginLimit(Limits(name_failures=5, window=300), clock)
    await fail(limit, "ana", HOME, 5)
    assert await wait_of(limit, "ana", HOME) == 60
    assert await wait_of(limit, " ANA ", HOME) == 60
    assert await wait_of(limit, "ana", ELSEWHERE) == 0
    assert await wait_of(limit, "eva", HOME) == 0
    clock.now += 60
    assert await wait_of(limit, "ana", HOME) == 0


@pytest.mark.asyncio
async def test_failures_of_many_names_stop_their_address_only(clock: Clock) -> None:
    limit = LoginLimit(Limits(address_failures=10, window=300), clock)
    await succeed(limit, "ana", HOME)
    for number in range(10):
        await fail(limit, f"guess{number}", HOME)
    assert await wait_of(limit, "eva", HOME) == 30
    assert await wait_of(limit, "ana", HOME) == 0
    assert await wait_of(limit, "eva", ELSEWHERE) == 0


@pytest.mark.asyncio
async def test_a_good_login_takes_her_mistakes_back(clock: Clock) -> None:
    limit = LoginLimit(Limits(name_failures=3), clock)
    await fail(limit, "ana", HOME, 2)
    await succeed(limit, "ana", HOME)
    await fail(limit, "ana", HOME, 2)
    assert await wait_of(limit, "ana", HOME) == 0


@pytest.mark.asyncio
async def test_a_good_login_does_not_take_the_others_mistakes_back(clock: Clock) -> None:
    limit = LoginLimit(Limits(address_failures=2), clock)
    await fail(limit, "guess", HOME)
    await succeed(limit, "mallory", HOME)
    await fail(limit, "guess", HOME)
    assert await wait_of(limit, "eva", HOME) > 0


@pytest.mark.asyncio
async def test_attempts_in_line_are_not_made_after_too_many_failures(clock: Clock) -> None:
    limit = LoginLimit(Limits(name_failures=2, address_checks=1), clock)
    made = 0

    async def attempt() -> None:
        nonlocal made
        async with limit.turn("ana", HOME) as turn:
            made += 1
            await asyncio.sleep(0)
            turn.failed()

    results = await asyncio.gather(*(attempt() for _ in range(8)), return_exceptions=True)
    assert made == 2
    assert sum(isinstance(result, TooManyAttemptsError) for result in results) == 6


@pytest.mark.asyncio
async def test_the_line_of_an_address_is_bounded_and_nobody_elses(clock: Clock) -> None:
    limit = LoginLimit(Limits(address_checks=2, address_waiting=3), clock)
    release = asyncio.Event()

    async def attempt(number: int) -> None:
        async with limit.turn(f"guess{number}", HOME):
            await release.wait()

    flood = [asyncio.create_task(attempt(number)) for number in range(20)]
    await asyncio.sleep(0)
    assert await wait_of(limit, "ana", ELSEWHERE) == 0
    release.set()
    results = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(result is None for result in results) == 5


@pytest.mark.asyncio
async def test_whoever_is_known_does_not_stand_in_the_strangers_line(clock: Clock) -> None:
    limit = LoginLimit(Limits(checks=4, patience=0.05), clock)
    await succeed(limit, "ana", HOME)
    async with AsyncExitStack() as strangers:
        for number in range(4):
            turn = limit.turn("ana", f"198.51.100.{number}")
            await strangers.enter_async_context(turn)
        assert await wait_of(limit, "ana", ELSEWHERE) > 0
        assert await wait_of(limit, "ana", HOME) == 0


@pytest.mark.asyncio
async def test_nothing_is_kept_of_turns_that_ended(clock: Clock) -> None:
    limit = LoginLimit(Limits(patience=0.01, checks=1), clock)
    async with limit.turn("ana", HOME):
        assert await wait_of(limit, "eva", ELSEWHERE) > 0
    lines = limit._by_origin, limit._by_name, limit._lanes
    assert [len(turns) for turns in lines] == [0, 0, 0]
    assert await wait_of(limit, "eva", ELSEWHERE) == 0


@pytest.mark.asyncio
async def test_memory_is_bounded(clock: Clock) -> None:
    limit = LoginLimit(Limits(remembered=50), clock)
    for number in range(200):
        await fail(limit, f"name{number}", f"198.51.100.{number}")
        await succeed(limit, f"name{number}", f"203.0.113.{number}")
    assert (len(limit.pairs), len(limit.addresses), len(limit._known)) == (50, 50, 50)
