# SPDX-License-Identifier: BSD-3-Clause
"""What researchers do, one life after the other, in several places at once.

A life goes through the hub's REST API and a kernel's websocket, as a browser does. It is patient
with whatever is broken, and tells the verdicts what no fault excuses.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import requests
from tornado.httpclient import HTTPError
from tornado.websocket import WebSocketError

from tests.chaos.timeline import Scene
from tests.chaos.world import NODES, Account, OutOfReachError
from tests.hub_client import KERNEL, Researcher

T = TypeVar("T")

READY = 120.0
"""Seconds for which a life waits for its notebook before it gives up and stops it."""

STAGGER = 20.0
"""Seconds within which the first lives begin."""

STOPPED = 120.0
"""Seconds for which a life repeats that its server shall stop."""

REACHABLE = 60.0
"""Seconds with nothing broken after which a notebook whose job lives must answer: the hub checks
the proxy's routes once a minute."""

SETTLED = 15.0
"""Seconds after a fault in which what it has begun may still come to an end."""

EVERYTHING = ("hub", "proxy", "queue", *NODES, "disk")
PROFILES = {"tintel": 6, "long": 2, "himem": 1, "himem4": 1}
BAD_OPTIONS: list[Any] = [
    {"profile": "no such thing"},
    {"profile": ["tintel"]},
    {"profile": "tintel", "queue": "himem"},
    {"profile": "tintel\n#PBS -l walltime=999:00:00"},
    {"profile": {"$ne": ""}},
    {"profile": None},
    {"options": "#PBS -q himem", "profile": "long"},
]
TOKEN_LIFE = 4 * 3600  # seconds
PAGE_TIMEOUT = 30  # seconds
TROUBLE = (requests.RequestException, OSError, HTTPError, WebSocketError, AssertionError, KeyError)
"""What a request through a broken cluster may raise; TimeoutError is an OSError."""

# In the kernel: one child in a session of its own, and one that also hides whose it is.
LEAVE_PROCESS = "import subprocess; subprocess.Popen(['sleep', '3600'], start_new_session=True)"
LEAVE_STRANGER = (
    "import subprocess; subprocess.Popen(['sleep', '3601'], start_new_session=True, env={})"
)


SHOW_VARIABLE = "print(globals().get('x'))"


class ServerGoneError(Exception):
    """The server of this life is no more; whether that is right is not the life's to judge."""


