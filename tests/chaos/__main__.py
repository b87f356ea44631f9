# SPDX-License-Identifier: BSD-3-Clause
"""python -m tests.chaos --cluster FILE [--faults N] [--seed S]

FILE is what `scripts/demo status --json` prints. Two more researchers are made for the run and
taken away after it; the servers of all researchers are stopped.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import requests

from tests.chaos.faults import Injector
from tests.chaos.invariants import INVARIANTS, Watch
from tests.chaos.lives import Person, Resident
from tests.chaos.timeline import Ledger, Scene, Timeline, Verdicts
from tests.chaos.world import HUB, JOB_NAME, NODES, TORQUE, OutOfReachError, World

PLACES = ("", "second")  # each researcher's servers, a life at a time in each
FIRST_LIVES = 40.0  # seconds before the first fault
STORM = 125  # faults between two calms
PAUSE = 1.3  # seconds from one fault to the next, on average
CALM = 25.0, 240.0  # seconds: at least; at most, while anything is in doubt
END = 120.0  # seconds in which everything must be gone once all was asked to stop
LIMIT = 6  # the default server and five named ones


class Run:
    """One run from the first life to the last look."""

    def __init__(self, world: World, seed: str, lives: int, folder: Path) -> None:
        self.world = world
        self.seed = seed
        self.lives = lives
        self.timeline = Timeline(folder / "timeline.jsonl")
        self.ledger = Ledger()
        self.verdicts = Verdicts(self.timeline)
        self.scene = Scene(world, self.timeline, self.ledger, self.verdicts)
        self.stop = threading.Event()
        self.injector = Injector(self.scene, seed, PAUSE)
        self.begun = time.monotonic()
        self.strangers: list[str] = []

    def go(self, faults: int) -> None:
        """Storms and calms until so many faults were injected, then the end."""
        self.world.prepare()
        people = [Person.enter(self.world.url, account) for account in self.world.accounts]
        self._clear(people)
        watch = Watch(self.scene, people, LIMIT)
        self.strangers = self._submit_strangers()
        watch.strangers = set(self.strangers)
        residents = [
            Resident(self.scene, person.twin(), place, self.seed)
            for place in PLACES
            for person in people
        ][: self.lives]
        watch.start()
        for resident in residents:
            resident.start()
        try:
            self.stop.wait(FIRST_LIVES)
            while self.injector.injected < faults and not self.stop.is_set():
                self._storm(min(STORM, faults - self.injector.injected))
                if self.injector.injected < faults:
                    self._calm(watch)
        finally:
            self._end(people, residents, watch)

    def _storm(self, faults: int) -> None:
        self.timeline.write("storm", faults=faults)
        say(f"{self._elapsed()}  storm of {faults} faults")
        self.injector.storm(faults, self.stop)
        for failure in self.injector.failures:
            self.verdicts.judge("everything serves again", False, failure, failure)
        self.verdicts.judge("everything serves again", True, "", "")

    def _calm(self, watch: Watch) -> None:
        """Let the lives go on with nothing broken until nothing is in doubt."""
        begun = time.monotonic()
        self.timeline.write("calm")
        self.stop.wait(CALM[0])
        while watch.doubts.open() and time.monotonic() - begun < CALM[1]:
            if self.stop.wait(1):
                return
        took = time.monotonic() - begun
        self.timeline.write("calm is over", seconds=round(took), doubts=watch.doubts.open())
        say(f"{self._elapsed()}  calm for {took:.0f} s; {len(self.verdicts.violations)} violations")

    def _end(self, people: list[Person], residents: list[Resident], watch: Watch) -> None:
        """Heal, stop everything, and see whether anything is left."""
        say(f"{self._elapsed()}  the end: everything is healed and stopped")
        self.timeline.write("end of the faults")
        self.world.heal()
        for resident in residents:
            resident.finish()
        for resident in residents:
            resident.join(150)
        watch.look()
        deadline = time.monotonic() + END
        left = ["unknown"]
        while left and time.monotonic() < deadline:
            for person in people:
                self._stop_all(person)
            time.sleep(2)
            left = self._left(people, watch)
        watch.finish()
        self.verdicts.judge(
            "nothing is left at the end", not left, "end", f"after {END:.0f} s: {'; '.join(left)}"
        )
        if self.strangers:
            self.world.torque("qdel", *self.strangers)
        self.world.restore()

    def _stop_all(self, person: Person) -> None:
        try:
            for name, server in person.servers().items():
                self.ledger.ask_stop((person.name, name))
                if server["pending"] != "stop":
                    (person.remove if name else person.stop)(name)
        except requests.RequestException as error:
            self.timeline.write("trouble", what="stop all", why=str(error)[:200])

    def _clear(self, people: list[Person]) -> None:
        """Begin with nothing, whatever an earlier run has left."""
        for person in people:
            self._stop_all(person)
        names = {person.name for person in people}
        jobs = [one.id for one in self.world.jobs().values() if one.live and one.owner in names]
        if jobs:
            self.world.torque("qdel", *jobs, timeout=60)
        for node in NODES:
            for account in self.world.accounts:
                self.world.run(node, "sh", "-c", f"pkill -KILL -u {account.name}; true")

    def _left(self, people: list[Person], watch: Watch) -> list[str]:
        """Jobs, processes, routes and servers that there still are."""
        try:
            jobs = watch.ours(self.world.jobs())
            processes = [one for node in NODES for one in self.world.processes(node)]
            routes = self.world.routes()
            servers = [f"{one.name}/{name}" for one in people for name in one.servers()]
        except (OutOfReachError, requests.RequestException) as error:
            return [f"not to be seen: {error}"]
        return [
            *(f"job {job.id} of {job.owner} ({job.state})" for job in jobs),
            *(
                f"process {one.pid} of {one.owner} on {one.node}: {one.command}"
                for one in processes
            ),
            *(f"route {route}" for route in routes),
            *(f"server {server}" for server in servers),
        ]

    def _submit_strangers(self) -> list[str]:
        """Jobs that this hub did not make: a researcher's own, and one of another hub's."""
        owner = self.world.accounts[0].name
        logs = f"{self.world.home(owner)}/.ganymede/logs"
        scripts = [
            "#PBS -N own-work\nsleep 10\n",
            f"#PBS -N {JOB_NAME}\n#PBS -o {logs}/ganymede-00000000-0123456789abcdef.out\nsleep 9\n",
        ]
        return [
            self.world.run(
                HUB, "runuser", "-u", owner, "--", f"{TORQUE}/bin/qsub", "-h", stdin=script
            ).strip()
            for script in scripts
        ]

    def _elapsed(self) -> str:
        seconds = round(time.monotonic() - self.begun)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"

    # --- what came of it -----------------------------------------------------------------

    def summary(self) -> str:
        """The run in figures, for people."""
        lines = [
            f"{self.injector.injected} faults, seed {self.seed}, {self._elapsed().strip()} min,"
            f" timeline in {self.timeline.file}"
        ]
        for group in ("faults", "lives", "starts", "waits", "stops", "ends"):
            counts = [(n, name) for (g, name), n in self.timeline.counts.items() if g == group]
            lines.append(f"\n{group}: {sum(n for n, _ in counts)}")
            lines += [f"  {n:5d}  {name}" for n, name in sorted(counts, reverse=True)]
        lines.append("\ninvariants: how often checked, how often violated")
        for name in INVARIANTS:
            violated = sum(one.invariant == name for one in self.verdicts.violations)
            lines.append(f"  {self.verdicts.checked[name]:6d}  {violated:3d}  {name}")
        for one in self.verdicts.violations:
            lines.append(f"\nVIOLATION of “{one.invariant}”: {one.text}")
            lines += [f"    {line}" for line in one.excerpt]
        return "\n".join(lines)

    def write_junit(self, file: Path) -> None:
        """One test case for each invariant; one that was never checked has failed."""
        suite = ET.Element("testsuite", name="chaos", tests=str(len(INVARIANTS)))
        failures = 0
        for name in INVARIANTS:
            case = ET.SubElement(suite, "testcase", classname="chaos", name=name)
            texts = [one.text for one in self.verdicts.violations if one.invariant == name]
            if not self.verdicts.checked[name]:
                texts.append("never checked")
            if texts:
                failures += 1
                ET.SubElement(case, "failure", message=texts[0]).text = "\n".join(texts)
        suite.set("failures", str(failures))
        file.parent.mkdir(parents=True, exist_ok=True)
        ET.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)


def say(line: str) -> None:
    """Progress, for the one who waits."""
    print(line, flush=True)


def main() -> int:
    """Run what the command line asks for; 1 when an invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--cluster", type=Path, required=True, help="scripts/demo status --json")
    parser.add_argument("--faults", type=int, default=100, help="(default: 100)")
    parser.add_argument("--seed", help="default: one is drawn and printed")
    parser.add_argument("--lives", type=int, default=8, help="at once (default and most: 8)")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts/chaos"))
    parser.add_argument("--junitxml", type=Path, help="the invariants as test cases")
    asked = parser.parse_args()
    seed = asked.seed or f"{random.SystemRandom().getrandbits(32):08x}"
    say(f"{asked.faults} faults, seed {seed}")
    run = Run(World(asked.cluster), seed, asked.lives, asked.artifacts)
    try:
        run.go(asked.faults)
    finally:
        summary = run.summary()
        (asked.artifacts / "summary.txt").write_text(summary + "\n")
        if asked.junitxml:
            run.write_junit(asked.junitxml)
    say(summary)
    return 1 if run.verdicts.violations else 0


if __name__ == "__main__":
    sys.exit(main())
