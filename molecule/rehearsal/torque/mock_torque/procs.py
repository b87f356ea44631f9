# SPDX-License-Identifier: BSD-3-Clause
"""Processes of a session, read from /proc, and signals to them.

As in TORQUE without cgroups a job is the session of its login shell: a process that made a
session of its own (setsid) no longer belongs to it. Only processes of the job's owner count: after
a reboot the number of the session may be somebody else's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
KILL_TRIES = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Process:
    """What /proc/PID/stat tells."""

    pid: int
    uid: int
    state: str
    session: int
    cpu_ticks: int
    start_ticks: int
    vmem_kb: int
    mem_kb: int


def process(pid: int) -> Process | None:
    """The process, None when there is none."""
    try:
        folder = Path(f"/proc/{pid}")
        text = (folder / "stat").read_text()
        uid = folder.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return Process(
        pid=pid,
        uid=uid,
        state=fields[0],
        session=int(fields[3]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_ticks=int(fields[19]),
        vmem_kb=int(fields[20]) // 1024,
        mem_kb=int(fields[21]) * PAGE_KB,
    )


def sessions() -> dict[tuple[int, int], list[Process]]:
    """The living processes of this machine, by session and user; one look at /proc for all."""
    found: dict[tuple[int, int], list[Process]] = {}
    for entry in Path("/proc").iterdir():
        item = process(int(entry.name)) if entry.name.isdigit() else None
        if item and item.state != "Z":
            found.setdefault((item.session, item.uid), []).append(item)
    return found


def signal_session(sid: int, uid: int, number: int) -> int:
    """Signal every process of the session; how many there were."""
    members = sessions().get((sid, uid), [])
    for item in members:
        try:
            os.kill(item.pid, number)
        except ProcessLookupError:
            continue  # ended meanwhile
    return len(members)


async def gone(pid: int) -> None:
    """Return when the process has ended, be it a child or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def kill_session(sid: int, uid: int) -> None:
    """SIGKILL until nothing is left that could still fork."""
    for _ in range(KILL_TRIES):
        if not signal_session(sid, uid, signal.SIGKILL):
            return
        await asyncio.sleep(0.01)
    log.error("processes of session %d do not die", sid)
