# SPDX-License-Identifier: BSD-3-Clause
"""pbs_mom: runs jobs on one node and tells the server how they fare.

Jobs survive the mom: a new one finds them in mom_priv/jobs, but can no longer know how they end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mock_torque import daemon, jobprocess, procs, wire
from mock_torque.delivery import Delivery, UseCp, kept, spool_path, stream_of
from mock_torque.home import MOM_PORT, Home, read_json, write_json
from mock_torque.job import Job
from mock_torque.jobprocess import JobProcess
from mock_torque.state import VERSION
from mock_torque.wire import Message

SERVER_TIMEOUT = 30.0  # seconds for one message to the server
RETRY = 2.0  # seconds until a message that did not arrive is sent again

log = logging.getLogger(__name__)


@dataclass
class Settings:
    """mom_priv/config. Times in seconds."""

    usecp: list[UseCp] = field(default_factory=list)
    check_poll_time: float = 45  # how late a walltime may be noticed
    status_update_time: float = 45
    copy_retry_time: float = 2  # this mock's own


def read_settings(path: Path) -> Settings:
    """Parse mom_priv/config; raises SystemExit for a line that it does not know."""
    settings = Settings()
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        try:
            _apply_setting(settings, *words)
        except (ValueError, TypeError) as error:
            raise SystemExit(f"{path}, line {number}: cannot use {line!r}") from error
    return settings


def _apply_setting(settings: Settings, name: str, *values: str) -> None:
    """Raises ValueError or TypeError."""
    if name == "$usecp":
        source, local = values
        host, _, prefix = source.partition(":")
        settings.usecp.append(UseCp(host, prefix, local))
    elif name in {"$check_poll_time", "$status_update_time", "$copy_retry_time"}:
        (value,) = values
        setattr(settings, name.removeprefix("$"), float(value))
    elif name not in {"$pbsserver", "$logevent"}:
        raise ValueError(name)


class Mom:
    """The node daemon of one node."""

    def __init__(self, home: Home, hostname: str, port: int) -> None:
        self.home = home
        self.hostname = hostname
        self.port = port
        self.key = home.key()
        self.settings = read_settings(home.mom_priv / "config")
        self.delivery = Delivery(home, hostname, self.settings.usecp, self.settings.copy_retry_time)
        self.jobs: dict[str, JobProcess] = {}
        self._report_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            log.error("background work failed", exc_info=task.exception())

    # --- files

    def make_folders(self) -> None:
        """The spool folders with TORQUE's modes: users run scripts in mom_priv/jobs unseen."""
        modes = {"mom_priv": 0o751, "mom_priv/jobs": 0o751, "aux": 0o755, "spool": 0o1777,
                 "undelivered": 0o1777}  # fmt: skip
        for name, mode in modes.items():
            folder = self.home.path / name
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)

    def _record(self, name: str) -> Path:
        return self.home.mom_priv / "jobs" / f"{name}.JB"

    def _save(self, process: JobProcess) -> None:
        write_json(self._record(process.job.id), process.to_json())

    def _forget(self, process: JobProcess) -> None:
        name = process.job.id
        self.jobs.pop(name, None)
        for path in (
            self._record(name), self._record(name).with_suffix(".SC"), self.home.path / "aux" / name
        ):  # fmt: skip
            path.unlink(missing_ok=True)

    def adopt(self) -> None:
        """Find the jobs of the mom before this one."""
        for path in sorted((self.home.mom_priv / "jobs").glob("*.JB")):
            content = read_json(path)
            job = Job.from_json(content.pop("job"))
            account = self.home.account(job.user)
            if account is None:
                log.error("%s: %s has no account any more", job.id, job.user)
                continue
            process = JobProcess(job, account, **content)
            self.jobs[job.id] = process
            log.info("found %s again, session %d", job.id, process.session)
            self._background(self._watch(process))

    # --- requests of the server

    async def handle(self, message: Message, _peer: str) -> Message:
        """One proven request."""
        answers = {"start": self._start, "kill": self._kill, "signal": self._signal}
        if message["type"] == "report":
            self._report_now.set()
            return {}
        return answers[message["type"]](message)

    def _start(self, message: Message) -> Message:
        job = Job.from_json(message["job"])
        if job.id in self.jobs:  # the answer to an earlier request was lost
            return {"session": self.jobs[job.id].session}
        account = self.home.account(job.user)
        if account is None:
            return {"refused": f"no user {job.user} on {self.hostname}"}
        process = JobProcess(job, account, message["version"])
        try:
            jobprocess.start(self.home, process, message["exec_hosts"])
        except OSError as error:
            return {"refused": str(error)}
        self.jobs[job.id] = process
        self._save(process)
        self._background(self._watch(process))
        log.info("%s started, session %d", job.id, process.session)
        return {"session": process.session}

    def _kill(self, message: Message) -> Message:
        process = self.jobs.get(message["id"])
        if process is None:
            return {"unknown": message["id"]}
        if process.session and process.ended is None:
            self._background(jobprocess.terminate(process, message["delay"]))
        return {}

    def _signal(self, message: Message) -> Message:
        process = self.jobs.get(message["id"])
        if process is None or not process.session:
            return {"unknown": message["id"]}
        procs.signal_session(process.session, process.account.uid, message["signal"])
        return {}

    # --- a job's life

    async def _watch(self, process: JobProcess) -> None:
        """From here to the obituary; picks up where a former mom stopped."""
        await jobprocess.wait_for_end(process)
        self._save(process)
        if not process.delivered:
            process.hint = await self.delivery.deliver(
                process.job, process.account, process.version
            )
            process.delivered = True
            self._save(process)
        none = {"cput": "00:00:00", "energy_used": "0", "mem": "0kb", "vmem": "0kb"}
        await self._tell_until_heard({
            "type": "obit",
            "id": process.job.id,
            "session": process.session or None,
            "exit_status": process.exit_status,
            "ended": process.ended,
            "used": {**none, **process.used, "walltime": process.walltime()},
            "hint": process.hint,
        })  # fmt: skip
        log.info("%s ended with %s", process.job.id, process.exit_status)
        self._forget(process)

    async def poll(self) -> None:
        """Look at all jobs every check_poll_time seconds: usage, and walltime."""
        while True:
            await asyncio.sleep(self.settings.check_poll_time)
            sessions = procs.sessions()
            for process in list(self.jobs.values()):
                if process.ended is not None:
                    continue
                process.measure(sessions)
                limit = process.over_walltime()
                if limit is not None and process.forced_status is None:
                    self._end_overdue(process, limit)
            self._report_now.set()

    def _end_overdue(self, process: JobProcess, limit: int) -> None:
        process.forced_status = jobprocess.OVER_WALLTIME
        text = f"walltime {process.elapsed()} exceeded limit {limit}"
        log.info("%s: %s", process.job.id, text)
        try:
            self._write_error(process, f"=>> PBS: job killed: {text}\n")
        except OSError as error:  # its owner can remove the file
            log.warning("%s: stderr: %s", process.job.id, error)
        self._background(jobprocess.terminate(process, jobprocess.OVERDUE_DELAY))

    def _write_error(self, process: JobProcess, text: str) -> None:
        stream = stream_of(process.job, "e")
        if kept(process.job, stream):
            return
        path = spool_path(self.home, process.job, process.account, stream)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "a") as file:
            file.write(text)

    # --- messages to the server

    async def _tell(self, message: dict[str, Any]) -> bool:
        name, port = self.home.server()
        peer = wire.Peer(name, port, self.key, f"pbs_server@{name}")
        try:
            async with asyncio.timeout(SERVER_TIMEOUT):
                reply = await peer.ask({"mom": self.hostname, **message})
        except (OSError, asyncio.IncompleteReadError, wire.NotAuthenticError) as error:
            log.info("server %s: %s", name, error or type(error).__name__)
            return False
        if "error" in reply:
            log.error("server %s: %s", name, reply["message"])
        return True

    async def _tell_until_heard(self, message: dict[str, Any]) -> None:
        while not await self._tell(message):  # noqa: ASYNC110 - nothing tells when it is back
            await asyncio.sleep(RETRY)

    async def report(self) -> None:
        """Tell the server about the node, now and every status_update_time seconds."""
        while True:
            self._report_now.clear()
            await self._tell_until_heard({
                "type": "report",
                "status": node_status(self.hostname),
                "jobs": {name: process.used for name, process in self.jobs.items()},
            })  # fmt: skip
            try:
                async with asyncio.timeout(self.settings.status_update_time):
                    await self._report_now.wait()
            except TimeoutError:
                continue

    async def run(self) -> None:
        """Serve until terminated; the jobs stay."""
        self.make_folders()
        listener = await wire.serve(self.port, self.key, f"pbs_mom@{self.hostname}", self.handle)
        self.adopt()
        log.info("pbs_mom of %s", self.hostname)
        daemon.ready()
        async with listener:
            self._background(self.poll())
            self._background(self.report())
            await daemon.until_terminated()