class Resident:
    """Lives one life after the other at one place (a server name) of one researcher."""

    def __init__(self, scene: Scene, person: Person, server: str, seed: str) -> None:
        self.name = f"{person.name}/{server}"
        self._world = scene.world
        self._ledger = scene.ledger
        self._timeline = scene.timeline
        self._verdicts = scene.verdicts
        self._person = person
        self._server = server
        self._dice = random.Random(f"{seed}/{self.name}")  # noqa: S311 - reproducible is the point
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._lives: dict[Callable[[], None], int] = {
            self.live_and_stop: 40,
            self.live_and_leave: 12,
            self.live_and_shut_down: 8,
            self.change_mind: 18,
            self.ask_for_nonsense: 12,
            self.be_greedy: 5,
        }

    def _run(self) -> None:
        # Not all at the same moment: that is what be_greedy is for.
        self._end.wait(self._dice.uniform(0, STAGGER))
        while not self._end.is_set():
            if not self._hub_answers():
                self._end.wait(2)
                continue
            (life,) = self._dice.choices(list(self._lives), list(self._lives.values()))
            self._write("life", life=life.__name__)
            try:
                life()
            except ServerGoneError as gone:
                self._write("server gone", why=str(gone))
                self._timeline.count("lives", f"{life.__name__}, cut short")
            except TROUBLE as trouble:
                self._write("trouble", why=f"{type(trouble).__name__}: {trouble}"[:300])
                self._timeline.count("lives", f"{life.__name__}, in trouble")
            else:
                self._timeline.count("lives", f"{life.__name__}, to its end")
            self._end.wait(self._dice.uniform(0.5, 4))

    def _hub_answers(self) -> bool:
        try:
            self._person.server(self._server)
        except TROUBLE:
            return False
        return True

    def start(self) -> None:
        """Begin with the first life."""
        self._thread.start()

    def finish(self) -> None:
        """End after the present life, soon."""
        self._end.set()

    def join(self, seconds: float) -> None:
        """Wait for the end of the present life."""
        self._thread.join(seconds)

    def _write(self, kind: str, **facts: Any) -> None:
        self._timeline.write(kind, user=self._person.name, server=self._server, **facts)

    # --- lives ---------------------------------------------------------------------------

    def live_and_stop(self) -> None:
        """Start, work, stop; a named server is sometimes removed as well."""
        job_id = self._start_and_work()
        self._stop(remove=bool(self._server) and self._dice.random() < 0.5, job_id=job_id)

    def live_and_leave(self) -> None:
        """Start, work, and go home: the next life here finds the server running."""
        self._start_and_work()

    def live_and_shut_down(self) -> None:
        """Start, work, and end the notebook server from within."""
        job_id = self._start_and_work()
        if job_id:
            self._ledger.excuse(job_id, "its owner shut it down")
            self._person.shut_down(self._server)
            self._write("shut down", job=job_id)

    def change_mind(self) -> None:
        """Start, and stop before it is ready."""
        self._start()
        self._end.wait(self._dice.choice([0.0, 0.3, 1.0, 2.5, 6.0]))
        self._stop(remove=bool(self._server) and self._dice.random() < 0.3)

    def ask_for_nonsense(self) -> None:
        """Options that no form offers: each is refused with 400, and nothing is started."""
        if self._person.server(self._server) is not None:
            return
        options = self._dice.choice(BAD_OPTIONS)
        begun = time.monotonic()
        answer = self._person.start(self._server, options)
        self._write("nonsense", options=options, status=answer.status_code)
        if self._whole_since(begun, "hub", "proxy"):
            self._verdicts.judge(
                "options are checked",
                answer.status_code == 400,
                self.name,
                f"{options!r} was answered with {answer.status_code}: {answer.text[:200]}",
            )

    def be_greedy(self) -> None:
        """Ask for more servers at once than anybody may have."""
        names = [f"{self._server or 'd'}-greedy{number}" for number in range(7)]
        for name in names:
            begun = time.monotonic()
            self._ledger.ask_start((self._person.name, name))
            answer = self._person.start(name, {"profile": "tintel"})
            self._outcome("starts", answer, f"greedy {name}", begun)
        self._end.wait(self._dice.uniform(0, 20))
        for name in names:
            self._stop(remove=True, server=name)

    # --- steps ---------------------------------------------------------------------------

    def _start_and_work(self) -> str:
        """The job's id; empty when no notebook could be had. Raises ServerGoneError."""
        self._start()
        if not self._is_ready():
            return ""
        return self._work()

    def _start(self) -> None:
        if self._person.server(self._server) is not None:
            self._write("found running")
            return
        profile = self._dice.choices(list(PROFILES), list(PROFILES.values()))[0]
        begun = time.monotonic()
        self._ledger.ask_start((self._person.name, self._server))
        answer = self._person.start(self._server, {"profile": profile})
        self._outcome("starts", answer, profile, begun)

    def _outcome(self, group: str, answer: requests.Response, what: str, begun: float) -> None:
        said = "" if answer.status_code < 300 else _message(answer)
        self._write(group, what=what, status=answer.status_code, said=said)
        self._timeline.count(group, f"{answer.status_code} {answer.reason}")
        if self._whole_since(begun, *EVERYTHING):
            self._verdicts.judge(
                "no error without a fault",
                answer.status_code < 500,
                self.name,
                f"{what} was answered with {answer.status_code}: {said}",
            )

    def _is_ready(self) -> bool:
        """Wait for the notebook. Raises ServerGoneError when its start failed."""
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline and not self._end.is_set():
            try:
                server = self._person.server(self._server)
            except TROUBLE:
                self._end.wait(2)
                continue
            if server is None:
                self._timeline.count("waits", "the start failed")
                raise ServerGoneError("it did not start")
            if server["ready"]:
                self._timeline.count("waits", "ready")
                self._write("ready")
                return True
            self._end.wait(0.5)
        self._timeline.count("waits", "given up")
        self._write("given up", pending=True)
        return False

    def _work(self) -> str:
        """Keep something in a kernel's memory and look again and again whether it is there."""
        nonce = f"{self._dice.getrandbits(64):016x}"
        kernel = self._insist(lambda: self._person.start_kernel(self._server, KERNEL), "")
        code = f"import os; x = '{nonce}'; print(os.environ['PBS_JOBID'])"
        job_id = self._insist(lambda: self._compute(kernel, code), "")
        self._write("works", job=job_id)
        leave = self._dice.random()
        if leave < 0.4:
            child = LEAVE_PROCESS if leave < 0.25 else LEAVE_STRANGER
            self._insist(lambda: self._compute(kernel, f"{child}; print(1)"), job_id)
        for _ in range(self._dice.randint(1, 4)):
            self._end.wait(self._dice.uniform(1, 8))
            found = self._insist(lambda: self._compute(kernel, SHOW_VARIABLE), job_id)
            self._verdicts.judge(
                "no notebook is lost",
                found == nonce,
                f"{self.name} {job_id}",
                f"the variable was {nonce} and is {found!r}",
            )
        return job_id

    def _compute(self, kernel: str, code: str) -> str:
        return self._person.compute(self._server, kernel, code)

    def _insist(self, action: Callable[[], T], job_id: str) -> T:
        """Repeat until it works. Raises ServerGoneError.

        A notebook whose job lives must answer when nothing has been broken for a while.
        """
        begun = time.monotonic()
        while True:
            try:
                return action()
            except TROUBLE as trouble:
                why = f"{type(trouble).__name__}: {trouble}"[:200]
            whole = self._ledger.healthy(*EVERYTHING)
            if min(whole, time.monotonic() - begun) > REACHABLE and self._still_lives(job_id):
                self._verdicts.judge(
                    "no notebook is lost", False, f"{self.name} {job_id}",
                    f"nothing is broken, its job lives, and it does not answer: {why}",
                )  # fmt: skip
                raise ServerGoneError(f"it does not answer: {why}")
            if not self._still_lives(job_id):
                raise ServerGoneError(f"its job is over ({self._ledger.excuse_of(job_id)}): {why}")
            if self._end.wait(1):
                raise ServerGoneError(f"the run ends: {why}")

    def _still_lives(self, job_id: str) -> bool:
        """Whether the job lives; while it is not known, whether the hub shows the server."""
        try:
            if job_id:
                jobs = self._world.jobs()
                return job_id in jobs and jobs[job_id].live
            return self._person.server(self._server) is not None
        except (OutOfReachError, *TROUBLE):
            return True

    def _stop(self, *, remove: bool, server: str | None = None, job_id: str = "") -> None:
        """Ask for the end until the hub knows no such server any more."""
        name = self._server if server is None else server
        self._ledger.ask_stop((self._person.name, name))
        begun = time.monotonic()
        asked, status = False, 0
        while time.monotonic() < begun + STOPPED:
            try:
                if not asked:
                    answer = self._person.remove(name) if remove else self._person.stop(name)
                    if answer.status_code != status:
                        status = answer.status_code
                        self._outcome("stops", answer, f"{name} remove={remove}", begun)
                    asked = status in {202, 204, 404}
                if asked and self._person.server(name) is None:
                    self._write("stopped", which=name, job=job_id)
                    self._check_ended(job_id, begun)
                    return
            except TROUBLE as trouble:
                self._write("trouble", what="stop", why=str(trouble)[:200])
            time.sleep(1 if asked else 3)
        self._write("stop given up", which=name)
        self._timeline.count("stops", "given up")

    def _check_ended(self, job_id: str, begun: float) -> None:
        """A stop that the hub calls done means that the scheduler has ended the job."""
        job = self._world.jobs().get(job_id) if job_id else None
        if job is not None and self._whole_since(begun, "queue", "hub", *NODES):
            self._verdicts.judge(
                "stopped means ended", not job.live, f"{self.name} {job_id}",
                f"the hub has stopped the server and job {job_id} is in state {job.state}",
            )  # fmt: skip

    def _whole_since(self, begun: float, *components: str) -> bool:
        """Whether nothing of this was broken since then, nor shortly before."""
        return self._ledger.healthy(*components) > time.monotonic() - begun + SETTLED


