# SPDX-License-Identifier: BSD-3-Clause
"""Turns of the event loop: one long piece of work in each, whatever arrives at once.

JupyterHub works for some milliseconds at the begin of each request, and for some ten at each of
the parts of a start, without letting go. The event loop runs everything that is due before it
looks around again: with a hundred starts in one moment nobody else would be served for seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from tornado.web import RequestHandler


class Stage(IntEnum):
    """How far a start has come. The furthest is first: its job waits in the queue meanwhile."""

    READY = 0
    SUBMIT = 1
    HOOKS = 2
    TOKEN = 3
    REQUEST = 4


class Turnstile:
    """Who waits for a turn, in the order in which they get one."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Stage, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._giving: asyncio.Task[None] | None = None

    async def take(self, stage: Stage) -> None:
        """Wait for a turn of the event loop that nobody else has taken."""
        mine = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (stage, next(self._number), mine))
        if self._giving is None:
            self._giving = asyncio.ensure_future(self._give())
        await mine

    async def _give(self) -> None:
        while self._waiting:
            *_, first = heapq.heappop(self._waiting)
            if not first.done():
                first.set_result(None)
                # One turn for the work, one for what it was holding up.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        self._giving = None


def shared(settings: dict[str, Any]) -> Turnstile:
    """The turnstile of this hub, in its settings."""
    turnstile: Turnstile = settings.setdefault("ganymede_turnstile", Turnstile())
    return turnstile


class _InTurn(RequestHandler):
    async def prepare(self) -> None:
        await shared(self.settings).take(Stage.REQUEST)
        await super().prepare()  # type: ignore[misc]


def in_turn(rules: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Tornado's rules with each of JupyterHub's handlers waiting for its turn."""
    return [(path, _waiting(handler), *rest) for path, handler, *rest in rules]


def _waiting(handler: type[RequestHandler]) -> type[RequestHandler]:
    if not issubclass(handler, BaseHandler):
        return handler
    # The metrics name the class.
    return type(handler.__name__, (_InTurn, handler), {"__module__": handler.__module__})
