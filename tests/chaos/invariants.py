# SPDX-License-Identifier: BSD-3-Clause
"""What must stay true, whatever breaks; looked at all the time and at the end.

A doubt becomes a violation when it has lasted for a bound of *healthy* time: seconds in a row in
which all the components that it depends on were whole. The bounds come from the product's own
intervals, not from what was measured.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import requests

from tests.chaos.leaks import Search
from tests.chaos.timeline import Scene, Server
from tests.chaos.world import NODES, Claim, Job, OutOfReachError, Process

if TYPE_CHECKING:
    from tests.chaos.lives import Person

LOOK = 4.0
"""Seconds between two looks at everything; secrets are looked for every tenth time."""

ORPHAN = 120.0
"""A job nobody claims: an interval of the census (10 s), its grace (15 s), the longest pause of
its tries to delete (60 s), and a query that began in a fault (30 s)."""

GHOST = 75.0
"""A server without a job: the hub polls every 30 s, with an answer of the queue of 10 s' age, and
confirms it; a query that was under way when all was well again may take its 30 s."""

LEFTOVER = 45.0
"""A process of a job that is over: what guards the job has 10 s; the queue's node daemon reports an
end after a fault within some more."""

STUCK = 150.0
"""A stop that does not end: the pauses between its attempts grow to 60 s, and a qdel that began in
a fault takes its time."""

UNFINISHED = 120.0
"""A start whose job runs, and which is neither ready nor failed."""

PAGE = 5.0
"""Seconds for a page of the hub, while hub and proxy are whole."""

BUSY = 10.0
"""What a page may take in addition, in multiples of the time for a plain command on the hub's host
just before (0.1 s): a busy machine is not the hub's fault."""

AFTER_RESTART = 15.0
"""Seconds for which a hub that answers again may be slow."""

INVARIANTS = (
    "every job has a server",
    "every running server has a job",
    "no notebook is lost",
    "the limit of jobs is kept",
    "no process outlives its job",
    "no secret can be read",
    "pages answer",
    "no start or stop is stuck",
    "stopped means ended",
    "options are checked",
    "no error without a fault",
    "other people's jobs are left alone",
    "everything serves again",
    "nothing is left at the end",
)


class Doubts:
    """Conditions that may last for a bound of healthy time and not longer."""

    def __init__(self, scene: Scene) -> None:
        self._ledger = scene.ledger
        self._timeline = scene.timeline
        self._verdicts = scene.verdicts
        self._since: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}

    def settle(
        self,
        invariant: str,
        doubtful: dict[str, str],
        bound: float,
        components: tuple[str, ...],
        part: str = "",
    ) -> None:
        """Take all that is doubtful now (subject to text) in one part of an invariant.

        What is not named any more is settled.
        """
        now = time.monotonic(), self._timeline.now()
        before = self._since.get((invariant, part), {})
        since = {subject: before.get(subject, now) for subject in doubtful}
        self._since[invariant, part] = since
        for subject, text in doubtful.items():
            begun, logged = since[subject]
            lasts = min(now[0] - begun, self._ledger.healthy(*components))
            self._verdicts.judge(
                invariant, lasts <= bound, subject, f"{text} (for {lasts:.0f} s)", logged
            )
        if not doubtful:
            self._verdicts.judge(invariant, True, "", "")

    def open(self) -> list[str]:
        """What is in doubt now."""
        return [
            f"{invariant}: {subject}"
            for (invariant, _), subjects in self._since.items()
            for subject in subjects
        ]


