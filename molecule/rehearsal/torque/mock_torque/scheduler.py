# SPDX-License-Identifier: BSD-3-Clause
"""Which job runs where: first come first served; a job that does not fit lets others pass.

A cycle starts after a submission and after the end of a job, not when a node or a queue comes
back; otherwise only every ``scheduler_iteration`` seconds (600 unless set).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mock_torque import resources
from mock_torque.job import Job
from mock_torque.resources import NodeRequest
from mock_torque.state import Node, Queue, State
from mock_torque.submit import could_serve

NO_NODES = "Not Running: Not enough of the right type of nodes are available"
NOT_STARTED = "Not Running: Queue not started."
USER_LIMIT = "Not Running: User has reached queue running job limit."
QUEUE_LIMIT = "Not Running: Queue job limit has been reached."
PROCS = "Not Running - PBS Error: Unknown node-attribute "


@dataclass
class Cycle:
    """What one look at the queues found."""

    placed: list[Job]
    wait: float | None  # seconds until the youngest job may be looked at


def run_cycle(state: State, delay: float) -> Cycle:
    """Give nodes to the jobs that fit; the others get a comment that says why they wait.

    ``delay`` is the age in seconds that a queued job must have. The allocation and the comments
    are set in place; starting the placed jobs is the caller's.
    """
    cycle = Cycle([], None)
    if not state.flag("scheduling", default=True):
        return cycle
    now = time.time()
    for job in sorted(state.jobs.values(), key=lambda item: item.sequence):
        if job.state != "Q":
            continue
        young = (job.etime or now) + delay - now
        if young > 0:
            cycle.wait = min(young, cycle.wait or young)
            continue
        reason = _place(state, job)
        if reason is None:
            cycle.placed.append(job)
            job.set_state("R", job.substate)  # holds its slots from here on
        elif job.comment != reason:
            job.comment = reason
            state.save_job(job)
    return cycle


def _place(state: State, job: Job) -> str | None:
    """Fill in the allocation, or say why not."""
    queue = state.queues.get(job.queue)
    if queue is None or not queue.flag("started"):
        return NOT_STARTED
    reason = _running_limits(state, queue, job)
    if reason:
        return reason
    if int(job.resources.get("procs", "0")) > 0:
        return PROCS
    allocation = _allocate(state, job)
    if allocation is None:
        return NO_NODES
    job.allocation = allocation
    return None


def _running_limits(state: State, queue: Queue, job: Job) -> str | None:
    running = [
        item
        for item in state.jobs.values()
        if item.queue == queue.name and item.state in {"R", "E"}
    ]
    limit = queue.number("max_running")
    if limit is not None and len(running) >= limit:
        return QUEUE_LIMIT
    limit = queue.number("max_user_run")
    if limit is not None and sum(item.user == job.user for item in running) >= limit:
        return USER_LIMIT
    return None


def _allocate(state: State, job: Job) -> list[tuple[str, list[int]]] | None:
    requests = resources.node_requests(job.resources.get("nodes", "1"))
    share = job.memory // sum(request.count for request in requests)
    free = [node for node in state.nodes.values() if state.node_state(node) == "free"]
    allocation = []
    for request in requests:
        for _ in range(request.count):
            node = next((node for node in free if _fits(state, node, request, share)), None)
            if node is None:
                return None
            free.remove(node)
            allocation.append((node.name, _free_slots(state, node)[: request.ppn]))
    return allocation


def _fits(state: State, node: Node, request: NodeRequest, memory: int) -> bool:
    if not could_serve(node, request) or len(_free_slots(state, node)) < request.ppn:
        return False
    return node.memory is None or state.memory_taken(node) + memory <= node.memory


def _free_slots(state: State, node: Node) -> list[int]:
    taken = state.slots_taken(node)
    return [slot for slot in range(node.np) if slot not in taken]
