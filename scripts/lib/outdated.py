# SPDX-License-Identifier: BSD-3-Clause
"""scripts/outdated: the pins of the repository beside the newest releases.

Asked are the ordinary clients with their ordinary settings: pip, npm, and micromamba for the conda
channel. What no client can answer is said, and counts neither as new nor as old.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import environment
from machine import REPOSITORY, PlainError, clear, say

NEWEST, NEWER, NOBODY = 0, 1, 2
TIMEOUT = 120  # seconds for one question
AT_ONCE = 8
REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)
LOCKED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
# A package of an environment with what its version is held to: "python=3.11.*", "hdf5>=2".
SPEC = re.compile(r"^\s*- \"?([a-z0-9][a-z0-9._-]*?) ?([=<>][^\s\"#]*)\"?\s*(?:#.*)?$")
INLINE = re.compile(r"^\s*conda: \[(.*)\]", re.MULTILINE)
MICROMAMBA = re.compile(r"^conda_root_micromamba_version: (\S+?)-\d+$", re.MULTILINE)


@dataclass(frozen=True)
class Pin:
    """One pinned package; `newest` is empty while nobody has told it."""

    client: str
    name: str
    held: str
    file: str
    newest: str = ""

    @property
    def is_old(self) -> bool:
        """Whether there is a newest release and the pin keeps it out."""
        return bool(self.newest) and exceeds(self.newest, self.held)


def number(version: str) -> tuple[tuple[int, int, str], ...]:
    """A release in parts: numbers by value, words such as rc before numbers, post after the end."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    return tuple(
        (1, int(part), "") if part.isdigit() else (int(part == "post"), -1, part) for part in parts
    )


def order(version: str) -> tuple[tuple[int, int, str], ...]:
    """The same to compare with: a release comes after its candidates and before its corrections."""
    return (*number(version), (1, -1, ""))


def limit(part: str) -> tuple[str, str]:
    """Operator and release of one part of a pin."""
    operator, wanted = re.match(r"([=<>!]*)(.*)", part).groups()  # type: ignore[union-attr]
    return operator, wanted.partition("=")[0].removesuffix("*").removesuffix(".")


def allows(held: str, version: str) -> bool:
    """Whether a pin lets a release in: `1.2.3`, `=1.2`, `=1.2.*=build`, `>=2`, `<4.9`, `>=1,<3`."""
    for part in held.split(","):
        operator, wanted = limit(part)
        own, other = order(version), order(wanted)
        fits = {
            ">=": own >= other,
            ">": own > other,
            "<=": own <= other,
            "<": own < other,
            "=": own[: len(other) - 1] == other[:-1],
        }.get(operator, own == other)
        if not fits:
            return False
    return True


def exceeds(version: str, held: str) -> bool:
    """Whether a release is too high for a pin; one that is too low for it is not newer."""
    return any(
        order(version) >= order(limit(part)[1])
        for part in held.split(",")
        if not part.startswith(">") and not allows(part, version)
    )


def python_pins() -> Iterator[Pin]:
    """What the .in files ask for, as it is locked. The lock's other packages follow from these."""
    for file in sorted(REPOSITORY.glob("**/*.in")):
        lock = file.with_suffix(".txt")
        if not lock.is_file():
            continue
        locked = dict(LOCKED.findall(lock.read_text()))
        for written in REQUIREMENT.findall(file.read_text()):
            name = re.sub(r"[._-]+", "-", written).lower()
            if name in locked:
                yield Pin("pip", name, locked[name], relative(file))


def npm_pins() -> Iterator[Pin]:
    """The npm packages of the offline channel."""
    for file in sorted(REPOSITORY.glob("molecule/**/npm/package.json")):
        dependencies = json.loads(file.read_text())["dependencies"]
        yield from (Pin("npm", name, held, relative(file)) for name, held in dependencies.items())