class Person(Researcher):
    """A researcher with a token that lasts for the whole run."""

    def __init__(self, url: str, account: Account) -> None:
        super().__init__(url, account.name, account.password)
        self._account = account
        # A proxy that was restarted has forgotten the connections that were kept open.
        self.session.headers["Connection"] = "close"

    @classmethod
    def enter(cls, url: str, account: Account) -> Person:
        """Log in and draw a token."""
        person = cls(url, account)
        person.log_in().raise_for_status()
        person.use_token(TOKEN_LIFE)
        return person.twin()

    def twin(self) -> Person:
        """The same researcher in another window: a connection of its own, the same token."""
        twin = Person(self.url, self._account)
        twin.session.headers["Authorization"] = self.session.headers["Authorization"]
        return twin

    @property
    def secrets(self) -> set[str]:
        """What nobody else may read."""
        return {self.password, str(self.session.headers["Authorization"]).removeprefix("token ")}

    def servers(self) -> dict[str, dict[str, Any]]:
        """Her servers that are not stopped, as the hub shows them."""
        answer = self.session.get(f"{self.url}/hub/api/users/{self.name}", timeout=PAGE_TIMEOUT)
        answer.raise_for_status()
        found: dict[str, dict[str, Any]] = answer.json()["servers"]
        return found

    def remove(self, server: str) -> requests.Response:
        """Stop a named server and forget it."""
        address = f"{self.url}/hub/api/users/{self.name}/servers/{server}"
        return self.session.delete(address, json={"remove": True}, timeout=60)

    def shut_down(self, server: str) -> None:
        """Let the notebook server end itself; its answer may be its last."""
        self.session.post(f"{self.address(server)}/api/shutdown", timeout=30)


def _message(answer: requests.Response) -> str:
    try:
        return str(answer.json().get("message", ""))[:300]
    except ValueError:
        return answer.text[:100]
