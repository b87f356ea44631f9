# SPDX-License-Identifier: BSD-3-Clause
"""The same hub and the same small queue, in front of them either set of spawner classes.

Ours is configured as the role does it, stock as the documentation of batchspawner and
wrapspawner says: `sudo -E`, absolute paths, `batchspawner` imported, the batch script of
`TorqueSpawner` as released.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
from mock_torque.variables import split_list

from tests.unit.spawner.hub_process import Hub
from tests.unit.spawner.small_torque import SmallTorque

T = TypeVar("T")

ACCOUNTS = """
# The accounts of this machine are the homes of the small queue.
import os, pwd
_getpwnam = pwd.getpwnam
def getpwnam(name):
    home = Path("{torque}/home", name)
    if not home.is_dir():
        return _getpwnam(name)
    return pwd.struct_passwd((name, "x", os.getuid(), os.getgid(), "", str(home), "/bin/bash"))
pwd.getpwnam = getpwnam
c.Spawner.poll_interval = 1
c.Spawner.start_timeout = 60
c.Spawner.http_timeout = 20
"""

OURS = """
c.JupyterHub.template_paths = ["{package}/custom_pbs_spawner/templates"]
"""

STOCK = """
import batchspawner
c.JupyterHub.spawner_class = "wrapspawner.ProfilesSpawner"
c.ProfilesSpawner.profiles = [
    (
        row["display_name"],
        row["key"],
        "batchspawner.TorqueSpawner",
        dict(
            req_queue=row["queue"],
            req_nprocs=str(row["cores"]),
            req_memory=row["memory"],
            req_runtime=str(row["walltime"]),
            req_host="encina",
        ),
    )
    for row in json.loads(Path("{root}/profiles.json").read_text())["profiles"]
]
c.BatchSpawnerBase.exec_prefix = "{torque}/bin/sudo -E -u {{username}}"
c.BatchSpawnerBase.batchspawner_singleuser_cmd = "{root}/env/bin/python -m batchspawner.singleuser"
c.Spawner.cmd = ["{root}/env/bin/jupyterhub-singleuser"]
c.TorqueSpawner.batch_submit_cmd = "{torque}/bin/qsub"
c.TorqueSpawner.batch_query_cmd = "{torque}/bin/qstat -x {{job_id}}"
c.TorqueSpawner.batch_cancel_cmd = "{torque}/bin/qdel {{job_id}}"
"""


class BedError(Exception):
    """The bed did not come as far as the claim under test: no verdict on the classes."""


def prepared(what: str, look: Callable[[], T], seconds: float = 60) -> T:
    """The first true value of `look`, which every class set must reach. Raises BedError."""
    try:
        return reached(what, look, seconds)
    except AssertionError as error:
        raise BedError(str(error)) from error


def reached(what: str, look: Callable[[], T], seconds: float = 10) -> T:
    """The first true value of `look`; fails with `what` was claimed after some seconds."""
    end = time.monotonic() + seconds
    while True:
        value = look()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def stays(what: str, look: Callable[[], object], seconds: float) -> None:
    """Fails with `what` was claimed as soon as `look` is false within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert look(), f"no longer so: {what}"
        time.sleep(0.1)


def processes() -> Iterator[tuple[int, list[str]]]:
    """All processes of this machine, each with its words."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - iterdir would need a stat of what may be gone
        with suppress(OSError):
            if name.isdigit():
                words = Path("/proc", name, "cmdline").read_bytes().decode(errors="replace")
                yield int(name), words.split("\0")


class Bed(Hub):
    """A hub with ours or the stock classes, and what an attacker or a fault does to it."""

    def __init__(self, root: Path, *, stock: bool) -> None:
        root.mkdir(exist_ok=True)
        super().__init__(root, SmallTorque(root / "torque"))
        self.stock = stock
        if stock:
            self.module = "jupyterhub"
            self.spawner = STOCK
        else:
            self.spawner += OURS
        self.spawner = ACCOUNTS + self.spawner
        self._people = 0
        # What a job of a researcher should do before it dies, she writes into a file.
        python = self.root / "env" / "bin" / "python"
        dies = 'if [ -e "$HOME/die" ]; then . "$HOME/die"; fi'
        python.write_text(f'#!/bin/sh\n{dies}\nexec {sys.executable} "$@"\n')

    def __enter__(self) -> Bed:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill(signal.SIGTERM)
        self.tidy()

    def start(self) -> None:
        """Start the hub. That a later one finds everything again is a claim; the first is none."""
        first = not (self.root / "hub.log").exists()
        try:
            try:
                super().start()
            except AssertionError:
                # A busy machine takes its time over the imports; a hub that has ended does not.
                reached("the hub answers", self._answers, 90)
        except AssertionError as error:
            if first:
                raise BedError(f"the hub does not start: {self.log()[-2000:]}") from error
            raise AssertionError(f"the hub does not come back: {self.log()[-500:]}") from error

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End the hub; one that does not end by itself is killed."""
        try:
            super().kill(how)
        except subprocess.TimeoutExpired:
            super().kill(signal.SIGKILL)

    @property
    def pid(self) -> int | None:
        """The hub's process."""
        return self._process.pid if self._process else None

    def tidy(self) -> None:
        """Take all knobs away and end all jobs."""
        self.queue.reset()
        # A command that hangs for ever hangs beyond its hub.
        for name in ("qsub", "qstat", "qdel"):
            for process in self.commands(name):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        for number in self.queue.jobs():
            if "pid" not in self.queue.job(number):
                self.queue.change(number, state="C")
        self.queue.end_all()

    def server(self, user: str, name: str = "") -> dict[str, Any]:
        """The hub's model of a server that is active, or nothing."""
        answer = self.api("GET", f"/users/{user}")
        assert answer.ok, f"the hub cannot say what {user} has: {answer.status_code}"
        model: dict[str, Any] = answer.json()["servers"].get(name, {})
        return model

    def commands(self, name: str) -> list[int]:
        """The processes of a command of this queue."""
        program = f"{self.queue.bin}/{name}"
        # The interpreter comes first.
        return [process for process, words in processes() if program in words[:2]]

    def researcher(self, name: str = "") -> Researcher:
        """A new account with a token of her own."""
        self._people += 1
        name = name or f"user{self._people}"
        return Researcher(self, name, self.add_user(name))

    def server_token(self, number: int) -> str:
        """The token in the hands of a job: what its owner can read in her own process."""
        given = split_list(self.queue.job(number).get("Variable_List") or "")
        match = re.search(r"^export JUPYTERHUB_API_TOKEN=(\w+)$", self.queue.script(number), re.M)
        if match is None and "JUPYTERHUB_API_TOKEN" not in given:
            raise BedError(f"job {number} was given no token")
        return match[1] if match else given["JUPYTERHUB_API_TOKEN"]


