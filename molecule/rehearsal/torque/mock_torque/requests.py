# SPDX-License-Identifier: BSD-3-Clause
"""What the server answers to the commands."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable

from mock_torque import errors, job, manage, status, submit
from mock_torque.errors import PbsError
from mock_torque.home import Home
from mock_torque.job import Job
from mock_torque.running import FrozenMomError, Runner
from mock_torque.state import OLD_VERSION, Node, State
from mock_torque.wire import Message

OLD_RETRY = 3.0  # seconds which a 4.2.10 qsub loses before it reports a refusal
TRYING_AGAIN = "Connection to server timed out. Trying again" * 2
NOT_ALLOWED = "operation not permitted"
PERMISSION = "error in permissions (PERM_OPorMGR)"

Answer = Callable[[Message, Message], Awaitable[Message]]


class Requests:
    """One method for each request type; each takes (identity, request)."""

    def __init__(self, state: State, home: Home, runner: Runner) -> None:
        self.state = state
        self.home = home
        self.runner = runner
        self.shutting_down = False

    async def answer(self, identity: Message, request: Message) -> Message:
        """The reply to one request: its result, or error number and text."""
        answers: dict[str, Answer] = {
            "submit": self.submit,
            "jobs": self.jobs,
            "queues": self.queues,
            "nodes": self.nodes,
            "delete": self.delete,
            "signal": self.signal,
            "release": self.release,
            "manage": self.manage,
            "set_node": self.set_node,
            "version": self.version,
        }
        try:
            reply = await answers[request["type"]](identity, request)
        except FrozenMomError as error:
            reply = {"error": error.code, "message": str(error), "stdout": TRYING_AGAIN}
        except PbsError as error:
            reply = {"error": error.code, "message": str(error)}
        return {**reply, "version": self.state.version}

    def _manages(self, identity: Message, *, operator: bool = False) -> bool:
        user, host = str(identity["user"]), str(identity["host"])
        return submit.is_manager(self.state, user, host, operator=operator)

    async def version(self, _identity: Message, _request: Message) -> Message:
        """Which TORQUE this is (every reply says so)."""
        return {}

    async def submit(self, identity: Message, request: Message) -> Message:
        """qsub."""
        if self.shutting_down:
            raise PbsError(errors.SHUTTING_DOWN)
        number = self.state.take_number()
        try:
            submit.check_form(request)
            new = submit.make_job(self.state, self.home, identity, request, number)
        except PbsError:
            if self.state.version == OLD_VERSION:
                await asyncio.sleep(OLD_RETRY)
                self.state.take_number()
            raise
        if request["script"] or self.state.version == OLD_VERSION:
            self.state.save_job(new)
            self.runner.kick()
        # else: 6.1.3 gives an id to an empty script and makes no job
        return {"id": new.id}

    def _visible(self, identity: Message, item: Job) -> bool:
        return (
            identity["user"] == item.user
            or self.state.flag("query_other_jobs")
            or self._manages(identity, operator=True)
        )

    async def jobs(self, identity: Message, request: Message) -> Message:
        """qstat: {"targets": [id, queue name, or "" for all jobs]} to one result for each."""
        results = [self._one_target(identity, target) for target in request["targets"]]
        return {"results": results}

    def _one_target(self, identity: Message, target: str) -> Message:
        try:
            chosen = self._chosen(identity, target)
        except PbsError as error:
            return {"error": error.code, "message": str(error)}
        manager = self._manages(identity, operator=True)
        return {
            "jobs": [
                {
                    "id": item.id,
                    "attributes": status.job_attributes(
                        self.state, item, owner=identity["user"] == item.user, manager=manager
                    ),
                }
                for item in chosen
            ]
        }

    def _chosen(self, identity: Message, target: str) -> list[Job]:
        jobs = sorted(self.state.jobs.values(), key=lambda item: item.sequence)
        queue = target.partition("@")[0]
        if not queue:
            return [item for item in jobs if self._visible(identity, item)]
        if not queue[0].isdigit():
            if queue not in self.state.queues:
                raise PbsError(errors.UNKNOWN_QUEUE, what=f"destination {target}")
            return [item for item in jobs if item.queue == queue and self._visible(identity, item)]
        item = self.state.jobs.get(target)
        if item is None:
            raise PbsError(errors.UNKNOWN_JOB, what=target)
        if self._visible(identity, item):
            return [item]
        if self.state.version == OLD_VERSION:
            return []
        raise PbsError(errors.UNAUTHORIZED, what=target)

    async def queues(self, _identity: Message, request: Message) -> Message:
        """qstat -Q and -q."""
        names = request["names"] or list(self.state.queues)
        results: list[Message] = []
        for name in names:
            queue = self.state.queues.get(name.partition("@")[0])
            if queue is None:
                error = PbsError(errors.UNKNOWN_QUEUE, what=f"destination {name}")
                results.append({"error": error.code, "message": str(error)})
                continue
            rows = status.queue_attributes(self.state, queue)
            results.append({"name": queue.name, "attributes": rows})
        return {"results": results}

    async def nodes(self, _identity: Message, request: Message) -> Message:
        """pbsnodes."""
        nodes = [self._node(name) for name in request["names"]] or list(self.state.nodes.values())
        return {
            "nodes": [
                {"name": node.name, "attributes": status.node_attributes(self.state, node)}
                for node in nodes
            ]
        }

    def _node(self, name: str) -> Node:
        if name not in self.state.nodes:
            raise PbsError(errors.UNKNOWN_NODE, msg="cannot locate specified node")
        return self.state.nodes[name]

    async def set_node(self, identity: Message, request: Message) -> Message:
        """pbsnodes -o, -c, -N: {"name", "offline"?, "note"?}."""
        if not self._manages(identity, operator=True):
            raise PbsError(errors.UNAUTHORIZED, msg=PERMISSION)
        node = self._node(request["name"])
        node.offline = request.get("offline", node.offline)
        node.note = request.get("note", node.note)
        self.state.save()
        return {}

    def _own_job(self, identity: Message, request: Message) -> Job:
        item = self.state.jobs.get(request["id"])
        if item is None:
            raise PbsError(errors.UNKNOWN_JOB, what=request["id"])
        if identity["user"] != item.user and not self._manages(identity, operator=True):
            raise PbsError(errors.UNAUTHORIZED, msg=NOT_ALLOWED, what=request["id"])
        return item

    async def delete(self, identity: Message, request: Message) -> Message:
        """qdel: {"id", "delay"?, "purge"?}; ``id`` is "all" for all jobs of the caller."""
        if request.get("purge") and not self._manages(identity, operator=True):
            raise PbsError(errors.UNAUTHORIZED, msg=NOT_ALLOWED, what=request["id"])
        if request["id"].lower() == "all":
            return await self._delete_all(identity, request)
        item = self._own_job(identity, request)
        if request.get("purge"):
            self.state.forget(item)
            self.runner.kick()
            return {}
        self._check_state(item)
        await self._delete_one(item, request)
        return {}

    @staticmethod
    def _check_state(item: Job) -> None:
        words = {"C": "COMPLETE", "E": "EXITING"}
        if item.state in words:
            text = f"invalid state for job - {words[item.state]}"
            raise PbsError(errors.BAD_STATE, msg=text, what=item.id)

    async def _delete_one(self, item: Job, request: Message) -> None:
        try:
            await self.runner.delete(item, request.get("delay"))
        except FrozenMomError:
            raise FrozenMomError(errors.NO_MOM, what=item.id) from None
        except PbsError as error:
            raise PbsError(error.code, what=item.id) from None

    async def _delete_all(self, identity: Message, request: Message) -> Message:
        manager = self._manages(identity, operator=True)
        own = [
            item for item in self.state.jobs.values() if manager or item.user == identity["user"]
        ]
        live = [item for item in own if item.state not in {"C", "E"}]
        for item in live:
            await self._delete_one(item, request)
        # Observed: silent, but unsuccessful when only completed jobs were there.
        return {"silent": errors.UNKNOWN_JOB} if own and not live else {}

    async def signal(self, identity: Message, request: Message) -> Message:
        """qsig: {"id", "signal": "KILL", "SIGUSR1", "9" ...}."""
        item = self._own_job(identity, request)
        if item.state != "R":
            raise PbsError(errors.BAD_STATE, msg="job not running", what=item.id)
        await self.runner.signal(item, _signal_number(request["signal"]))
        return {}

    async def release(self, identity: Message, request: Message) -> Message:
        """qrls."""
        item = self._own_job(identity, request)
        if item.state == "H":
            item.set_state("Q", job.QUEUED)
            item.etime = item.mtime
            self.state.save_job(item)
            self.runner.kick()
        return {}

    async def manage(self, identity: Message, request: Message) -> Message:
        """qmgr: {"line": one directive}."""
        directive = manage.parse(request["line"])
        if directive.verb == "print":
            return {"text": manage.show(self.state, directive)}
        if not self._manages(identity, operator=directive.verb == "set"):
            raise PbsError(errors.UNAUTHORIZED, msg=PERMISSION)
        manage.apply(self.state, directive)
        if any(name == "scheduling" for name, _, _ in directive.assignments):
            self.runner.kick()
        return {}


def _signal_number(text: str) -> int:
    if re.fullmatch(r"\d+", text):
        return int(text)
    name = text if text.startswith("SIG") else f"SIG{text}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise PbsError(errors.BAD_VALUE, what=f"signal {text}") from None
