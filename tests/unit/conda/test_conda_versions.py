# SPDX-License-Identifier: BSD-3-Clause
"""The module conda_environment over the tiny channel: what is on disk after builds of all kinds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

MODULE = (
    Path(__file__).resolve().parents[3]
    / "roles"
    / "conda_root"
    / "library"
    / "conda_environment.py"
)


class Environment:
    """One environment below a folder; a test switches its link as the role does."""

    def __init__(self, folder: Path, channel: Path, micromamba: Path) -> None:
        self.work = folder
        self.folder = folder / "envs" / "demo"
        self.options: dict[str, Any] = {
            "name": "demo",
            "root": str(folder / "envs"),
            "channels": [f"file://{channel}"],
            "micromamba": str(micromamba),
            "cache_root": str(folder),
        }

    def command(self, specs: tuple[str, ...], **options: Any) -> list[str]:
        arguments = {**self.options, "conda": list(specs), "_ansible_diff": True, **options}
        file = self.work / "arguments.json"
        file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        return [sys.executable, str(MODULE), str(file)]

    def build(self, *specs: str, **options: Any) -> dict[str, Any]:
        """Run the module."""
        done = subprocess.run(
            self.command(specs, **options), capture_output=True, text=True, timeout=60, check=False
        )
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def switch(self, answer: dict[str, Any]) -> None:
        """Put the version that the module answered with into service."""
        link = self.folder / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(answer["prefix"]).name)

    def names(self) -> set[str]:
        """What is in the environment's folder."""
        return {path.name for path in self.folder.iterdir()}

    def tool(self) -> str:
        """What the command of the version in service says."""
        command = [self.folder / "current" / "bin" / "tool"]
        return subprocess.check_output(command, text=True, timeout=10).strip()


@pytest.fixture
def demo(tmp_path: Path, channel: Path, stand_in: Path) -> Environment:
    """An environment that has no version yet."""
    return Environment(tmp_path, channel, stand_in)


@pytest.fixture
def served(demo: Environment) -> Environment:
    """The same with tool 1.0 in service."""
    demo.switch(demo.build("tool=1.0"))
    return demo


def state(folder: Path) -> dict[str, float]:
    """Every path below the folder with the time of its last change."""
    return {str(path): path.lstat().st_ctime for path in folder.rglob("*")}


def test_a_version_is_built_for_everybody_to_read(demo: Environment) -> None:
    os.umask(0o077)
    try:
        answer = demo.build("tool=1.0", check=["tool"])
    finally:
        os.umask(0o022)
    prefix = Path(answer["prefix"])
    assert answer["changed"]
    assert answer["pending"]
    assert (prefix / "bin" / "tool").stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (demo.folder, prefix)} == {0o755}
    assert demo.names() == {prefix.name, f"{prefix.name}.json"}
    written = json.loads((demo.folder / f"{prefix.name}.json").read_text())
    assert written["conda"] == ["tool=1.0"]


def test_what_is_in_service_is_not_touched(served: Environment) -> None:
    before = state(served.folder)
    answer = served.build("tool=1.0")
    assert not answer["changed"]
    assert not answer["pending"]
    assert state(served.folder) == before


def test_a_dry_run_writes_nothing(demo: Environment) -> None:
    answer = demo.build("tool=1.0", _ansible_check_mode=True)
    assert answer["changed"]
    assert "conda: tool=1.0" in answer["diff"]["after"]
    assert not demo.folder.parent.exists()


def test_a_new_version_is_built_beside(served: Environment) -> None:
    preview = served.build("tool=2.0", _ansible_check_mode=True)
    assert "conda: tool=1.0" in preview["diff"]["before"]
    assert "conda: tool=2.0" in preview["diff"]["after"]
    answer = served.build("tool=2.0")
    assert served.tool() == "tool 1.0"
    served.switch(answer)
    assert served.tool() == "tool 2.0"


def test_a_version_that_is_there_is_not_built_again(served: Environment) -> None:
    served.switch(served.build("tool=2.0"))
    before = state(served.folder)
    answer = served.build("tool=1.0")
    assert not answer["changed"]
    assert answer["pending"]
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
    served: Environment, specs: list[str], check: str, reason: str
) -> None:
    before = state(served.folder)
    failed = served.build(*specs, check=[check])
    assert failed["failed"]
    assert failed["msg"].startswith("Environment demo: ")
    assert reason in failed["msg"]
    assert failed["msg"].endswith("stays in service.")
    assert set(state(served.folder)) == set(before)
    assert served.tool() == "tool 1.0"


def test_a_missing_micromamba_is_said(demo: Environment) -> None:
    demo.options["micromamba"] = "/nonexistent/micromamba"
    failed = demo.build("tool")
    assert "micromamba could not be started" in failed["msg"]
    assert "None is in service." in failed["msg"]


def test_what_a_killed_build_left_is_removed_by_the_next_run(served: Environment) -> None:
    before = served.names()
    command = served.command(("tool=2.0",), check=["sleep 60"])
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


def test_an_explicit_lock_is_built_with_its_hashes(demo: Environment, channel: Path) -> None:
    package = channel / "noarch" / "tool-1.0-0.conda"
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    wrong = demo.build(explicit=[f"file://{package}#{'0' * 64}"])
    assert "SHA256 doesn't match expectation" in wrong["msg"]
    demo.switch(demo.build(explicit=[f"file://{package}#{digest}"]))
    assert demo.tool() == "tool 1.0"


def test_the_cache_lies_beside_environments_on_another_file_system(
    demo: Environment, channel: Path
) -> None:
    demo.options["cache_root"] = "/dev/shm"  # noqa: S108 - only asked for its file system
    assert demo.build("tool")["changed"]
    assert (demo.work / "pkgs").is_dir()
    assert not Path("/dev/shm/pkgs").exists()  # noqa: S108
