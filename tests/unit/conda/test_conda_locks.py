# SPDX-License-Identifier: BSD-3-Clause
"""Locks: what they say, how they differ, and when nothing has to be built for one."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from rattler import Version

from tests.unit.conda.environments import ROLE, Demo, load_file, load_versions

VERSIONS = """
0.4 0.4.0 0.4.1.rc 0.4.1 0.5a1 0.5b3 0.5C1 0.5 0.9.6 0.960923 1.0 1.1dev1 1.1_ 1.1a1 1.1.0dev1
1.1.0 1.1.0.post1 1.1post1 1996.07.12 1!0.4.1 1!3.1.1.6 2!0.4.1 1.0+ubuntu1 1.0+2 2024a 2024.1 9e 9f
1.1.1w 3.0 2.0.0rc1 2.0.0 1.2.3.dev4 1.2.3 4.3.1_r4 0.20.2 1.21.6 20230802.1 1.1 1.1a 1.0.0.1 1.0.1
"""
CHANNEL = "https://example.org/linux-64"


@pytest.fixture(scope="module")
def filters() -> ModuleType:
    """The filters of the role."""
    return load_file(ROLE / "filter_plugins" / "conda_root.py")


def sign(first: Any, second: Any) -> int:
    return int(first > second) - int(first < second)


def test_versions_are_ordered_as_the_solver_orders_them(filters: ModuleType) -> None:
    for one, other in itertools.combinations(VERSIONS.split(), 2):
        ours = sign(filters.version_key(one), filters.version_key(other))
        assert ours == sign(Version(one), Version(other)), f"{one} and {other}"


def package(name: str, version: str, build: str = "0", **more: str) -> dict[str, str]:
    url = f"{CHANNEL}/{name}-{version}-{build}.conda"
    digest = hashlib.sha256(url.encode()).hexdigest()
    return {"name": name, "version": version, "build": build, "url": url, "sha256": digest, **more}


def row(**more: Any) -> dict[str, Any]:
    return {"name": "demo", "root": "/envs", "channels": ["conda-forge"], "conda": ["tool"], **more}


def test_a_lock_names_each_package_with_its_hash(filters: ModuleType) -> None:
    packages = [package("zlib", "1.3"), package("r-base", "4.3.1", "h1_2")]
    lines = filters.lock_text(row(), packages).splitlines()
    assert lines[1].startswith("# specification: ")
    assert lines[2] == "@EXPLICIT"
    assert lines[3:] == sorted(f"{item['url']}#{item['sha256']}" for item in packages)
    assert filters.lock_text(row(), packages[::-1]).splitlines() == lines


def test_a_package_without_a_hash_is_refused(filters: ModuleType) -> None:
    with pytest.raises(
        AnsibleFilterError, match=r"no sha256 is known of zlib.*Nothing was written"
    ):
        filters.lock_text(row(), [package("zlib", "1.3", sha256=""), package("tool", "1.0")])


def test_locks_differ_in_words(filters: ModuleType) -> None:
    old = [("kept", "1"), ("up", "1.9"), ("down", "2.0"), ("gone", "1"), ("again", "1", "h0")]
    new = [("kept", "1"), ("up", "1.10"), ("down", "2.0rc1"), ("fresh", "1"), ("again", "1", "h1")]
    texts = [filters.lock_text(row(), [package(*item) for item in items]) for items in (old, new)]
    assert filters.lock_difference(*texts) == [
        "rebuilt     again 1: h0 -> h1",
        "downgraded  down 2.0 -> 2.0rc1",
        "added       fresh 1",
        "removed     gone 1",
        "upgraded    up 1.9 -> 1.10",
    ]
    assert filters.lock_difference(texts[1], texts[1]) == []
    assert len(filters.lock_difference("", texts[0])) == 5


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "valid"),
        ({"conda": ["tool", "other"]}, "stale"),
        ({"channels": ["https://mirror"]}, "stale"),
        ({"frozen": True}, "none"),
        ({"name": "another"}, "none"),
    ],
)
def test_a_lock_counts_while_its_specification_is_the_same(
    filters: ModuleType, tmp_path: Path, change: dict[str, Any], state: str
) -> None:
    (tmp_path / "demo.lock").write_text(filters.lock_text(row(), [package("tool", "1")]))
    changed = {**row(), "frozen": False, **change}
    assert filters.lock_state(changed, str(tmp_path), ".") == state


def test_a_lock_without_a_header_is_stale(filters: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "demo.lock").write_text(f"@EXPLICIT\n{CHANNEL}/tool-1-0.conda#00\n")
    assert filters.lock_state(row(frozen=False), str(tmp_path), ".") == "stale"


@pytest.mark.parametrize("shape", [lambda rows: rows, lambda rows: {"packages": rows}])
def test_both_shapes_of_a_list_are_read(tmp_path: Path, shape: Callable[[Any], Any]) -> None:
    rows = [{**package("tool", "1"), "build_string": "0", "channel": "x"}]
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(shape(rows)))
    program = tmp_path / "micromamba"
    program.write_text(f"#!/bin/sh\ncat {answer}\n")
    program.chmod(0o755)
    assert load_versions().installed(str(program), tmp_path) == [package("tool", "1")]


@pytest.mark.parametrize("script", ["exit 1", "echo '{'", "echo '{}'", "echo '[{}]'"])
def test_a_list_that_makes_no_sense_is_an_error(tmp_path: Path, script: str) -> None:
    program = tmp_path / "micromamba"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    versions = load_versions()
    with pytest.raises(versions.VersionError, match="cannot list"):
        versions.installed(str(program), tmp_path)


def lines_of(demo: Demo) -> list[str]:
    """The lock of what is in service, by micromamba's own list."""
    command = [demo.options["micromamba"], "list", "--json", "-p", demo.folder / "current"]
    answer = json.loads(subprocess.check_output(command, timeout=60))
    return [f"{item['url']}#{item['sha256']}" for item in answer["packages"]]


def test_nothing_is_built_for_a_lock_of_what_is_in_service(served: Demo) -> None:
    version, lock = served.serving(), lines_of(served)
    preview = served.build(explicit=lock, _ansible_check_mode=True)
    assert not preview["changed"]
    assert len(list((served.folder / version).glob("specification-*"))) == 1
    answer = served.build(explicit=lock)
    assert not answer["changed"]
    assert not answer["environments"][0]["pending"]
    assert served.versions() == {version}
    assert len(list((served.folder / version).glob("specification-*"))) == 2
    assert not served.build("tool=1.0")["changed"], "the lock taken away again"


@pytest.mark.parametrize("other", ["hash", "package", "python"])
def test_a_lock_of_something_else_is_built(served: Demo, other: str) -> None:
    lock, options = lines_of(served), {}
    if other == "hash":
        lock = [lock[0][:-1] + ("0" if lock[0][-1] != "0" else "1")]
    elif other == "package":
        lock = [*lock, f"{served.channels[0]}/noarch/large-1.0-0.conda"]
    else:
        options["python_lock"] = "six==1 --hash=sha256:00"
    preview = served.build(explicit=lock, _ansible_check_mode=True, **options)
    assert preview["changed"]
    assert preview["environments"][0]["pending"]


def test_an_adopted_version_can_be_rolled_back_and_put_into_service_again(served: Demo) -> None:
    first = served.serving()
    second = served.serve("tool=2.0")
    lock = lines_of(served)
    assert served.serve(explicit=lock) == second
    served.switch()
    assert served.serving() == first
    assert served.serve(explicit=lock) == second, "found by its second mark"
