# SPDX-License-Identifier: BSD-3-Clause
"""Output of a job: spool files while it runs, delivered as its owner when it has ended."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mock_torque import procs
from mock_torque.home import Account, Home
from mock_torque.job import Job
from mock_torque.state import OLD_VERSION

TRIES = 4
COPY_TIMEOUT = 60  # seconds for one try
HINT = "Unable to copy files back - please see the mother superior's log for exact details."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UseCp:
    """``$usecp HOST:/prefix /local``: that path of that host is reached by plain cp."""

    host: str
    prefix: str
    local: str


@dataclass(frozen=True)
class Stream:
    """Standard output (``o``) or standard error (``e``) of a job."""

    letter: str
    suffix: str
    destination: str  # host:path


def streams(job: Job) -> list[Stream]:
    """The files that the job writes: one when they are joined."""
    output = Stream("o", "OU", job.output_path)
    error = Stream("e", "ER", job.error_path)
    return {"oe": [output], "eo": [error]}.get(job.join, [output, error])


def stream_of(job: Job, letter: str) -> Stream:
    """The stream into which stdout (o) or stderr (e) goes."""
    found = streams(job)
    return next((stream for stream in found if stream.letter == letter), found[0])


def kept(job: Job, stream: Stream) -> bool:
    """-k: the file is written in the home, not spooled."""
    return stream.letter in job.keep and job.keep != "n"


def spool_path(home: Home, job: Job, account: Account, stream: Stream) -> Path:
    """Where the job writes."""
    if kept(job, stream):
        name = f"{Path(job.name).name}.{stream.letter}{job.sequence}"
        return Path(account.home) / name
    return home.path / "spool" / f"{job.id}.{stream.suffix}"


class Delivery:
    """Brings output back from one node."""

    def __init__(self, home: Home, hostname: str, rules: list[UseCp], retry: float) -> None:
        self.home = home
        self.local_names = {hostname, hostname.partition(".")[0], "localhost"}
        self.rules = rules
        self.retry = retry  # seconds between two tries

    async def deliver(self, job: Job, account: Account, version: str) -> str | None:
        """Deliver all files of the job; the sched_hint when one of them could not be."""
        lost = []
        for stream in streams(job):
            if kept(job, stream):
                continue
            source = spool_path(self.home, job, account, stream)
            if not source.exists():
                continue
            target = self._target(stream.destination, job, account)
            problem = await self._copy(source, target, account)
            if problem is None:
                source.unlink()
            else:
                log.warning("%s: %s stays in undelivered: %s", job.id, source.name, problem)
                source.replace(self.home.path / "undelivered" / source.name)
                lost.append((source, stream.destination, problem))
        if not lost:
            return None
        if version != OLD_VERSION:
            return HINT
        source, destination, problem = lost[0]
        return f"Unable to copy file {source} to {destination}\n*** error from copy\n{problem}\n"

    def _target(self, destination: str, job: Job, account: Account) -> str | None:
        """The local path of a destination, None when only scp could reach it."""
        host, _, path = destination.partition(":")
        values = {"PBS_JOBID": job.id, "PBS_JOBNAME": job.name, "HOME": account.home}
        path = re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[0]), path)
        path = str(Path(account.home) / path)  # a relative one counts from the home
        if host in self.local_names:
            return path
        for rule in self.rules:
            if fnmatch.fnmatch(host, rule.host) and path.startswith(rule.prefix):
                return rule.local + path.removeprefix(rule.prefix)
        return None

    async def _copy(self, source: Path, target: str | None, account: Account) -> str | None:
        """Try TRIES times; None or the reason of the failure."""
        problem = "scp: Permission denied"  # no keys between the hosts
        for _ in range(TRIES):
            if target is not None:
                code, problem = await self._cp(source, target, account)
                if code == 0:
                    return None
            await asyncio.sleep(self.retry)
        return problem

    @staticmethod
    async def _cp(source: Path, target: str, account: Account) -> tuple[int, str]:
        process = _start_cp(source, target, account)
        try:
            async with asyncio.timeout(COPY_TIMEOUT):
                await procs.gone(process.pid)
        except TimeoutError:
            process.kill()
        _, error = process.communicate()
        return process.returncode, error.decode(errors="replace").strip()


def _start_cp(source: Path, target: str, account: Account) -> subprocess.Popen[bytes]:
    """cp as the owner: what he may not write stays unwritten, what he may not read unread."""
    return subprocess.Popen(
        ["/bin/cp", "--", str(source), target],
        user=account.uid, group=account.gid,
        extra_groups=os.getgrouplist(account.name, account.gid),
        umask=0, cwd="/", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
