# SPDX-License-Identifier: BSD-3-Clause
"""pbs_server: takes requests, schedules, keeps its state on disk."""

from __future__ import annotations

import asyncio
import logging
import time

from mock_torque import daemon, manage, submit, wire
from mock_torque.errors import PbsError
from mock_torque.home import Home
from mock_torque.knobs import Knobs
from mock_torque.requests import Requests
from mock_torque.running import Runner
from mock_torque.scheduler import run_cycle
from mock_torque.state import State
from mock_torque.wire import Message

SCHEDULER_ITERATION = 600  # seconds, unless scheduler_iteration is set
HANG_POLL = 0.1  # seconds
SHUTDOWN_TIME = 1.0  # seconds in which queries are answered and submissions refused
TICK = 0.5  # seconds between looks at completed jobs, waiting jobs and silent nodes

log = logging.getLogger(__name__)


class Server:
    """One queue server."""

    def __init__(self, home: Home) -> None:
        self.home = home
        name, self.port = home.server()
        self.key = home.key()
        self.state = State(home, name)
        self.knobs = Knobs(home)
        self._kicked = asyncio.Event()
        self.runner = Runner(self.state, self.key, self._kicked.set)
        self.requests = Requests(self.state, home, self.runner)

    def load(self) -> None:
        """Read the files; at the very first start run setup.qmgr. Raises SystemExit."""
        self.state.load()
        if self.state.first_start:
            self._first_setup()
        self.state.save()

    def _first_setup(self) -> None:
        path = self.home.server_priv / "setup.qmgr"
        lines = path.read_text().splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                manage.apply(self.state, manage.parse(line))
            except PbsError as error:
                raise SystemExit(f"{path}, line {number}: {line}: {error}") from error

    async def handle(self, message: Message, peer: str) -> Message:
        """A proven message: from a mom, or from a command through trqauthd."""
        while self.knobs.hangs:  # noqa: ASYNC110 - the knob is a file
            await asyncio.sleep(HANG_POLL)
        if "mom" in message:
            return await self.runner.hear(message["mom"], peer, message)
        return await self._command(message["identity"], message["request"])

    async def _command(self, identity: Message, request: Message) -> Message:
        """A command's request, with what the knobs do to that command."""
        if request["type"] == "version":
            return await self.requests.answer(identity, request)
        command = request.get("command", "")
        slow = self.knobs.use(f"slow.{command}")
        if slow is not None:
            await asyncio.sleep(float(slow))
        fail = self.knobs.use(f"fail.{command}")
        if fail is not None:
            exit_status, _, text = fail.partition(" ")
            return {"knob": {"exit": int(exit_status), "stderr": text}}
        reply = await self.requests.answer(identity, request)
        output = self.knobs.use(f"output.{command}")
        if output is not None:
            reply["knob"] = {"exit": 0, "stdout": output}
        return reply

    async def schedule(self) -> None:
        """Run scheduling cycles for ever."""
        while True:
            cycle = run_cycle(self.state, self.knobs.schedule_delay)
            for job in cycle.placed:
                self.runner.background(self.runner.start(job))
            pause = self.state.number("scheduler_iteration", SCHEDULER_ITERATION)
            try:
                async with asyncio.timeout(pause if cycle.wait is None else cycle.wait):
                    await self._kicked.wait()
            except TimeoutError:
                continue
            self._kicked.clear()

    async def tick(self) -> None:
        """Do what time brings."""
        while True:
            await asyncio.sleep(TICK)
            self.runner.purge_completed()
            self.runner.check_nodes()
            if submit.release_waiting(self.state, time.time()):
                self._kicked.set()

    async def run(self) -> None:
        """Serve until terminated."""
        service = f"pbs_server@{self.state.name}"
        listener = await wire.serve(self.port, self.key, service, self.handle)
        self.runner.resume()
        log.info("pbs_server %s, %d jobs", self.state.name, len(self.state.jobs))
        daemon.ready()
        async with listener:
            work = [asyncio.create_task(self.schedule()), asyncio.create_task(self.tick())]
            stop = asyncio.create_task(daemon.until_terminated())
            done, _ = await asyncio.wait([*work, stop], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a broken scheduler ends the server, loudly
            self.requests.shutting_down = True
            await asyncio.sleep(SHUTDOWN_TIME)
            for task in work:
                task.cancel()


async def _run(home: Home) -> None:
    server = Server(home)
    server.load()
    await server.run()


def main() -> int:
    """Entry point of sbin/pbs_server."""
    options = daemon.parser("pbs_server").parse_args()
    daemon.start_logging()
    asyncio.run(_run(Home(options.home)))
    return 0
