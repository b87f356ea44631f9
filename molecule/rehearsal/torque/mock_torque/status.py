# SPDX-License-Identifier: BSD-3-Clause
"""Attributes of jobs, queues, nodes and the server in TORQUE's order, as the commands show them.

An attribute is (name, resource or None, value): ``("Resource_List", "mem", "100mb")``.
"""

from __future__ import annotations

import re
import time

from mock_torque import resources
from mock_torque.job import Job
from mock_torque.state import OLD_VERSION, Node, Queue, State

Attribute = tuple[str, str | None, str]
MOM_MANAGER_PORT = 15003
STATES = {
    "T": "Transit", "Q": "Queued", "H": "Held", "W": "Waiting",
    "R": "Running", "E": "Exiting", "C": "Complete",
}  # fmt: skip


def job_attributes(state: State, job: Job, *, owner: bool, manager: bool) -> list[Attribute]:
    """All attributes that the asker may see: Variable_List only owner and manager do."""
    old = state.version == OLD_VERSION
    rows: list[tuple[str, str | int | None]] = [
        ("job_state", job.state),
        ("queue", job.queue),
        ("server", job.server),
        ("Account_Name", job.account),
        ("Checkpoint", "u"),
        ("ctime", int(job.ctime)),
        ("Error_Path", job.error_path),
        ("exec_host", exec_host(job, old=old)),
        ("exec_port", exec_port(job) if old else None),
        ("Execution_Time", job.execution_time),
        ("Hold_Types", "u" if job.state == "H" else "n"),
        ("Join_Path", job.join),
        ("Keep_Files", job.keep),
        ("Mail_Points", job.mail_points),
        ("Mail_Users", job.mail_users),
        ("mtime", int(job.mtime)),
        ("Output_Path", job.output_path),
        ("Priority", job.priority),
        ("qtime", int(job.ctime)),
        ("Rerunable", str(job.rerunable)),
        ("Resource_List", None),
        ("session_id", job.session_id),
        ("Shell_Path_List", job.shell),
        ("substate", job.substate if manager else None),
        ("Variable_List", job.variables if owner or manager else None),
        ("euser", job.user),
        ("egroup", job.group),
        ("hashname", job.id if manager else None),
        ("queue_rank", job.queue_rank if manager else None),
        ("queue_type", "E"),
        ("sched_hint", job.sched_hint),
        ("comment", job.comment),
        ("etime", _whole(job.etime)),
        ("exit_status", job.exit_status),
        ("submit_args", job.submit_args or None),
        ("umask", job.umask),
        ("start_time", _whole(job.start_time)),
        ("Walltime", None),
        ("start_count", job.start_count or None),
        ("fault_tolerant", "False"),
        ("comp_time", _whole(job.comp_time)),
        ("job_radix", "0"),
        ("total_runtime", None if job.total_runtime is None else f"{job.total_runtime:.6f}"),
        ("submit_host", job.submit_host),
        ("init_work_dir", None if old else job.init_work_dir),
        ("request_version", None if old else "1"),
    ]
    found: list[Attribute] = [("Job_Name", None, job.name), ("Job_Owner", None, job.owner)]
    found += _used(job, old=old)
    for name, value in rows:
        if name == "Resource_List":
            found += _resource_list(job, manager=manager)
        elif name == "Walltime":
            found += _remaining(job, old=old)
        elif value is not None:
            found.append((name, None, str(value)))
    return found


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def exec_host(job: Job, *, old: bool = False) -> str | None:
    """``node01/0-1``; 4.2.10 writes ``node01/0+node01/1``."""
    if not job.allocation:
        return None
    if old:
        return "+".join(f"{node}/{slot}" for node, slots in job.allocation for slot in slots)
    return "+".join(f"{node}/{ranges(slots)}" for node, slots in job.allocation)


def exec_port(job: Job) -> str | None:
    """The manager port of the mom, once for each slot."""
    return "+".join([str(MOM_MANAGER_PORT)] * job.cores) or None


def ranges(slots: list[int]) -> str:
    """``0-2,5`` for [0, 1, 2, 5]."""
    parts: list[list[int]] = []
    for slot in sorted(slots):
        if parts and slot == parts[-1][-1] + 1:
            parts[-1].append(slot)
        else:
            parts.append([slot])
    return ",".join(f"{part[0]}-{part[-1]}" if part[1:] else str(part[0]) for part in parts)


