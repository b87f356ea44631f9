# SPDX-License-Identifier: BSD-3-Clause
"""The server's dealings with the moms: start a job, signal it, hear that it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine

from mock_torque import errors, job, wire
from mock_torque.errors import PbsError
from mock_torque.job import Job
from mock_torque.state import Node, State
from mock_torque.wire import Message

TCP_TIMEOUT = 300  # seconds, unless the server attribute tcp_timeout is set
FROZEN_AFTER = 10.0  # seconds without an answer after which a node is shown down
REFUSED_PAUSE = 1.0  # seconds for which a job that the mom refuses is shown in R
NODE_CHECK_RATE = 150  # seconds of silence, unless node_check_rate is set
KILL_DELAY = 2  # seconds from SIGTERM to SIGKILL, unless kill_delay is set
EXITING_TIME = 0.1  # seconds in state E
EXITING_TIME_AFTER_RESTART = 7.0  # the same for a job that ended while the server was away
KILLED = 271  # 256 + SIGTERM

log = logging.getLogger(__name__)


class FrozenMomError(PbsError):
    """The mom accepted the connection and then did not answer for tcp_timeout seconds."""


class Runner:
    """Keeps the jobs of one server running; ``kick`` starts a scheduling cycle."""

    def __init__(self, state: State, key: bytes, kick: Callable[[], None]) -> None:
        self.state = state
        self.key = key
        self.kick = kick
        self.started_at = time.time()
        self._clock: dict[str, float] = {}  # job id: monotonic start, lost at a restart
        self._tasks: set[asyncio.Task[None]] = set()

    def background(self, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` beside the server; a crash is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("background work failed", exc_info=task.exception())

    def resume(self) -> None:
        """After a restart: jobs that were being sent are queued again, exiting ones go on."""
        for item in list(self.state.jobs.values()):
            if item.state == "E":
                self.background(self._finish(item, EXITING_TIME_AFTER_RESTART))
            elif item.state == "R" and item.substate == job.SENDING:
                self._requeue(item)
        for node in self.state.nodes.values():
            if node.address:
                self.background(self._greet(node))

    async def _greet(self, node: Node) -> None:
        try:
            await self._call(node, {"type": "report"})
        except PbsError:
            log.warning("node %s does not answer", node.name)

    async def ask(self, node: Node, message: Message) -> Message:
        """A mom's reply; raises PbsError (no mom) at once when the node is known to be down."""
        if node.down:
            raise PbsError(errors.NO_MOM)
        return await self._call(node, message)

    async def _call(self, node: Node, message: Message) -> Message:
        address = node.address or node.name
        peer = wire.Peer(address, node.port, self.key, f"pbs_mom@{node.name}")
        frozen = asyncio.get_running_loop().call_later(FROZEN_AFTER, self.mark_down, node)
        try:
            async with asyncio.timeout(self.state.number("tcp_timeout", TCP_TIMEOUT)):
                return await peer.ask(message)
        except TimeoutError:
            self.mark_down(node)
            raise FrozenMomError(errors.NO_MOM) from None
        except (OSError, asyncio.IncompleteReadError, wire.NotAuthenticError) as error:
            log.warning("mom of %s: %s", node.name, error)
            self.mark_down(node)
            raise PbsError(errors.NO_MOM) from None
        finally:
            frozen.cancel()

    @staticmethod
    def mark_down(node: Node) -> None:
        """The node gets no more jobs until its mom is heard again."""
        if not node.down:
            log.warning("node %s is down", node.name)
        node.down = True

    async def start(self, item: Job) -> None:
        """Send a placed job to its node."""
        now = time.time()
        item.set_state("R", job.SENDING)
        item.start_time = now
        item.start_count += 1
        item.comment = time.strftime("Job started on %a %b %d at %H:%M", time.localtime(now))
        self._clock[item.id] = time.monotonic()
        self.state.save_job(item)
        message = {
            "type": "start",
            "job": item.to_json(),
            "version": self.state.version,
            "exec_hosts": [node for node, slots in item.allocation for _ in slots],
        }
        try:
            reply = await self.ask(self.state.nodes[str(item.node)], message)
        except PbsError:
            self._requeue(item)
            self.kick()
            return
        if "refused" in reply:
            log.warning("%s: mom of %s: %s", item.id, item.node, reply["refused"])
            await asyncio.sleep(REFUSED_PAUSE)
            self._refused(item)
        elif item.substate == job.SENDING:  # its end may have been reported meanwhile
            item.session_id = reply["session"]
            item.substate = job.RUNNING
            self.state.save_job(item)

    def _refused(self, item: Job) -> None:
        """The user is missing on the node: TORQUE tries for ever."""
        if item.delete_requested:
            self.complete(item)
            return
        self._requeue(item)
        asyncio.get_running_loop().call_later(0.2, self.kick)

    def _requeue(self, item: Job) -> None:
        item.set_state("Q", job.QUEUED)
        item.allocation = []
        item.start_time = None
        item.session_id = None
        self.state.save_job(item)

    async def delete(self, item: Job, delay: int | None) -> None:
        """qdel. Returns when SIGTERM is sent; raises PbsError."""
        while item.state == "R" and item.substate == job.SENDING:
            item.delete_requested = True
            await asyncio.sleep(0.05)
        if item.state in {"Q", "H", "W"}:
            self.complete(item)
            return
        if item.state != "R":  # ended while we waited
            return
        item.kill_delay = delay
        self.state.save_job(item)
        try:
            await self._kill(item)
        except FrozenMomError:
            item.delete_requested = True  # killed when the node thaws
            self.state.save_job(item)
            raise

    async def _kill(self, item: Job) -> None:
        delay = item.kill_delay
        if delay is None:
            delay = self.state.number("kill_delay", KILL_DELAY)
        reply = await self.ask(
            self.state.nodes[str(item.node)], {"type": "kill", "id": item.id, "delay": delay}
        )
        if "unknown" in reply and item.state == "R":
            item.exit_status = KILLED
            self.complete(item)

    async def signal(self, item: Job, number: int) -> None:
        """qsig; raises PbsError."""
        await self.ask(
            self.state.nodes[str(item.node)], {"type": "signal", "id": item.id, "signal": number}
        )

    def complete(self, item: Job) -> None:
        """The job is over: C until keep_completed has passed."""
        item.set_state("C", job.COMPLETE)
        item.finished_at = time.time()
        self._clock.pop(item.id, None)
        self.state.save_job(item)
        if self.state.keep_completed == 0:
            self.state.forget(item)
        self.kick()

    async def hear(self, name: str, address: str, message: Message) -> Message:
        """A mom's report on its node, or the end of a job."""
        node = self.state.nodes.get(name)
        if node is None:
            log.warning("%s (%s) is not in server_priv/nodes", name, address)
            return {"error": errors.UNKNOWN_NODE, "message": "not in server_priv/nodes"}
        if message["type"] == "obit":
            self._obit(name, message)
            return {}
        self._report(node, address, message)
        return {}

    def _report(self, node: Node, address: str, message: Message) -> None:
        if node.down:
            log.info("node %s is up", node.name)
        if node.heard == 0:  # the first word since the server's start; a return starts no cycle
            self.kick()
        node.down = False
        node.heard = time.time()
        node.status = message["status"]
        if node.address != address:
            node.address = address
            self.state.save()
        for name, used in message["jobs"].items():
            item = self.state.jobs.get(name)
            if item is None or item.node != node.name or item.state not in {"R", "E"}:
                self.background(self._stray(node, name))
                continue
            if used and item.used != used:
                item.used = used
                self.state.save_job(item)
            if item.delete_requested and item.substate == job.RUNNING:
                item.delete_requested = False
                self.background(self._kill_again(item))

    async def _kill_again(self, item: Job) -> None:
        try:
            await self._kill(item)
        except PbsError:
            log.warning("%s: not killed, its node is gone again", item.id)

    async def _stray(self, node: Node, name: str) -> None:
        """A job that the server gave up is stopped where it still runs (mom_job_sync)."""
        log.warning("%s does not belong on %s", name, node.name)
        try:
            await self.ask(node, {"type": "kill", "id": name, "delay": 0})
        except PbsError:
            log.warning("%s: not killed on %s", name, node.name)

    def _obit(self, node: str, message: Message) -> None:
        item = self.state.jobs.get(message["id"])
        if item is None or item.node != node or item.state != "R":
            return  # said before, or the job was purged
        late = message["ended"] < self.started_at
        item.set_state("E", job.EXITING_AFTER_RESTART if late else job.EXITING)
        item.session_id = message["session"]
        item.exit_status = message["exit_status"]
        item.used = message["used"]
        item.sched_hint = message["hint"]
        self.state.save_job(item)
        self.background(self._finish(item, EXITING_TIME_AFTER_RESTART if late else EXITING_TIME))

    async def _finish(self, item: Job, delay: float) -> None:
        await asyncio.sleep(delay)
        if item.state != "E":  # purged meanwhile
            return
        item.comp_time = time.time()
        # The real server has this wrong for jobs that lived through its restart.
        started = self._clock.get(item.id)
        item.total_runtime = time.time() if started is None else time.monotonic() - started
        self.complete(item)

    def check_nodes(self) -> None:
        """Nodes whose mom was silent for too long are down."""
        limit = time.time() - self.state.number("node_check_rate", NODE_CHECK_RATE)
        for node in self.state.nodes.values():
            if not node.down and node.heard < limit and self.started_at < limit:
                self.mark_down(node)

    def purge_completed(self) -> None:
        """Forget what completed more than keep_completed seconds ago."""
        limit = time.time() - self.state.keep_completed
        for item in list(self.state.jobs.values()):
            if item.state == "C" and (item.finished_at or 0) < limit:
                self.state.forget(item)