def conda_pins() -> Iterator[Pin]:
    """The packages of the environments whose version is held, and micromamba."""
    for file in sorted((REPOSITORY / "environments").glob("*.yml")):
        for found in map(SPEC.match, file.read_text().splitlines()):
            if found:
                yield Pin("conda", found[1], found[2], relative(file))
    table = REPOSITORY / "group_vars/all/environments.yml"
    for row in INLINE.findall(table.read_text()):
        for spec in row.split(","):
            found = SPEC.match(f"- {spec.strip()}")
            if found:
                yield Pin("conda", found[1], found[2].rstrip('"'), relative(table))
    defaults = REPOSITORY / "roles/conda_root/defaults/main.yml"
    for version in MICROMAMBA.findall(defaults.read_text()):
        yield Pin("conda", "micromamba", version, relative(defaults))


def relative(file: Path) -> str:
    """A path as people know it."""
    return str(file.relative_to(REPOSITORY))


def answer(command: list[str]) -> str:
    """What a client says; nothing when it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def ask_pip(name: str) -> str:
    """The newest release that fits the control node's Python."""
    pip = [str(environment.folder() / "bin" / "python"), "-m", "pip", "index", "versions"]
    found = re.match(r"\S+ \((.+)\)", answer([*pip, "--disable-pip-version-check", name]))
    return found[1] if found else ""


def ask_npm(name: str) -> str:
    """The release that npm installs when none is named."""
    return answer(["npm", "view", name, "version"]).strip()


def ask_conda(name: str, channel: str) -> str:
    """The highest release in a channel."""
    command = ["micromamba", "search", "--no-rc", "--json", "--override-channels", "-c", channel]
    try:
        rows = json.loads(answer([*command, name]))["result"]["pkgs"]
        versions = {row["version"] for row in rows if row["name"] == name}
    except (ValueError, KeyError, TypeError):
        return ""
    return max(versions, key=order, default="")


def look_up(pins: list[Pin], channel: str) -> list[Pin]:
    """The pins with the newest release of each; each name is asked for once."""
    clients: dict[str, Callable[[str], str]] = {
        "pip": ask_pip,
        "npm": ask_npm,
        "conda": lambda name: ask_conda(name, channel),
    }
    asked = sorted({(pin.client, pin.name) for pin in pins})

    def ask(question: tuple[str, str]) -> str:
        say(f"  asking for {question[1]} …")
        return clients[question[0]](question[1])

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        newest = dict(zip(asked, pool.map(ask, asked), strict=True))
    clear()
    return [replace(pin, newest=newest[pin.client, pin.name]) for pin in pins]


def table(pins: list[Pin]) -> Iterator[str]:
    """The pins as lines with columns."""
    header = ("", "package", "here", "newest", "file")
    rows = [
        ("newer" if pin.is_old else "", pin.name, pin.held, pin.newest or "?", pin.file)
        for pin in pins
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def not_answered(pins: list[Pin], channel: str) -> Iterator[str]:
    """A sentence for each client that left questions open."""
    for client, what in (("pip", "pip"), ("npm", "npm"), ("conda", f"micromamba for {channel}")):
        mine = [pin for pin in pins if pin.client == client]
        silent = sorted({pin.name for pin in mine if not pin.newest})
        program = {"conda": "micromamba", "npm": "npm"}.get(client)
        if silent and program and not shutil.which(program):
            yield f"Not looked up, because {program} is not here: {', '.join(silent)}."
        elif silent:
            yield f"No answer from {what} about: {', '.join(silent)}."


def main() -> int:
    """Run what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/outdated",
        description="Which of the releases that the repository pins have newer ones.",
        epilog="Ends with 0 when none has, 1 when some have, 2 when nobody could be asked.",
    )
    parser.add_argument("--all", action="store_true", help="show every pin, not the old ones alone")
    parser.add_argument("--channel", default="conda-forge", help="for conda (default: conda-forge)")
    words = parser.parse_args()
    try:
        environment.install("control")
    except PlainError as problem:
        print(problem, file=sys.stderr)
        return NOBODY
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    found = dict.fromkeys([*python_pins(), *npm_pins(), *conda_pins()])
    pins = look_up(list(found), words.channel)
    old = [pin for pin in pins if pin.is_old]
    shown = pins if words.all else old
    if shown:
        print("\n".join(table(shown)))
    for sentence in not_answered(pins, words.channel):
        print(sentence)
    known = sum(bool(pin.newest) for pin in pins)
    print(f"{len(old)} of {known} pins that could be looked up have newer releases.")
    return NOBODY if not known else NEWER if old else NEWEST


if __name__ == "__main__":
    sys.exit(main())