def _used(job: Job, *, old: bool) -> list[Attribute]:
    """The children come in another order once the job has ended."""
    order = ("cput", "energy_used", "mem", "vmem", "walltime")
    if job.state in {"E", "C"}:
        order = ("cput", "vmem", "walltime", "mem", "energy_used")
    return [
        ("resources_used", name, job.used[name])
        for name in order
        if name in job.used and not (old and name == "energy_used")
    ]


def _resource_list(job: Job, *, manager: bool) -> list[Attribute]:
    found: list[Attribute] = [
        ("Resource_List", name, value) for name, value in job.resources.items()
    ]
    if manager and job.allocation:
        found.append(("Resource_List", "neednodes", job.resources.get("nodes", "1")))
    return found


def _remaining(job: Job, *, old: bool) -> list[Attribute]:
    limit = job.resources.get("walltime")
    if job.state != "R" or old or limit is None or job.start_time is None:
        return []
    left = resources.seconds(limit) - int(time.time() - job.start_time)
    return [("Walltime", "Remaining", str(left))]


def state_count(jobs: list[Job]) -> str:
    """``Transit:0 Queued:1 ...``"""
    letters = [job.state for job in jobs]
    return "".join(f"{word}:{letters.count(letter)} " for letter, word in STATES.items())


def queue_attributes(state: State, queue: Queue) -> list[Attribute]:
    """For qstat -Qf."""
    jobs = [job for job in state.jobs.values() if job.queue == queue.name]
    attributes = dict(queue.attributes)
    tail = {name: attributes.pop(name, "False") for name in ("enabled", "started")}
    head = {
        "queue_type": attributes.pop("queue_type", "Execution"),
        "total_jobs": str(len(jobs)),
        "state_count": state_count(jobs),
    }
    rows = {**head, **attributes, "mtime": str(queue.mtime), **_assigned(jobs), **tail}
    return [_dotted(name, value) for name, value in rows.items()]


def _assigned(jobs: list[Job]) -> dict[str, str]:
    running = [job for job in jobs if job.state in {"R", "E"}]
    if not running:
        return {}
    return {
        "resources_assigned.nodect": str(sum(len(job.allocation) for job in running)),
        "resources_assigned.mem": f"{sum(job.memory for job in running)}b",
        "resources_assigned.ncpus": "0",
        "resources_assigned.vmem": "0b",
    }


def _dotted(name: str, value: str) -> Attribute:
    stem, dot, resource = name.partition(".")
    return (stem, resource if dot else None, value)


def node_attributes(state: State, node: Node) -> list[Attribute]:
    """For pbsnodes."""
    old = state.version == OLD_VERSION
    rows: list[tuple[str, str | None]] = [
        ("state", state.node_state(node)),
        ("power_state", None if old else "Running"),
        ("np", str(node.np)),
        ("properties", ",".join(node.properties) or None),
        ("ntype", "cluster"),
        ("jobs", _node_jobs(state, node, old=old) or None),
        ("status", _offered(node) or None),
        ("note", node.note or None),
        ("mom_service_port", str(node.port)),
        ("mom_manager_port", str(MOM_MANAGER_PORT)),
    ]
    return [(name, None, value) for name, value in rows if value is not None]


def _offered(node: Node) -> str:
    """The mom's status, with the memory and cores that server_priv/nodes offers."""
    if node.memory is None:
        return node.status
    text = re.sub(r"\b(totmem|physmem)=\d+kb", rf"\1={node.memory // 1024}kb", node.status)
    return re.sub(r"\bncpus=\d+", f"ncpus={node.np}", text)


def _node_jobs(state: State, node: Node, *, old: bool) -> str:
    slots: dict[str, list[int]] = {}
    for slot, job in sorted(state.slots_taken(node).items()):
        slots.setdefault(job.id, []).append(slot)
    if old:
        return ", ".join(f"{slot}/{name}" for name, own in slots.items() for slot in own)
    return ",".join(f"{ranges(own)}/{name}" for name, own in slots.items())
