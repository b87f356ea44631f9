# SPDX-License-Identifier: BSD-3-Clause
"""scripts/test after the bootstrap: lint, unit tests, Molecule, chaos, and one sum at the end."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import environment
from cluster import Cluster
from machine import (
    CACHES,
    REPOSITORY,
    PlainError,
    clear,
    duration,
    follow,
    interrupt_on_termination,
    only_one,
    require_space,
    say,
)

ARTIFACTS = REPOSITORY / "artifacts"
LOGS = ARTIFACTS / "log"
JUNIT = ARTIFACTS / "junit"
DISK_GB = 12
# Files of tests at once, more than there are cores: they wait for processes most of the time.
ALONE = 6
# The same beside scenarios, which need a core.
BESIDE = 2
# Folders that hold nothing of ours.
HIDDEN = {".git", "artifacts", *CACHES}
# A step of Molecule that has ended, as it says it: "INFO  default ➜ converge: Executed: Successful"
STEP = re.compile(r"(\w+) ➜ (\w+): Executed: (\w+)")
# The last line of a run.
SUM = re.compile(r"(\d+) passed, (\d+) failed")
LISTEN = 0.5  # seconds between two looks at what a lane says
PATIENCE = 300  # seconds in which a lane takes its containers away
# Colours of a terminal.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Tally:
    """How many checks passed and failed."""

    passed: int = 0
    failed: int = 0

    def add(self, other: Tally) -> None:
        """Count another tally in."""
        self.passed += other.passed
        self.failed += other.failed

    def count(self, *, passed: bool) -> None:
        """Count one check."""
        self.add(Tally(passed=1) if passed else Tally(failed=1))


def shell_scripts() -> list[str]:
    """The shell scripts of the repository: by name, or by their first line."""
    files = sorted(file for file in REPOSITORY.rglob("*") if not HIDDEN.intersection(file.parts))
    return [str(file.relative_to(REPOSITORY)) for file in files if _is_shell(file)]


def _is_shell(file: Path) -> bool:
    # A template is no shell script until it is rendered.
    if not file.is_file() or file.is_symlink() or file.suffix == ".j2":
        return False
    with file.open("rb") as start:
        return file.suffix == ".sh" or re.match(rb"#!.*\b(ba)?sh\b", start.readline()) is not None


def lint(_: int) -> Tally:
    """Every linter over everything."""
    tools = {
        "yamllint": ["yamllint", "--strict", "."],
        "ansible-lint": ["ansible-lint"],
        "ruff": ["ruff", "check", "."],
        "ruff-format": ["ruff", "format", "--check", "."],
        "mypy": ["mypy"],
        "shellcheck": ["shellcheck", "--external-sources", *shell_scripts()],
    }
    tally = Tally()
    for name, command in tools.items():
        tally.count(passed=_step(name, command, timeout=900))
    return tally


def unit(workers: int) -> Tally:
    """The tests of the Python, without a container, `workers` files at once.

    Those of the mock Torque share test accounts and kill what these still run: one after another,
    and by themselves.
    """
    at_once = ["--ignore=tests/unit/torque", *_at_once(workers)]
    # The longest files first, or one of them would run alone at the end.
    folders = [f"tests/unit/{name}" for name in ("benchmarks", "spawner", "pages")]
    tally = _unit("unit", *folders, "tests/unit", *at_once)
    tally.add(_unit("unit-torque", "tests/unit/torque"))
    return tally


def pitfalls(workers: int) -> Tally:
    """What hostile users and failing parts may do: a real hub in front of a small queue."""
    return _unit("pitfalls", "tests/pitfalls", *_at_once(workers))


def _at_once(workers: int) -> list[str]:
    return [f"--numprocesses={workers}", "--dist=loadfile"]


def _unit(name: str, *arguments: str) -> Tally:
    report = JUNIT / f"{name}.xml"
    command = ["python", "-m", "pytest", *arguments, f"--junitxml={report}"]
    return _pytest(name, command, report, timeout=2400)


def scenario(name: str, *reports: str) -> Tally:
    """One Molecule scenario; the tests of its verify step are counted from `reports`.

    Its containers go in any case, and before that their journals are kept if anything failed.
    It begins with none: those of a run that was cut off would be taken for this one's.
    """
    files = [JUNIT / report for report in reports]
    for file in files:
        file.unlink(missing_ok=True)
    tally = Tally()

    def count(line: str) -> None:
        step = STEP.search(COLOUR.sub("", line))
        if step and step[2] not in {"verify", "destroy"}:
            tally.count(passed=step[3] == "Successful")
            clear()
            print(f"    {step[2]:<14} {step[3].lower()}")
        else:
            say(f"    {COLOUR.sub('', line).strip()}")

    tally.count(passed=_molecule(name, "destroy"))
    try:
        # Molecule itself would destroy before the journals are kept.
        failed = not _molecule(name, "test", "--destroy=never", "--no-report", on_line=count)
        for file in files:
            tally.add(_count(file))
        if failed and not tally.failed:
            # A crash that no step and no test has told.
            tally.count(passed=False)
        if tally.failed:
            _keep_journals(name)
            print(f"    failed: see {LOGS / name}*.log")
    finally:
        tally.count(passed=_molecule(name, "destroy"))
    return tally


def _molecule(
    name: str, verb: str, *flags: str, on_line: Callable[[str], None] = lambda line: None
) -> bool:
    """Let Molecule do something with a scenario; whether it worked."""
    command = [str(environment.folder() / "bin" / "molecule"), verb, f"--scenario-name={name}"]
    log = LOGS / (f"{name}.log" if verb == "test" else f"{name}-{verb}.log")
    variables = environment.variables(COLUMNS="200", GANYMEDE_PORT="")
    return follow([*command, *flags], log, variables, timeout=3600, on_line=on_line) == 0


def chaos(faults: int, seed: str | None) -> Tally:
    """Lives and faults at the cluster of the scenario `cluster`; each invariant is one check.

    A cluster that is there is used as it is converged, and stays; one made for this goes.
    """
    found = bool(Cluster("cluster").hosts())
    if not found:
        # Molecule may remember a cluster that was taken away without it.
        _molecule("cluster", "destroy")
    tally = Tally()
    try:
        say("    converge …")
        made = _molecule("cluster", "converge")
        clear()
        tally.count(passed=made)
        print(f"    {'converge':<14} {'successful' if made else 'failed'}")
        if made:
            tally.add(_chaos(faults, seed))
        if tally.failed:
            _keep_journals("cluster")
            print(f"    failed: see {ARTIFACTS / 'chaos'} and {LOGS / 'cluster'}*.log")
    finally:
        if not found:
            tally.count(passed=_molecule("cluster", "destroy"))
    return tally


def _chaos(faults: int, seed: str | None) -> Tally:
    """Run the driver with its progress on the screen and count its invariants."""
    report = JUNIT / "chaos.xml"
    report.unlink(missing_ok=True)
    command = [
        str(environment.folder() / "bin" / "python"),
        *["-m", "tests.chaos", f"--faults={faults}", f"--artifacts={ARTIFACTS / 'chaos'}"],
        f"--junitxml={report}",
        *([f"--seed={seed}"] if seed else []),
    ]
    # Passwords are in it: a file that only this user can read, for as long as the run lasts.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as description:
        json.dump(Cluster("cluster").status(), description)
        description.flush()
        command.append(f"--cluster={description.name}")
        # A storm takes about 3 s for each fault; the rest is for the calms and the end.
        patience = 1800 + 4 * faults
        log = LOGS / "chaos.log"
        passed = follow(command, log, environment.variables(), patience, on_line=print) == 0
    tally = _count(report)
    if not passed and not tally.failed:
        tally.count(passed=False)
    return tally


def _keep_journals(name: str) -> None:
    for host in Cluster(name).hosts().values():
        if host.running:
            journal = host.run("journalctl", "--no-pager", "--output=short-precise", timeout=60)
            (LOGS / f"{name}-{host.name}.log").write_text(journal.stdout)


def _step(name: str, command: list[str], timeout: float) -> bool:
    """Run one check with its words in a log; whether it passed."""
    start = time.monotonic()
    log = LOGS / f"{name}.log"
    program = str(environment.folder() / "bin" / command[0])
    say(f"    {name} …")
    passed = follow([program, *command[1:]], log, environment.variables(), timeout) == 0
    clear()
    result = "passed" if passed else "failed"
    print(f"    {name:<14} {result}   {duration(time.monotonic() - start)}")
    if not passed:
        print(log.read_text(errors="replace"))
    return passed


def _pytest(name: str, command: list[str], report: Path, timeout: float) -> Tally:
    report.unlink(missing_ok=True)
    passed = _step(name, command, timeout)
    tally = _count(report)
    if not passed and not tally.failed:
        tally.count(passed=False)
    return tally


def _count(report: Path) -> Tally:
    """Sum a junit report. A skipped test has proved nothing and counts as failed."""
    tally = Tally()
    if report.exists():
        for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - our own file
            tests, failures, errors, skipped = (
                int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")
            )
            failed = failures + errors + skipped
            tally.add(Tally(passed=tests - failed, failed=failed))
    return tally


Part = Callable[[int], Tally]
"""Takes how many files of tests may run at once."""

PARTS: dict[str, Part] = {
    "lint": lint,
    "unit": unit,
    "pitfalls": pitfalls,
    "default": lambda _: scenario("default", "default.xml"),
    "cluster": lambda _: scenario("cluster", "walk.xml", "pitfalls-cluster.xml", "chaos.xml"),
}


SCENARIOS = ("default", "cluster")
"""Parts that wait for containers most of the time, and leave the processors to others."""


def run(parts: dict[str, Part], lock: int) -> Tally:
    """Run `parts`: the scenarios beside the others, when there are both.

    `lock` is the descriptor of the lock that keeps a second run away.
    """
    if {*SCENARIOS, "chaos"} & set(parts):
        require_space(DISK_GB, "The test")
    if list(parts) == list(PARTS):
        shutil.rmtree(ARTIFACTS, ignore_errors=True)
    print("  Python environment")
    environment.install("development")
    scenarios = [part for part in parts if part in SCENARIOS]
    others = {part: check for part, check in parts.items() if part not in SCENARIOS}
    if not scenarios or not others or "chaos" in others:
        return one_after_the_other(parts, ALONE)
    with beside(scenarios, lock) as lane:
        tally = one_after_the_other(others, BESIDE)
        tally.add(lane.finish())
    return tally


def one_after_the_other(parts: dict[str, Part], workers: int) -> Tally:
    """Run `parts` and print the time of each."""
    tally = Tally()
    for part, check in parts.items():
        print(f"  {part}", flush=True)
        start = time.monotonic()
        result = check(workers)
        tally.add(result)
        sums = f"{result.passed} passed, {result.failed} failed"
        print(f"  {part}: {sums}, {duration(time.monotonic() - start)}", flush=True)
    return tally


class Lane:
    """Scenarios in a process of their own; what they say is kept until somebody listens."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def finish(self) -> Tally:
        """Print what was said so far and from now on; how many checks passed and failed."""
        found = None
        with self._log.open() as said:
            ended = False
            while not ended:
                ended = self._process.poll() is not None
                for line in said:
                    if last := SUM.fullmatch(line.strip()):
                        found = last
                    else:
                        print(line, end="", flush=True)
                time.sleep(LISTEN)
        tally = Tally(int(found[1]), int(found[2])) if found else Tally()
        if self._process.returncode and not tally.failed:
            tally.failed = 1
        return tally

    def end(self) -> None:
        """Let it take its containers away."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise PlainError(
                f"The scenarios did not end within {PATIENCE} s: their containers may be left. "
                "The next run of the same scenarios takes them away."
            ) from None


@contextmanager
def beside(scenarios: list[str], lock: int) -> Iterator[Lane]:
    """Run scenarios while the caller does something else; they hold its `lock`, too."""
    log = LOGS / "scenarios.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"  {' and '.join(scenarios)} run beside the others: {log}")
    command = [sys.executable, "-u", __file__, *scenarios, "--beside"]
    with log.open("w") as out:
        # A session of its own: Ctrl-C reaches it through `end`, once.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=[lock],
        )
    lane = Lane(process, log)
    try:
        yield lane
    finally:
        lane.end()


def asked() -> tuple[dict[str, Part], bool]:
    """The parts that the command line names, and whether this is the lane beside another run.

    A long `chaos` is none of `all`.
    """
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, "chaos", "all"], default="all")
    parser.add_argument("--faults", type=int, default=100, help="of chaos (default: 100)")
    parser.add_argument("--seed", help="of chaos: the same faults again")
    parser.add_argument("--beside", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    parts = {part: run for part, run in PARTS.items() if "all" in words.part or part in words.part}
    if "chaos" in words.part:
        parts["chaos"] = lambda _: chaos(words.faults, words.seed)
    return parts, words.beside


def main() -> int:
    """Run what the command line names; the exit status."""
    parts, is_lane = asked()
    start = time.monotonic()
    interrupt_on_termination()
    try:
        if is_lane:  # the lock is held by the run beside it
            tally = one_after_the_other(parts, BESIDE)
        else:
            with only_one("test") as lock:
                tally = run(parts, lock)
            print(f"{duration(time.monotonic() - start)} in all; details in {ARTIFACTS}")
    except PlainError as problem:
        clear()
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        clear()
        print("Interrupted: what was built for the test is taken away.", file=sys.stderr)
        return 130
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