def node_status(hostname: str) -> str:
    """The status line of pbsnodes."""
    memory = {
        name: value.split()[0]
        for name, _, value in (
            line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines()
        )
    }
    system = platform.uname()
    fields = {
        "opsys": "linux",
        "uname": f"{system.system} {hostname} {system.release} {system.version} {system.machine}",
        "nsessions": "0",
        "nusers": "0",
        "idletime": str(int(time.monotonic())),
        "totmem": f"{int(memory['MemTotal']) + int(memory['SwapTotal'])}kb",
        "availmem": f"{int(memory['MemAvailable']) + int(memory['SwapFree'])}kb",
        "physmem": f"{memory['MemTotal']}kb",
        "ncpus": str(os.cpu_count()),
        "loadave": f"{os.getloadavg()[0]:.2f}",
        "gres": "",
        "netload": "0",
        "state": "free",
        "varattr": " ",
        "cpuclock": "Fixed",
        "version": VERSION,
        "rectime": str(int(time.time())),
        "jobs": "",
    }
    return ",".join(f"{name}={value}" for name, value in fields.items())


def main() -> int:
    """Entry point of sbin/pbs_mom."""
    parser = daemon.parser("pbs_mom")
    parser.add_argument("-M", dest="port", type=int, default=MOM_PORT, help="service port")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("pbs_mom must run as root: it starts jobs as their owners")
    daemon.start_logging()
    asyncio.run(_run(Home(options.home), options.hostname, options.port))
    return 0


async def _run(home: Home, hostname: str, port: int) -> None:
    await Mom(home, hostname, port).run()
