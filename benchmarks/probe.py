# SPDX-License-Identifier: BSD-3-Clause
"""Measures a hub from the inside; the configuration of every hub of a benchmark calls `install`.

It knows JupyterHub and nothing of the spawner: the same numbers for any class set.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import time
from asyncio.base_subprocess import BaseSubprocessTransport
from asyncio.events import Handle
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.proxy import Proxy
from jupyterhub.user import User
from sqlalchemy.engine.default import DefaultDialect
from tornado.web import Application, RequestHandler

from benchmarks.cluster import COMMANDS

BEAT = 0.005  # seconds between two heartbeats of the event loop
LATE = 0.02  # seconds from which on a late heartbeat is kept with its causes
KEPT = 5  # worst stalls between two readings
CAUSES = 5  # of each; one may be a part of another


class RouteBook(Proxy):  # type: ignore[misc]
    """A proxy that only keeps its routes: the same for all, and no process of its own."""

    should_start = False
    routes: dict[str, dict[str, Any]]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.routes = {}

    async def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        self.routes[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec: str) -> None:
        self.routes.pop(routespec, None)

    async def get_all_routes(self) -> dict[str, dict[str, Any]]:
        return dict(self.routes)


class Probe:
    """What is known of this process since it began; stalls since the last reading."""

    def __init__(self) -> None:
        self.started: Counter[str] = Counter()
        self.stalls: list[dict[str, Any]] = []
        self.marks: list[tuple[float, str, str]] = []
        self.adopted: float | None = None
        self._spent: dict[str, float] = {}
        self._often: Counter[str] = Counter()
        self._collection = 0.0

    # --- the event loop

    async def beat(self) -> None:
        """Notice how late the event loop comes back, and whose doing it was."""
        while True:
            self._spent.clear()
            self._often.clear()
            begun, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(BEAT)
            late = time.perf_counter() - begun - BEAT
            if late > LATE:
                self._keep(late, time.thread_time() - cpu)

    def _keep(self, late: float, cpu: float) -> None:
        worst = sorted(self._spent.items(), key=lambda item: -item[1])[:CAUSES]
        causes = {f"{self._often[name]} x {name}": round(1000 * spent, 1) for name, spent in worst}
        self.stalls.append(
            {"ms": round(1000 * late, 1), "cpu_ms": round(1000 * cpu, 1), "causes": causes}
        )
        self.stalls.sort(key=lambda stall: -float(stall["ms"]))
        del self.stalls[KEPT:]

    def time_callbacks(self) -> None:
        """Account the time of each callback of the loop to the coroutine behind it."""
        run = Handle._run

        def timed(handle: Any) -> None:
            name = _name(handle._callback)
            begun = time.perf_counter()
            run(handle)
            self._account(name, time.perf_counter() - begun)

        _replace(Handle, "_run", timed)

    def time_collections(self, phase: str, info: dict[str, int]) -> None:
        """Account the time of the garbage collector, whoever it interrupts."""
        if phase == "start":
            self._collection = time.perf_counter()
        else:
            name = f"garbage collection {info['generation']}"
            self._account(name, time.perf_counter() - self._collection)

    def time_waits(self) -> None:
        """Account commits, and beginnings of processes in any thread: they hold up the loop."""
        self._time(DefaultDialect, "do_commit", "commit")
        self._time(subprocess, "_fork_exec", "beginning of a process")

    def _time(self, owner: Any, function: str, name: str) -> None:
        method = getattr(owner, function)

        @wraps(method)
        def timed(*args: Any) -> Any:
            begun = time.perf_counter()
            try:
                return method(*args)
            finally:
                self._account(name, time.perf_counter() - begun)

        _replace(owner, function, timed)

    def _account(self, name: str, spent: float) -> None:
        self._spent[name] = self._spent.get(name, 0.0) + spent
        self._often[name] += 1

    # --- processes

    def count_processes(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook: every process that this one starts, by the name of its program."""
        if event == "subprocess.Popen":
            self.started[os.fsdecode(arguments[0] or arguments[1][0]).rpartition("/")[2]] += 1

    # --- JupyterHub

    def watch_adoption(self) -> None:
        """Measure from the begin of init_spawners until every server in the database is ready."""
        app = JupyterHub.instance()
        init_spawners = app.init_spawners

        async def timed() -> Any:
            begun = time.perf_counter()
            expected = app.db.query(orm.Spawner).filter(orm.Spawner.server != None).count()  # noqa: E711
            _work.append(asyncio.ensure_future(self._until_adopted(app, expected, begun)))
            return await init_spawners()

        app.init_spawners = timed

    async def _until_adopted(self, app: Any, expected: int, begun: float) -> None:
        while _ready(app) < expected:  # noqa: ASYNC110 - nothing tells when it is
            await asyncio.sleep(0.02)
        self.adopted = time.perf_counter() - begun

    def mark_stages(self) -> None:
        """Note when JupyterHub's own steps of a start begin and end, and the report of a port."""
        for owner, method in ((User, "spawn"), (User, "_wait_up"), (Proxy, "add_user")):
            _replace(owner, method, self._marked(getattr(owner, method), method.strip("_")))
        # Commands may be asyncio's, or be waited for in threads.
        self._mark_end(BaseSubprocessTransport, "_process_exited", lambda it: it._proc.args)
        self._mark_end(subprocess.Popen, "_handle_exitstatus", lambda it: it.args)
        log_request = Application.log_request

        def logged(application: Application, handler: RequestHandler) -> None:
            if str(handler.request.path).endswith("/batchspawner"):
                self.marks.append((time.time(), "report", "end"))
            log_request(application, handler)

        _replace(Application, "log_request", logged)

    def _mark_end(self, owner: type, name: str, arguments: Callable[[Any], Any]) -> None:
        """Note when a command has ended, seen by a method that is called then."""
        method = getattr(owner, name)

        @wraps(method)
        def ended(process: Any, *args: Any, **kwargs: Any) -> Any:
            self.marks.append((time.time(), _command(arguments(process)), "end"))
            return method(process, *args, **kwargs)

        _replace(owner, name, ended)

    def _marked(self, method: Any, name: str) -> Any:
        @wraps(method)
        async def marked(*args: Any, **kwargs: Any) -> Any:
            self.marks.append((time.time(), name, "begin"))
            try:
                return await method(*args, **kwargs)
            finally:
                self.marks.append((time.time(), name, "end"))

        return marked

    # --- readings

    def reading(self) -> dict[str, Any]:
        own, children = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        reading = {
            "time": time.time(),
            "cpu": own.ru_utime + own.ru_stime,
            "child_cpu": children.ru_utime + children.ru_stime,
            "rss_mib": pages * resource.getpagesize() / 2**20,
            "started": dict(self.started),
            "stalls": self.stalls,
            "marks": self.marks,
            "adopted": self.adopted,
        }
        self.stalls, self.marks = [], []
        return reading

    async def answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one reading."""
        writer.write(json.dumps(self.reading()).encode())
        await writer.drain()
        writer.close()


def _replace(owner: Any, name: str, method: Any) -> None:
    setattr(owner, name, method)


def _name(callback: Any) -> str:
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return str(getattr(task.get_coro(), "__qualname__", task.get_name()))
    return str(getattr(callback, "__qualname__", type(callback).__name__))


def _command(arguments: Any) -> str:
    """The program that a command is about: `sudo -u somebody /path/qsub` is `qsub`."""
    words = arguments.split() if isinstance(arguments, str) else map(os.fsdecode, arguments)
    names = [word.rpartition("/")[2] for word in words]
    return next((name for name in names if name in COMMANDS), names[0])


def _ready(app: Any) -> int:
    users = dict.values(app.users)
    return sum(spawner.ready for user in users for spawner in dict.values(user.spawners))


_work: list[Any] = []  # the event loop keeps no strong reference


def install(socket: str) -> None:
    """Start measuring this hub; readings are had at the unix socket `socket`."""
    probe = Probe()
    probe.time_callbacks()
    probe.time_waits()
    probe.watch_adoption()
    probe.mark_stages()
    gc.callbacks.append(probe.time_collections)
    sys.addaudithook(probe.count_processes)
    _work.append(asyncio.ensure_future(probe.beat()))
    _work.append(asyncio.ensure_future(asyncio.start_unix_server(probe.answer, socket)))
