# SPDX-License-Identifier: BSD-3-Clause
"""How many passwords may be tried, from where and for whom.

Two rules, so that a flood of wrong passwords costs whoever sends it and nobody else:

- *Failures.* Each pair of name and address has a bucket of failures that drains with time; so has
  each address. While a bucket is full its owner is refused and told how long to wait. There is no
  bucket for a name alone: nobody can lock somebody else out by her name.
- *Turns.* A check of a password holds a thread, for seconds when the password is wrong. An
  address, and a name, hold only a few at a time; the others wait in line, not in the pool. Whoever
  has logged in from her address before has a lane of her own, which no stranger can fill.

Everything is kept in memory, in tables of bounded size, and forgotten with the hub's process.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

MAX_KEY_LENGTH = 100
"""Characters of a name that tell two names apart."""


@dataclass(frozen=True)
class Limits:
    """The figures; `SystemAuthenticator` has a setting for each that a site may want to change."""

    # Wrong passwords that one name, and one address, may send before it has to wait; the bucket
    # that counts them drains within `window` seconds.
    name_failures: int = 5
    address_failures: int = 50
    window: float = 300.0
    # Checks at a time: of one address, of one name, and in each of the two lanes. A name has more
    # than an address, or one address could take all turns of a name.
    address_checks: int = 2
    name_checks: int = 4
    checks: int = 4
    # Attempts in line for one address, and in each lane; how many seconds one waits there.
    address_waiting: int = 20
    waiting: int = 2000
    patience: float = 15.0
    # Entries in each table.
    remembered: int = 10_000


class TooManyAttemptsError(Exception):
    """This attempt is not made; `wait` says after how many seconds another one may be."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"no attempt within {wait:.0f} s")
        self.wait = wait


class Buckets:
    """Failures by key; each bucket drains within `window` seconds. The oldest are forgotten.

    What is kept for a key is the time at which its bucket will be empty.
    """

    def __init__(self, capacity: int, window: float, size: int, clock: Callable[[], float]) -> None:
        self._drop = window / capacity
        self._window = window
        self._size = size
        self._clock = clock
        self._empty_at: OrderedDict[Hashable, float] = OrderedDict()

    def wait(self, key: Hashable) -> float:
        """Seconds until the bucket takes another failure; 0 while it has room."""
        room_at = self._empty_at.get(key, 0.0) - self._window + self._drop
        return max(0.0, room_at - self._clock())

    def add(self, key: Hashable) -> None:
        """Count a failure."""
        now = self._clock()
        self._empty_at[key] = max(now, self._empty_at.get(key, 0.0)) + self._drop
        self._empty_at.move_to_end(key)
        if len(self._empty_at) > self._size:
            self._empty_at.popitem(last=False)

    def clear(self, key: Hashable) -> None:
        """Forget the failures of a key."""
        self._empty_at.pop(key, None)

    def __len__(self) -> int:
        return len(self._empty_at)


class Turns:
    """At most `each` holders of a key at a time; others wait in line, in the order of arrival."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._lines: dict[Hashable, asyncio.Semaphore] = {}
        self._users: Counter[Hashable] = Counter()

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for a turn and keep it for the length of the block."""
        line = self._lines.setdefault(key, asyncio.Semaphore(self._each))
        self._users[key] += 1
        try:
            async with line:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._lines[key]

    def waiting(self, key: Hashable) -> int:
        """How many wait in the line of a key."""
        return max(0, self._users[key] - self._each)

    def __len__(self) -> int:
        return len(self._lines)


class Attempt:
    """One check of a password that has its turn; say how it ended."""

    def __init__(self, limit: LoginLimit, name: str, address: str) -> None:
        self._limit = limit
        self._key = name, address

    def succeeded(self) -> None:
        """The password was right: this name is known at this address from now on."""
        self._limit.pairs.clear(self._key)
        self._limit.remember(self._key)

    def failed(self) -> None:
        """The password was wrong."""
        self._limit.pairs.add(self._key)
        if not self._limit.knows(self._key):
            self._limit.addresses.add(self._key[1])


class LoginLimit:
    """Decides which attempts to log in are made, and when. For one event loop."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self.pairs = Buckets(limits.name_failures, limits.window, limits.remembered, clock)
        self.addresses = Buckets(limits.address_failures, limits.window, limits.remembered, clock)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        # In a lane of its own, a key is a name and an address.
        self._by_origin = Turns(limits.address_checks)
        self._by_name = Turns(limits.name_checks)
        self._lanes = Turns(limits.checks)
        self._inside: Counter[bool] = Counter()

    def knows(self, key: tuple[str, str]) -> bool:
        """Whether this name has logged in from this address."""
        return key in self._known

    def remember(self, key: tuple[str, str]) -> None:
        """Keep a name and address that logged in; the one used longest ago is forgotten."""
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > self._limits.remembered:
            self._known.popitem(last=False)

    @asynccontextmanager
    async def turn(self, name: str, address: str) -> AsyncIterator[Attempt]:
        """Wait until this attempt may be made. Raises TooManyAttemptsError."""
        key = name.strip().lower()[:MAX_KEY_LENGTH], address
        self._refuse_after_failures(key)
        known = self.knows(key)
        origin = key if known else address
        if (
            self._inside[known] >= self._limits.waiting
            or self._by_origin.waiting(origin) >= self._limits.address_waiting
        ):
            raise TooManyAttemptsError(self._limits.patience)
        self._inside[known] += 1
        try:
            async with AsyncExitStack() as turns:
                try:
                    async with asyncio.timeout(self._limits.patience):
                        await turns.enter_async_context(self._by_origin.hold(origin))
                        await turns.enter_async_context(self._by_name.hold((known, key[0])))
                        await turns.enter_async_context(self._lanes.hold(known))
                except TimeoutError as error:
                    raise TooManyAttemptsError(self._limits.patience) from error
                # Those before it in the line may have failed meanwhile.
                self._refuse_after_failures(key)
                yield Attempt(self, *key)
        finally:
            self._inside[known] -= 1

    def _refuse_after_failures(self, key: tuple[str, str]) -> None:
        wait = self.pairs.wait(key)
        if not self.knows(key):
            wait = max(wait, self.addresses.wait(key[1]))
        if wait:
            raise TooManyAttemptsError(wait)
