# SPDX-License-Identifier: BSD-3-Clause
"""One job on its node: its login shell, its signals, its end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mock_torque import delivery, jobenv, launch, procs, resources
from mock_torque.home import Account, Home
from mock_torque.job import Job

NO_HOME = -2
OVER_WALLTIME = -11
SIGNALLED = 256  # added to the signal that ended the login shell
OVERDUE_DELAY = 2.0  # seconds from SIGTERM to SIGKILL after the walltime
AT_ONCE = 0.05  # seconds in which a login shell that does not ignore SIGTERM dies of it
SPOOL_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND


@dataclass
class JobProcess:
    """The job, the session of its login shell, and what was seen of it.

    ``child`` is None for a job that a restarted mom found again: it is not the parent.
    """

    job: Job
    account: Account
    version: str  # of the server: 4.2.10 words the hint in another way
    session: int = 0
    start_ticks: int = 0
    started: float = 0.0
    forced_status: int | None = None
    exit_status: int | None = None
    ended: float | None = None
    hint: str | None = None
    delivered: bool = False
    used: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    def to_json(self) -> dict[str, Any]:
        """For mom_priv/jobs/ID.JB."""
        names = ("version", "session", "start_ticks", "started", "forced_status", "exit_status",
                 "ended", "hint", "delivered", "used")  # fmt: skip
        return {"job": self.job.to_json(), **{name: getattr(self, name) for name in names}}

    def alive(self) -> bool:
        """Whether the login shell lives (and is not another process with its number)."""
        found = procs.process(self.session)
        return found is not None and found.state != "Z" and found.start_ticks == self.start_ticks

    def measure(self, sessions: Mapping[tuple[int, int], list[procs.Process]]) -> None:
        """Set ``used`` from the session's processes."""
        members = sessions.get((self.session, self.account.uid), [])
        ticks = sum(item.cpu_ticks for item in members)
        self.used = {
            "cput": resources.time_text(ticks // procs.TICKS),
            "energy_used": "0",
            "mem": f"{sum(item.mem_kb for item in members)}kb",
            "vmem": f"{sum(item.vmem_kb for item in members)}kb",
            "walltime": self.walltime(),
        }

    def elapsed(self) -> int:
        """Seconds of walltime."""
        return int((self.ended or time.time()) - self.started)

    def walltime(self) -> str:
        """``hh:mm:ss`` so far."""
        return resources.time_text(self.elapsed())

    def over_walltime(self) -> int | None:
        """The limit when it is exceeded."""
        limit = self.job.resources.get("walltime")
        if limit is None or self.elapsed() <= resources.seconds(limit):
            return None
        return resources.seconds(limit)


def start(home: Home, process: JobProcess, exec_hosts: list[str]) -> None:
    """Start the login shell; a job without a home gets its exit status at once."""
    job, account = process.job, process.account
    process.started = time.time()
    script = home.mom_priv / "jobs" / f"{job.id}.SC"
    _write_script(script, job, account)
    node_file = home.path / "aux" / job.id
    node_file.write_text("".join(f"{name}\n" for name in exec_hosts))
    node_file.chmod(0o644)
    if not Path(job.work_dir or account.home).is_dir():
        process.exit_status, process.ended = NO_HOME, process.started
        return
    files = _spool_files(home, job, account)
    try:
        process.child = _login_shell(home, process, script, files)
    finally:
        for descriptor in set(files.values()):
            os.close(descriptor)
    process.session = process.child.pid
    found = procs.process(process.session)
    process.start_ticks = found.start_ticks if found else 0


def _write_script(path: Path, job: Job, account: Account) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o700)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64decode(job.script))
        os.fchown(file.fileno(), account.uid, account.gid)


def _spool_files(home: Home, job: Job, account: Account) -> dict[str, int]:
    """Open descriptors for stdout (``o``) and stderr (``e``); kept ones open in the home."""
    files: dict[str, int] = {}
    for stream in delivery.streams(job):
        if delivery.kept(job, stream):
            continue
        path = delivery.spool_path(home, job, account, stream)
        path.unlink(missing_ok=True)  # of an earlier attempt to start the job
        descriptor = os.open(path, SPOOL_FLAGS, 0o600)
        if job.umask is not None:  # -W umask: for the output files only
            os.fchmod(descriptor, 0o666 & ~int(job.umask, 8))
        os.fchown(descriptor, account.uid, account.gid)
        for letter in "oe":
            if delivery.stream_of(job, letter) == stream:
                files[letter] = descriptor
    return files


def _login_shell(
    home: Home, process: JobProcess, script: Path, files: dict[str, int]
) -> subprocess.Popen[bytes]:
    """``-bash`` as leader of a session; it reads the path of the script from its stdin."""
    job, account = process.job, process.account
    environment = jobenv.environment(job, account, str(home.path / "aux"))
    task = {
        "names": list(environment),
        "shell": job.shell or account.shell,
        "folder": job.work_dir or account.home,
        "limits": list(jobenv.kernel_limits(job).items()),
        "kept": {
            letter: str(delivery.spool_path(home, job, account, delivery.stream_of(job, letter)))
            for letter in "oe"
            if letter not in files
        },
    }
    reading, writing = os.pipe()
    os.write(writing, f"{script}\n".encode())
    os.close(writing)
    try:
        return subprocess.Popen(
            [sys.executable, "-IS", launch.__file__, json.dumps(task)],
            stdin=reading,
            stdout=files.get("o", subprocess.DEVNULL), stderr=files.get("e", subprocess.DEVNULL),
            env=environment, cwd="/", umask=0o077, start_new_session=True,
            user=account.uid, group=account.gid,
            extra_groups=os.getgrouplist(account.name, account.gid),
        )  # fmt: skip
    finally:
        os.close(reading)


async def wait_for_end(process: JobProcess) -> None:
    """Return when the login shell has ended; fills in how, and kills what it left behind."""
    if process.child is not None or process.alive():
        await procs.gone(process.session)
    if process.child is not None:
        code = process.child.wait()
        process.exit_status = code if code >= 0 else SIGNALLED - code
        if process.forced_status is not None:
            process.exit_status = process.forced_status
    elif process.exit_status is None:
        process.exit_status = 0  # what TORQUE reports for a job that outlived its mom
    if process.ended is None:
        process.ended = time.time()
    if process.session:
        await procs.kill_session(process.session, process.account.uid)


async def terminate(process: JobProcess, delay: float) -> None:
    """SIGTERM to all; SIGKILL when the login shell is dead, at the latest after ``delay`` s.

    There is no grace: the login shell dies of SIGTERM at once, and that ends the job.
    """
    procs.signal_session(process.session, process.account.uid, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(delay, AT_ONCE)):
            await procs.gone(process.session)
    await procs.kill_session(process.session, process.account.uid)
