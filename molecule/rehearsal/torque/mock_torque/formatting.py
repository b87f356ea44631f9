# SPDX-License-Identifier: BSD-3-Clause
"""Job, queue and node attributes as text: XML, full listing, tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mock_torque import resources

Attribute = Sequence[Any]  # name, resource or None, value
Item = dict[str, Any]  # {"id": ..., "attributes": [...]}

EPOCH_TIMES = {"ctime", "mtime", "qtime", "etime", "start_time", "comp_time", "Execution_Time"}
LINE = 78
ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
JOB_NAME_WIDTH = 16
JOB_HEAD = (
    "Job ID                    Name             User            Time Use S Queue\n"
    "------------------------- ---------------- --------------- -------- - -----\n"
)
ALTERNATE_HEAD = (
    "                                                                                  "
    "Req'd       Req'd       Elap\n"
    "Job ID                  Username    Queue    Jobname          SessID  NDS   TSK   "
    "Memory      Time    S   Time\n"
    "----------------------- ----------- -------- ---------------- ------ ----- ------ "
    "--------- --------- - ---------\n"
)
QUEUE_HEAD = (
    "Queue              Max    Tot   Ena   Str   Que   Run   Hld   Wat   Trn   Ext T   Cpt\n"
    "----------------   ---   ----    --    --   ---   ---   ---   ---   ---   --- -   ---\n"
)
LIMIT_HEAD = (
    "Queue            Memory CPU Time Walltime Node  Run Que Lm  State\n"
    "---------------- ------ -------- -------- ----  --- --- --  -----\n"
)


def xml_escape(text: str) -> str:
    """As TORQUE does: the five entities, control characters as they are."""
    return "".join(ESCAPES.get(char, char) for char in text)


def _element(name: str, text: str) -> str:
    return f"<{name}>{text}</{name}>"


def xml_attributes(attributes: Sequence[Attribute]) -> str:
    """Attributes with a resource become children of one element."""
    parts: list[str] = []
    children: list[str] = []
    open_name: str | None = None
    for name, resource, value in attributes:
        if open_name is not None and (resource is None or name != open_name):
            parts.append(_element(open_name, "".join(children)))
            children, open_name = [], None
        if resource is None:
            parts.append(_element(name, xml_escape(value)))
        else:
            open_name = name
            children.append(_element(resource, xml_escape(value)))
    if open_name is not None:
        parts.append(_element(open_name, "".join(children)))
    return "".join(parts)


def jobs_xml(jobs: list[Item], *, old: bool) -> str:
    """One document; 4.2.10 has no declaration and prints nothing for no jobs."""
    rows = "".join(
        _element("Job", _element("Job_Id", job["id"]) + xml_attributes(job["attributes"]))
        for job in jobs
    )
    if old:
        return f"<Data>{rows}</Data>\n" if jobs else ""
    return f'<?xml version="1.0"?>\n<Data>{rows}</Data>\n'


def nodes_xml(nodes: list[Item]) -> str:
    """pbsnodes -x."""
    rows = "".join(
        _element("Node", _element("name", node["name"]) + xml_attributes(node["attributes"]))
        for node in nodes
    )
    return f"<Data>{rows}</Data>\n"


def full(title: str, attributes: Sequence[Attribute], *, one_line: bool = False) -> str:
    """``qstat -f`` of one object, with the blank line after it."""
    lines = [f"{title}\n"]
    for name, resource, value in attributes:
        shown = time.ctime(int(value)) if name in EPOCH_TIMES and title[0] == "J" else value
        label = f"{name}.{resource}" if resource else name
        lines.append(f"    {label} = ")
        lines.append(shown if one_line else folded(shown, len(label) + 7))
        lines.append("\n")
    return "".join(lines) + "\n"


def folded(text: str, column: int) -> str:
    """Break before an item that would pass column 78, and inside one that is longer."""
    out: list[str] = []
    for number, item in enumerate(text.split(",")):
        if number:
            out.append(",")
            column += 1
        if column + len(item) < LINE:
            out.append(item)
            column += len(item)
            continue
        if number:
            out.append("\n\t")
            column = 9
        for char in item:
            if column >= LINE:
                out.append("\n\t")
                column = 8
            out.append(char)
            column += 1
    return "".join(out)


def values(attributes: Sequence[Attribute]) -> dict[str, str]:
    """``{"job_state": "Q", "Resource_List.mem": "100mb", ...}``."""
    return {
        f"{name}.{resource}" if resource else name: value for name, resource, value in attributes
    }


def job_row(job: Item) -> str:
    """A line of the plain table; a long name loses its beginning."""
    row = values(job["attributes"])
    name = row["Job_Name"]
    if len(name) > JOB_NAME_WIDTH:
        name = "..." + name[3 - JOB_NAME_WIDTH :]
    user = row["Job_Owner"].partition("@")[0]
    used = row.get("resources_used.cput", "0")
    return (
        f"{job['id']:<26} {name:<16} {user:<15.15} {used:>8} {row['job_state']} "
        f"{row['queue']:<15.15}\n"
    )


def alternate_row(job: Item, *, hosts: bool) -> str:
    """A line of ``qstat -a``, with the node for ``-n1``."""
    row = values(job["attributes"])
    nodes = row.get("Resource_List.nodes", "1")
    tasks = sum(request.count * request.ppn for request in resources.node_requests(nodes))
    elapsed = "-- "
    if row["job_state"] == "R" and "start_time" in row:
        elapsed = resources.time_text(int(time.time()) - int(row["start_time"]))
    line = (
        f"{job['id']:<23.23} {row['Job_Owner'].partition('@')[0]:<11.11} {row['queue']:<8.8} "
        f"{row['Job_Name']:<16.16} {row.get('session_id', '-- '):>6} "
        f"{row.get('Resource_List.nodect', '--'):>5} {tasks:>6} "
        f"{row.get('Resource_List.mem', '-- '):>9} {row.get('Resource_List.walltime', '-- '):>9} "
        f"{row['job_state']} {elapsed:>9}"
    )
    if hosts:
        line += f"   {row.get('exec_host', ' -- ')}"
    return line + "\n"


def _counts(row: dict[str, str]) -> dict[str, int]:
    pairs = (item.split(":") for item in row["state_count"].split())
    return {name: int(count) for name, count in pairs}


def queue_row(queue: Item) -> str:
    """A line of ``qstat -Q``."""
    row = values(queue["attributes"])
    count = _counts(row)
    enabled, started = ("yes" if row[key] == "True" else "no" for key in ("enabled", "started"))
    return (
        f"{queue['name']:<16.16} {row.get('max_running', '0'):>5} {row['total_jobs']:>6} "
        f"{enabled:>5} {started:>5} {count['Queued']:>5} {count['Running']:>5} "
        f"{count['Held']:>5} {count['Waiting']:>5} {count['Transit']:>5} {count['Exiting']:>5} "
        f"E {count['Complete']:>5}\n"
    )


def limits_table(server: str, queues: list[Item]) -> str:
    """``qstat -q``."""
    running = queued = 0
    rows = []
    for queue in queues:
        row = values(queue["attributes"])
        count = _counts(row)
        running += count["Running"]
        queued += count["Queued"]
        enabled = "E" if row["enabled"] == "True" else "D"
        started = "R" if row["started"] == "True" else "S"
        rows.append(
            f"{queue['name']:<16.16} {row.get('resources_max.mem', '--  '):>6.6} "
            f"{row.get('resources_max.cput', '--   '):>8.8} "
            f"{row.get('resources_max.walltime', '--   '):>8.8} "
            f"{row.get('resources_max.nodect', '--'):>4.4}  {count['Running']:>3} "
            f"{count['Queued']:>3} {row.get('max_running', '--'):<2}   {enabled} {started}\n"
        )
    total = f"{'':47}----- -----\n{running:>52} {queued:>5}\n"
    return f"\nserver: {server}\n\n{LIMIT_HEAD}{''.join(rows)}{total}"


def node_text(node: Item) -> str:
    """``pbsnodes -a`` of one node."""
    rows = "".join(f"     {name} = {value}\n" for name, _, value in node["attributes"])
    return f"{node['name']}\n{rows}\n"
