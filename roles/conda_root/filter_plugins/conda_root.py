# SPDX-License-Identifier: BSD-3-Clause
"""From the table of environments to what is built; locks, and how they differ.

A lock freezes the conda packages of one environment: <locks>/<name>.lock, an @EXPLICIT file with
the sha256 of each package, whose header carries the hash of the specification that was solved.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

HASH_LENGTH = 12
HEADER = re.compile(r"^# specification: ([0-9a-f]+)$", re.MULTILINE)
LONGEST = 16
"""More parts than any version has: all keys get the same length."""
PACKAGE = re.compile(r"^(?P<name>.+)-(?P<version>[^-]+)-(?P<build>[^-]+)\.(conda|tar\.bz2)$")

Row = dict[str, Any]
Version = tuple[Any, ...]


def addresses(text: str) -> list[str] | None:
    """The addresses of an @EXPLICIT file; None when the text is not one."""
    lines = [line.strip() for line in text.splitlines()]
    if "@EXPLICIT" not in lines:
        return None
    return [line for line in lines if line and line[0] not in "#@"]


def resolve(row: Row, repository: str, mirrors: list[str]) -> Row:
    """What a row of the table asks for, read from its files; `frozen` when they are a lock.

    A site's mirrors replace the channels of all files.
    """
    file = row.get("conda_file", "")
    text = (Path(repository) / file).read_text(encoding="utf-8") if file else ""
    explicit = addresses(text)
    document = yaml.safe_load(text) if file and explicit is None else {}
    own = [name for name in document.get("channels", ["conda-forge"]) if name != "nodefaults"]
    lock = row.get("python_lock")
    return {
        "name": row["name"],
        "root": row["root"],
        "conda": list(row.get("conda", document.get("dependencies", []))),
        "explicit": explicit or [],
        "channels": list(mirrors or own),
        "python_lock": (Path(repository) / lock).read_text(encoding="utf-8") if lock else "",
        "check": list(row.get("check", [])),
        "frozen": explicit is not None,
    }


def solved_hash(row: Row) -> str:
    """The hash of what a solver was asked: comments and the order of packages do not count."""
    asked = {"channels": row["channels"], "conda": sorted(row["conda"])}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:HASH_LENGTH]


def lock_path(name: str, repository: str, locks: str) -> Path:
    """Where the lock of an environment is."""
    return Path(repository) / locks / f"{name}.lock"


def lock_state(row: Row, repository: str, locks: str) -> str:
    """Of the lock that belongs to a resolved row: "none", "valid", or "stale" (the row changed)."""
    path = lock_path(row["name"], repository, locks)
    if row["frozen"] or not path.is_file():
        return "none"
    header = HEADER.search(path.read_text(encoding="utf-8"))
    return "valid" if header and header[1] == solved_hash(row) else "stale"


def specifications(rows: list[Row], repository: str, mirrors: list[str], locks: str) -> list[Row]:
    """What the module builds: each environment from its lock where that is valid."""
    built = []
    for row in rows:
        resolved = resolve(row, repository, mirrors)
        if lock_state(resolved, repository, locks) == "valid":
            text = lock_path(row["name"], repository, locks).read_text(encoding="utf-8")
            resolved.update(explicit=addresses(text), conda=[])
        del resolved["frozen"]
        built.append(resolved)
    return built


def stale_locks(rows: list[Row], repository: str, mirrors: list[str], locks: str) -> list[str]:
    """A sentence for each lock that is older than what it was made from."""
    return [
        f"{locks}/{row['name']}.lock was made from another specification of {row['name']} "
        f"({row.get('conda_file', 'its row in the table')}, or the channels) and is not used: "
        "the packages are solved anew. When the result is good, playbooks/lock.yml freezes it."
        for row in rows
        if lock_state(resolve(row, repository, mirrors), repository, locks) == "stale"
    ]


def lockable(rows: list[Row], repository: str, mirrors: list[str]) -> list[Row]:
    """The resolved rows whose packages a solver chooses: those that a lock can freeze."""
    resolved = [resolve(row, repository, mirrors) for row in rows]
    return [row for row in resolved if not row["frozen"]]


def lock_text(row: Row, packages: list[dict[str, str]]) -> str:
    """The lock of an environment that holds these packages.

    Raises:
        AnsibleFilterError: micromamba does not know the hash of one of them.
    """
    unknown = [package["name"] for package in packages if not package["sha256"]]
    if unknown:
        raise AnsibleFilterError(
            f"Environment {row['name']}: no sha256 is known of {', '.join(sorted(unknown))}. "
            "Nothing was written. Build the environment again from a channel that has hashes."
        )
    lines = sorted(f"{package['url']}#{package['sha256']}" for package in packages)
    header = [
        f"# The conda packages of {row['name']}. Written by playbooks/lock.yml.",
        f"# specification: {solved_hash(row)}",
        "@EXPLICIT",
    ]
    return "".join(line + "\n" for line in header + lines)


def locks(
    rows: list[Row], packages: dict[str, list[dict[str, str]]], repository: str, folder: str
) -> list[dict[str, str]]:
    """For each environment the path of its lock, what it says `before`, and what `after`."""
    found = []
    for row in rows:
        path = lock_path(row["name"], repository, folder)
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        after = lock_text(row, packages[row["name"]])
        found.append({"path": str(path), "before": before, "after": after})
    return found


def locked_versions(text: str) -> dict[str, tuple[str, str]]:
    """Version and build of each package in a lock."""
    found = {}
    for address in addresses(text) or []:
        parts = PACKAGE.match(address.partition("#")[0].rpartition("/")[2])
        if parts:
            found[parts["name"]] = (parts["version"], parts["build"])
    return found


def lock_difference(old: str, new: str) -> list[str]:
    """How one lock differs from another: upgrades, downgrades, additions, removals."""
    before, after = locked_versions(old), locked_versions(new)
    lines = []
    for name in sorted(before | after):
        if name not in before:
            lines.append(f"added       {name} {after[name][0]}")
        elif name not in after:
            lines.append(f"removed     {name} {before[name][0]}")
        elif before[name] != after[name]:
            lines.append(change(name, before[name], after[name]))
    return lines


def change(name: str, before: tuple[str, str], after: tuple[str, str]) -> str:
    """One package whose version or build is another."""
    old, new = version_key(before[0]), version_key(after[0])
    if old == new:
        return f"rebuilt     {name} {after[0]}: {before[1]} -> {after[1]}"
    kind = "upgraded  " if old < new else "downgraded"
    return f"{kind}  {name} {before[0]} -> {after[0]}"


def version_key(version: str) -> Version:
    """A key that sorts versions as conda does.

    EPOCH!VERSION+LOCAL; parts between . _ and -; in a part numbers and words take turns, beginning
    with a number. Of words, "dev" comes before all others and "post" after all numbers; a missing
    part counts as 0.
    """
    text = version.lower()
    epoch, _, rest = text.rpartition("!")
    public, _, local = rest.partition("+")
    return (int(epoch or 0), _parts(public), _parts(local))


def _parts(text: str) -> Version:
    # An underscore at the end is a word and separates nothing (openssl's old numbers).
    parts = re.split(r"[._-](?!$)", text) if text else []
    return _padded([_padded(_words(part), _word("0")) for part in parts], _padded([], _word("0")))


def _words(part: str) -> list[tuple[int, int, str]]:
    words = re.findall(r"\d+|\D+", part)
    return [_word(word) for word in ([] if part[:1].isdigit() else ["0"]) + words]


def _padded(keys: list[Any], filler: Any) -> Version:
    return (*keys, *[filler] * (LONGEST - len(keys)))


def _word(word: str) -> tuple[int, int, str]:
    if word.isdigit():
        return (2, int(word), "")
    return {"dev": (0, 0, ""), "post": (3, 0, "")}.get(word, (1, 0, word))


def columns(rows: list[Row], *names: str) -> list[Row]:
    """The rows with these keys and no others."""
    return [{name: row[name] for name in names} for row in rows]


class FilterModule:
    """The filters of the role."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names of the filters."""
        return {
            "conda_columns": columns,
            "conda_lock_difference": lock_difference,
            "conda_locks": locks,
            "conda_lockable": lockable,
            "conda_specifications": specifications,
            "conda_stale_locks": stale_locks,
        }