@dataclass(frozen=True)
class Researcher:
    """An account, its token, and what it may ask of the hub."""

    bed: Bed
    name: str
    token: str

    def api(self, method: str, path: str = "", **arguments: Any) -> requests.Response:
        """A call of the REST API below her own user."""
        return self.bed.api(method, f"/users/{self.name}{path}", token=self.token, **arguments)

    @staticmethod
    def _path(server: str) -> str:
        return f"/servers/{server}" if server else "/server"

    def start(self, options: object = None, server: str = "") -> requests.Response:
        """Ask for a server."""
        return self.bed.start_server(self.name, self.token, options, server)

    def run(self, options: object = None, server: str = "") -> int:
        """A server that runs; the number of its job. Raises BedError when it does not."""
        before = self.jobs()
        self.start(options, server)
        prepared(f"{self.name}'s server runs", lambda: self.ready(server))
        return next(number for number in self.jobs() if number not in before)

    def queue_one(self, options: object = None, server: str = "") -> int:
        """A server whose job waits in the queue; its number."""
        self.bed.queue.knob("schedule", "hold")
        before = self.jobs()
        self.start(options, server)
        prepared(f"{self.name}'s job waits", lambda: set(self.jobs()) - set(before))
        number = max(self.jobs())
        # The hub has read the answer of qsub when it shows the job.
        prepared("the hub knows it", lambda: f"'{number}." in str(self.model(server).get("state")))
        return number

    def stop(self, server: str = "") -> requests.Response:
        """Ask for the end of a server."""
        return self.api("DELETE", self._path(server))

    def model(self, server: str = "") -> dict[str, Any]:
        """What the hub says of a server, {} when it has none."""
        return self.bed.server(self.name, server)

    def ready(self, server: str = "") -> bool:
        """Whether the hub calls a server ready."""
        return bool(self.model(server).get("ready"))

    def jobs(self) -> list[int]:
        """The numbers of her jobs that are not over, as the queue knows it."""
        queue = self.bed.queue
        return [number for number in queue.jobs() if queue.job(number)["owner"] == self.name]

    def home(self) -> Path:
        """Her home."""
        return self.bed.queue.home(self.name)

    def report(self, body: object, token: str) -> int:
        """What the hub answers to a job that reports with that body."""
        text = body if isinstance(body, str) else json.dumps(body)
        return self.bed.api("POST", "/batchspawner", token=token, data=text).status_code

    def failure(self, server: str = "", seconds: float = 10) -> str:
        """What the waiting page says once a start has failed, with its HTML.

        Fails when the start is not over within some seconds.
        """
        reached("the start is over", lambda: not self.model(server).get("pending"), seconds)
        events = self.events(server)
        assert events, "the page says nothing"
        assert events[-1].get("failed"), events
        return str(events[-1].get("html_message") or events[-1]["message"])

    def events(
        self, server: str = "", *, until: str = "\0", seconds: float = 8
    ) -> list[dict[str, Any]]:
        """The events of the waiting page, until one says `until` or there are no more."""
        events: list[dict[str, Any]] = []
        ends = time.monotonic() + seconds
        answer = self.api("GET", f"{self._path(server)}/progress", stream=True)
        # Stock may never answer: closing the connection ends the reading.
        watch = threading.Timer(seconds, answer.close)
        watch.start()
        try:
            for line in answer.iter_lines():
                if line.startswith(b"data:"):
                    events.append(json.loads(line[5:]))
                    if until in events[-1].get("message", ""):
                        break
                if time.monotonic() > ends:
                    break
        except (requests.RequestException, AttributeError, ValueError):
            return events
        finally:
            watch.cancel()
            answer.close()
        return events
