# SPDX-License-Identifier: BSD-3-Clause
"""scripts/test after the bootstrap: lint, unit tests, Molecule, and one sum at the end."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
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
# Folders that hold nothing of ours.
HIDDEN = {".git", "artifacts", *CACHES}
# A step of Molecule that has ended, as it says it: "INFO  default ➜ converge: Executed: Successful"
STEP = re.compile(r"(\w+) ➜ (\w+): Executed: (\w+)")
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


def lint() -> Tally:
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


def unit() -> Tally:
    """The tests of the Python, without a container.

    Most of them wait for processes, so several files run at once. Those of the mock Torque share
    test accounts and kill what these still run: one after another, and by themselves.
    """
    at_once = ["--ignore=tests/unit/torque", "--numprocesses=4", "--dist=loadfile"]
    tally = _unit("unit", "tests/unit", *at_once)
    tally.add(_unit("unit-torque", "tests/unit/torque"))
    return tally


def _unit(name: str, *arguments: str) -> Tally:
    report = JUNIT / f"{name}.xml"
    command = ["python", "-m", "pytest", *arguments, f"--junitxml={report}"]
    return _pytest(name, command, report, timeout=1200)


def scenario(name: str, report: str) -> Tally:
    """One Molecule scenario; the tests of its verify step are counted from `report`.

    Its containers go in any case, and before that their journals are kept if anything failed.
    """
    junit = JUNIT / report
    junit.unlink(missing_ok=True)
    tally = Tally()

    def count(line: str) -> None:
        step = STEP.search(COLOUR.sub("", line))
        if step and step[2] not in {"verify", "destroy"}:
            tally.count(passed=step[3] == "Successful")
            clear()
            print(f"    {step[2]:<14} {step[3].lower()}")
        else:
            say(f"    {COLOUR.sub('', line).strip()}")

    molecule = [str(environment.folder() / "bin" / "molecule")]
    variables = environment.variables(COLUMNS="200", GANYMEDE_PORT="")
    test = [*molecule, "test", f"--scenario-name={name}", "--destroy=never", "--no-report"]
    try:
        failed = follow(test, LOGS / f"{name}.log", variables, timeout=3600, on_line=count) != 0
        tests = _count(junit)
        tally.add(tests)
        if failed and not tally.failed:
            # A crash that no step and no test has told.
            tally.count(passed=False)
        if tally.failed:
            _keep_journals(name)
            print(f"    failed: see {LOGS / name}*.log")
    finally:
        destroy = [*molecule, "destroy", f"--scenario-name={name}"]
        gone = follow(destroy, LOGS / f"{name}-destroy.log", variables, timeout=600) == 0
        tally.count(passed=gone)
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


PARTS: dict[str, Callable[[], Tally]] = {
    "lint": lint,
    "unit": unit,
    "default": lambda: scenario("default", "default.xml"),
    "cluster": lambda: scenario("cluster", "walk.xml"),
}


def run(parts: list[str]) -> Tally:
    """Run `parts` one after the other and print the time of each."""
    if {"default", "cluster"} & set(parts):
        require_space(DISK_GB, "The test")
    if parts == list(PARTS):
        shutil.rmtree(ARTIFACTS, ignore_errors=True)
    print("  Python environment")
    environment.install("development")
    tally = Tally()
    for part in parts:
        print(f"  {part}")
        start = time.monotonic()
        result = PARTS[part]()
        tally.add(result)
        sums = f"{result.passed} passed, {result.failed} failed"
        print(f"  {part}: {sums}, {duration(time.monotonic() - start)}")
    return tally


def main() -> int:
    """Run what the command line names; the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, "all"], default="all")
    asked = parser.parse_args().part
    parts = list(PARTS) if "all" in asked else [part for part in PARTS if part in asked]
    start = time.monotonic()
    interrupt_on_termination()
    try:
        with only_one("test"):
            tally = run(parts)
    except PlainError as problem:
        clear()
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        clear()
        print("Interrupted: what was built for the test is taken away.", file=sys.stderr)
        return 130
    print(f"{duration(time.monotonic() - start)} in all; details in {ARTIFACTS}")
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