class Watch(threading.Thread):
    """Looks at the cluster again and again."""

    def __init__(self, scene: Scene, people: list[Person], limit: int) -> None:
        super().__init__(name="watch", daemon=True)
        self._world = scene.world
        self._ledger = scene.ledger
        self._timeline = scene.timeline
        self._verdicts = scene.verdicts
        self._people = people
        self._limit = limit
        self.doubts = Doubts(scene)
        self.strangers: set[str] = set()
        """Jobs of these researchers that are not this hub's."""
        self._leaks = Search(scene.world)
        for person in people:
            self._leaks.add(person.name, f"{person.name}'s own", person.secrets)
        self._ready: dict[Server, tuple[str, float]] = {}
        self._was_unreachable: set[str] = set()
        self._end = threading.Event()
        self._machine = 0.0
        self.looks = 0

    def run(self) -> None:
        """Look until told to end."""
        while not self._end.is_set():
            begun = time.monotonic()
            try:
                self.look()
            except OutOfReachError as error:
                self._timeline.write("no look", why=str(error))
            self._end.wait(max(0.5, LOOK - (time.monotonic() - begun)))

    def finish(self) -> None:
        """End after the present look."""
        self._end.set()
        self.join()

    def look(self) -> None:
        """One look at everything."""
        begun = time.monotonic()
        claims = self._world.claims()
        self._machine = time.monotonic() - begun
        jobs = self._world.jobs()
        shown = self._servers()
        self._check_jobs(jobs, claims, shown)
        self._check_limit(jobs)
        self._check_strangers(jobs)
        if shown is not None:
            self._check_servers(jobs, claims, shown)
            self._check_pending(jobs, claims, shown)
        self._check_lost(jobs, claims, shown)
        processes = self._check_processes(jobs)
        if self.looks % 10 == 0:
            self._check_secrets(processes)
        self.looks += 1

    # --- jobs and servers ----------------------------------------------------------------

    def ours(self, jobs: dict[str, Job]) -> list[Job]:
        """The live jobs that this hub may have made."""
        names = {person.name for person in self._people}
        return [
            job for job in jobs.values()
            if job.live and job.owner in names and job.id not in self.strangers
        ]  # fmt: skip

    def _servers(self) -> dict[Server, dict[str, object]] | None:
        """What the hub shows, None when it does not answer; counts how fast it does."""
        if self._ledger.healthy("hub", "proxy") < 1:
            return None
        shown: dict[Server, dict[str, object]] = {}
        for person in self._people:
            begun = time.monotonic()
            try:
                servers = person.servers()
                problem = ""
            except requests.RequestException as error:
                servers, problem = {}, f"{type(error).__name__}: {error}"[:200]
            took = time.monotonic() - begun
            if self._ledger.healthy("hub", "proxy") > took + AFTER_RESTART:
                self._verdicts.judge(
                    "pages answer", took <= PAGE + BUSY * self._machine and not problem,
                    f"look {self.looks}",
                    problem or f"the servers of {person.name} took {took:.1f} s",
                )  # fmt: skip
            if problem:
                return None
            shown |= {(person.name, name): server for name, server in servers.items()}
        return shown

    def _check_jobs(
        self,
        jobs: dict[str, Job],
        claims: dict[Server, Claim],
        shown: dict[Server, dict[str, object]] | None,
    ) -> None:
        """No job without an owner's server that claims it."""
        claimed = {
            name
            for server, claim in claims.items()
            if shown is None or server in shown
            for name in (claim.job_id, claim.tag)
            if name
        }
        orphans = [
            job for job in self.ours(jobs) if job.id not in claimed and job.tag not in claimed
        ]
        for node in ("", *NODES):
            doubtful = {
                job.id: f"no server claims job {job.id} of {job.owner}, which is in state"
                f" {job.state} on {node or 'no node'}"
                for job in orphans
                if job.node == node
            }
            components = ("hub", "queue", node) if node else ("hub", "queue")
            self.doubts.settle("every job has a server", doubtful, ORPHAN, components, node)

    def _check_servers(
        self,
        jobs: dict[str, Job],
        claims: dict[Server, Claim],
        shown: dict[Server, dict[str, object]],
    ) -> None:
        """No server shown as running whose job is not in the queue."""
        ghosts = {}
        for server, facts in shown.items():
            claim = claims.get(server)
            job = jobs.get(claim.job_id) if claim else None
            if facts["ready"] and (job is None or not job.live):
                ghosts["/".join(server)] = (
                    f"{'/'.join(server)} is shown as running; its job"
                    f" {claim.job_id if claim else '(none)'} is not in the queue"
                )
        self.doubts.settle(
            "every running server has a job", ghosts, GHOST, ("hub", "queue", "proxy")
        )

    def _check_pending(
        self,
        jobs: dict[str, Job],
        claims: dict[Server, Claim],
        shown: dict[Server, dict[str, object]],
    ) -> None:
        """What is pending comes to an end when the queue does its part."""
        stops, starts = {}, {}
        for server, facts in shown.items():
            name, pending = "/".join(server), facts["pending"]
            if pending == "stop":
                stops[name] = f"{name} is stopping"
            claim = claims.get(server)
            job = jobs.get(claim.job_id) if claim else None
            if pending == "spawn" and job is not None and job.state != "Q":
                starts[name] = f"{name} is starting, its job {job.id} is in state {job.state}"
        everything = ("hub", "queue", "proxy", *NODES, "disk")
        self.doubts.settle("no start or stop is stuck", stops, STUCK, everything, "stop")
        self.doubts.settle("no start or stop is stuck", starts, UNFINISHED, everything, "start")

    def _check_lost(
        self,
        jobs: dict[str, Job],
        claims: dict[Server, Claim],
        shown: dict[Server, dict[str, object]] | None,
    ) -> None:
        """A server that was ready goes only because somebody asked, or its job was ended."""
        for server, (job_id, submitted) in list(self._ready.items()):
            claim, job = claims.get(server), jobs.get(job_id)
            if claim is not None and claim.job_id == job_id:
                continue
            del self._ready[server]
            live = job is not None and job.live
            excuse = self._ledger.excuse_of(job_id)
            asked = self._ledger.stop_asked(server, submitted)
            cause = "it was stopped" if asked else excuse or "nobody knows why"
            self._timeline.write("end", user=server[0], server=server[1], job=job_id, cause=cause)
            self._timeline.count("ends", cause)
            self._verdicts.judge(
                "no notebook is lost",
                asked or (bool(excuse) and not live),
                f"{'/'.join(server)} {job_id}",
                f"the hub dropped it; its job {'lives' if live else 'is over'}, nobody asked"
                f" for its end, and no fault explains it",
            )
        for server, facts in (shown or {}).items():
            claim = claims.get(server)
            job = jobs.get(claim.job_id) if claim else None
            if facts["ready"] and claim and claim.running and job:
                self._ready[server] = claim.job_id, job.submitted

    def _check_limit(self, jobs: dict[str, Job]) -> None:
        """Nobody has more jobs than her limit; those on a node that was lost do not count."""
        self._was_unreachable |= {
            job.id for job in jobs.values() if job.node and self._ledger.healthy(job.node) == 0
        }
        for person in self._people:
            counted = [
                job.id
                for job in self.ours(jobs)
                if job.owner == person.name and job.id not in self._was_unreachable
            ]
            self._verdicts.judge(
                "the limit of jobs is kept",
                len(counted) <= self._limit,
                person.name,
                f"{person.name} has {len(counted)} jobs: {', '.join(sorted(counted))}",
            )

    def _check_strangers(self, jobs: dict[str, Job]) -> None:
        """What a researcher, or another hub, has in the queue is not ours to touch."""
        for job_id in self.strangers:
            job = jobs.get(job_id)
            self._verdicts.judge(
                "other people's jobs are left alone",
                job is not None and job.state == "H",
                job_id,
                f"{job_id} was not made by this hub and is {job.state if job else 'gone'}",
            )

    # --- processes and secrets -----------------------------------------------------------

    def _check_processes(self, jobs: dict[str, Job]) -> list[Process]:
        """No process of a job that is over. One that hides its job counts for any of its owner."""
        found: list[Process] = []
        for node in NODES:
            if self._ledger.healthy(node) == 0:
                continue
            try:
                processes = self._world.processes(node)
            except OutOfReachError as error:
                self._timeline.write("no look", why=str(error))
                continue
            found += processes
            live = [job for job in self._world.jobs().values() if job.live and job.node == node]
            names, owners = {job.id for job in live}, {job.owner for job in live}
            doubtful = {
                f"{one.pid} of {one.owner} {one.job_id}": f"{one.command!r} of {one.owner} runs on"
                f" {node}, its job {one.job_id or '(hidden)'} does not"
                for one in processes
                if (one.job_id not in names if one.job_id else one.owner not in owners)
            }
            self.doubts.settle(
                "no process outlives its job", doubtful, LEFTOVER, (node, "queue"), node
            )
        return found

    def _check_secrets(self, processes: list[Process]) -> None:
        self._leaks.learn(processes)
        for place, found in self._leaks.find().items():
            self._verdicts.judge("no secret can be read", not found, f"{place}: {found}", found)
