# SPDX-License-Identifier: BSD-3-Clause
"""The module conda_environments over the tiny channel: what is on disk after builds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.conda.environments import Demo, state


def test_a_version_is_built_for_everybody_to_read(demo: Demo) -> None:
    os.umask(0o077)
    try:
        answer = demo.build("tool=1.0", check=["tool"])
    finally:
        os.umask(0o022)
    (environment,) = answer["environments"]
    prefix = demo.folder / environment["version"]
    assert answer["changed"]
    assert environment["pending"]
    assert (prefix / "bin" / "tool").stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (demo.folder, prefix)} == {0o755}
    assert demo.names() == {prefix.name}
    (mark,) = prefix.glob("specification-*.json")
    written = json.loads(mark.read_text())
    assert written["conda"] == ["tool=1.0"]
    assert written["packages"] == ["tool-1.0-0"]
    assert written["size"] > 0
    (line,) = answer["report"]
    assert line.startswith(f"{prefix.name} built in ")
    assert line.endswith(" MB")


def test_what_is_in_service_is_not_touched(served: Demo) -> None:
    before = state(served.folder)
    answer = served.build("tool=1.0")
    assert not answer["changed"]
    assert not answer["environments"][0]["pending"]
    assert answer["report"] == answer["diff"] == []
    assert state(served.folder) == before


def test_a_dry_run_writes_nothing(demo: Demo) -> None:
    answer = demo.build("tool=1.0", _ansible_check_mode=True)
    assert answer["changed"]
    assert "conda: tool=1.0" in answer["diff"][0]["after"]
    assert not demo.folder.parent.exists()
    assert not (demo.work / "builds").exists()


def test_a_new_version_is_built_beside(served: Demo) -> None:
    preview = served.build("tool=2.0", _ansible_check_mode=True)
    assert "conda: tool=1.0" in preview["diff"][0]["before"]
    assert "conda: tool=2.0" in preview["diff"][0]["after"]
    answer = served.build("tool=2.0")
    assert served.tool() == "tool 1.0"
    served.switch(answer["environments"][0]["version"])
    assert served.tool() == "tool 2.0"


def test_a_version_that_is_there_is_not_built_again(served: Demo) -> None:
    served.serve("tool=2.0")
    before = state(served.folder)
    answer = served.build("tool=1.0")
    assert not answer["changed"]
    assert answer["environments"][0]["pending"]
    assert state(served.folder) == before


@pytest.mark.parametrize(
    ("specs", "check", "reason"),
    [
        (["failing"], "failing", "the check failed with status 3"),
        (["tool=2.0"], "nosuchcommand", "the check failed with status 127"),
        (["tool=9"], "tool", "Could not solve for environment specs"),
        (["tool", "spoilt"], "tool", "SHA256 doesn't match expectation"),
    ],
)
def test_a_failed_build_leaves_the_old_version_and_no_debris(
    served: Demo, specs: list[str], check: str, reason: str
) -> None:
    before = state(served.folder)
    failed = served.build(*specs, check=[check])
    assert failed["failed"]
    assert failed["msg"].startswith("Environment demo: ")
    assert reason in failed["msg"]
    assert failed["msg"].endswith("stays in service.")
    assert set(state(served.folder)) == set(before)
    assert served.tool() == "tool 1.0"


def test_a_missing_micromamba_is_said(demo: Demo) -> None:
    demo.options["micromamba"] = "/nonexistent/micromamba"
    failed = demo.build("tool")
    assert "micromamba could not be started" in failed["msg"]
    assert "None is in service." in failed["msg"]


def test_what_a_killed_build_left_is_removed_by_the_next_run(served: Demo) -> None:
    before = served.names()
    command = served.command("tool=2.0", check=["sleep 60"])
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as build:
        deadline = time.monotonic() + 30
        while len(list(served.folder.glob("demo-*/conda-meta/history"))) < 2:
            assert time.monotonic() < deadline, "the build did not get to its check"
            time.sleep(0.05)
        os.killpg(build.pid, signal.SIGKILL)
    assert len(served.names() - before) == 1
    assert served.tool() == "tool 1.0"
    assert served.build("tool=1.0")["changed"]
    assert served.names() == before


def test_an_explicit_lock_is_built_with_its_hashes(demo: Demo, channel: Path) -> None:
    package = channel / "noarch" / "tool-1.0-0.conda"
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    wrong = demo.build(explicit=[f"file://{package}#{'0' * 64}"])
    assert "SHA256 doesn't match expectation" in wrong["msg"]
    demo.serve(explicit=[f"file://{package}#{digest}"])
    assert demo.tool() == "tool 1.0"


def test_the_cache_lies_beside_environments_on_another_file_system(
    demo: Demo, other_file_system: Path
) -> None:
    demo.options["cache_root"] = str(other_file_system)
    assert demo.build("tool")["changed"]
    assert (demo.work / "pkgs").is_dir()
    assert not (other_file_system / "pkgs").exists()


@pytest.fixture
def other_file_system() -> Iterator[Path]:
    """A folder on another file system than that of the tests."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)
