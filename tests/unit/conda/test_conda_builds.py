# SPDX-License-Identifier: BSD-3-Clause
"""Builds that meet each other, are killed, run out of disk, or have nothing to do."""

from __future__ import annotations

import builtins
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.conda.environments import (
    ROLE,
    Demo,
    load_file,
    load_versions,
    module_command,
    run_module,
)


@pytest.fixture
def versions() -> ModuleType:
    """What is told of versions on disk."""
    return load_versions()


def until(what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Build:
    """A build in the background that waits in its check until it is let go or killed."""

    def __init__(self, demo: Demo, *specs: str) -> None:
        self.started, self.gate = demo.work / "started", demo.work / "gate"
        check = f"sh -c 'touch {self.started}; while [ ! -e {self.gate} ]; do sleep 0.05; done'"
        self.process = subprocess.Popen(
            demo.command(*specs, check=[check]),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        until("the build gets to its check", self.started.exists)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=10)

    def finish(self) -> dict[str, Any]:
        self.gate.touch()
        answer: dict[str, Any] = json.loads(self.process.communicate(timeout=60)[0])
        return answer


def test_nothing_changed_costs_one_stat_of_the_shared_file_system(
    served: Demo, versions: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load_module("conda_environments")
    row = served.arguments("tool=1.0")["environments"][0]
    options = {"explicit": [], "python_lock": "", "check": [], **served.options, **row}
    calls: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path).startswith(str(served.folder.parent)):
                calls.append(f"{name} {path}")
            return call(path, *args, **kwargs)

        return wrapper

    for name in ("stat", "lstat", "readlink", "scandir", "listdir", "open", "access", "mkdir"):
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    monkeypatch.setattr(builtins, "open", counted("open", builtins.open))
    outcome = module.bring_about(options, check_mode=False)
    assert not outcome.changed
    (call,) = calls
    assert call.startswith(f"stat {served.folder}/current/specification-")
    # The count sees what it should: an environment that differs is looked at more closely.
    module.bring_about({**options, "conda": ["tool=2.0"]}, check_mode=True)
    assert len(calls) > 3


def load_module(name: str) -> ModuleType:
    """A module of the role as Python's own."""
    return load_file(ROLE / "library" / f"{name}.py")


def test_debris_is_found_although_nothing_is_to_be_built(served: Demo) -> None:
    """The specification was taken back after the kill: only the journal knows of the debris."""
    build = Build(served, "tool=2.0")
    build.kill()
    assert len(served.versions()) == 2
    preview = served.build("tool=1.0", _ansible_check_mode=True)
    assert preview["changed"]
    assert len(served.versions()) == 2
    answer = served.build("tool=1.0")
    assert answer["changed"]
    assert answer["report"][0].endswith("not complete, is removed")
    assert served.versions() == {served.serving()}
    assert not served.build("tool=1.0")["changed"]


def test_a_killed_build_is_made_again(served: Demo) -> None:
    Build(served, "tool=2.0").kill()
    assert served.tool() == "tool 1.0"
    served.serve("tool=2.0")
    assert served.tool() == "tool 2.0"
    assert len(served.versions()) == 2


def test_a_build_of_another_run_is_no_debris(served: Demo) -> None:
    build = Build(served, "tool=2.0")
    before = served.versions()
    for check_mode in (True, False):
        answer = served.build("tool=1.0", _ansible_check_mode=check_mode)
        assert not answer["changed"]
        assert not answer["report"]
    assert served.versions() == before
    assert build.finish()["changed"]
    assert served.versions() == before


def test_two_runs_that_want_the_same_build_it_once(served: Demo) -> None:
    build = Build(served, "tool=2.0")
    answers: list[dict[str, Any]] = []
    second = threading.Thread(target=lambda: answers.append(served.build("tool=2.0")))
    second.start()
    time.sleep(1)
    assert not answers, "the second waits"
    first = build.finish()
    second.join(timeout=60)
    assert first["changed"]
    assert not answers[0]["changed"]
    assert answers[0]["environments"] == first["environments"]


def test_a_command_of_a_killed_run_keeps_others_out(served: Demo) -> None:
    """It still writes: what it makes cannot be removed yet."""
    build = Build(served, "tool=2.0")
    build.process.kill()
    build.process.communicate(timeout=10)
    before = served.versions()
    assert len(before) == 2
    failed = served.build("tool=2.0", timeout=1)
    assert "or a command that a killed one has started, is at work in" in failed["msg"]
    assert not served.build("tool=1.0")["changed"]
    assert served.versions() == before
    build.gate.touch()
    until("the command ends", lambda: served.build("tool=1.0")["changed"])
    assert served.versions() == {served.serving()}


def test_a_run_does_not_wait_for_ever(served: Demo) -> None:
    build = Build(served, "tool=2.0")
    failed = served.build("tool=2.0", timeout=1)
    assert f"Another run (process {build.process.pid})" in failed["msg"]
    assert build.finish()["changed"]


FULL_DISK = """
set -e
mount -t tmpfs -o size=1m tmpfs {envs}
{first} > {work}/first
python3 - <<'END'
import json, os
(row,) = json.load(open("{work}/first"))["environments"]
os.symlink(row["version"], "{envs}/demo/current")
END
{second} > {work}/second || true
ls {envs}/demo > {work}/left
{envs}/demo/current/bin/tool > {work}/tool
{first} > {work}/again
"""


def test_a_full_disk_leaves_the_old_version_in_service_and_nothing_else(
    demo: Demo, work_folder: Path
) -> None:
    """On a file system of 1 MB, where the second version does not fit."""
    first = module_command("conda_environments", work_folder / "1", demo.arguments("tool=1.0"))
    second = module_command(
        "conda_environments", work_folder / "2", demo.arguments("tool", "large")
    )
    (demo.work / "envs").mkdir()
    script = FULL_DISK.format(
        envs=demo.work / "envs",
        work=work_folder,
        first=shlex.join(first),
        second=shlex.join(second),
    )
    # A mount that only the script sees, and that goes with it.
    command = ["unshare", "--mount", "--map-root-user", "bash", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    failed = json.loads((work_folder / "second").read_text())
    assert "No space left on device" in failed["msg"]
    assert failed["msg"].endswith("stays in service.")
    version = json.loads((work_folder / "first").read_text())["environments"][0]["version"]
    assert (work_folder / "left").read_text().split() == ["current", version]
    assert (work_folder / "tool").read_text() == "tool 1.0\n"
    assert not json.loads((work_folder / "again").read_text())["changed"]


@pytest.fixture
def work_folder(tmp_path: Path) -> Path:
    """A folder with two folders, each for the arguments of one call."""
    for name in ("1", "2"):
        (tmp_path / "work" / name).mkdir(parents=True)
    return tmp_path / "work"


def test_environments_are_built_at_once(demo: Demo) -> None:
    """Each waits in its check for the other: one after another would never end."""
    rows = []
    for mine, other in (("a", "b"), ("b", "a")):
        meet = f"touch {demo.work}/{mine}; while [ ! -e {demo.work}/{other} ]; do sleep 0.05; done"
        check = f"timeout 30 sh -c '{meet}'"
        row = {**demo.row, "name": mine, "channels": demo.channels}
        rows.append({**row, "conda": ["tool=1.0"], "check": [check]})
    answer = run_module("conda_environments", demo.work, environments=rows, **demo.options)
    assert answer["changed"], answer
    assert [row["name"] for row in answer["environments"]] == ["a", "b"]
    alone = [{**row, "conda": ["tool=2.0"]} for row in rows]
    for file in ("a", "b"):
        (demo.work / file).unlink()
    alone[0]["check"] = ["timeout 1 sh -c 'while [ ! -e nothing ]; do sleep 0.05; done'"]
    alone[1]["check"] = ["true"]
    failed = run_module(
        "conda_environments", demo.work, environments=alone, parallel=1, **demo.options
    )
    assert "Environment a: the check failed with status 124" in failed["msg"]
    assert "Environment b" not in failed["msg"]
    assert len(list((demo.folder.parent / "b").glob("b-*"))) == 2, "one failure ends no other build"


def test_each_of_several_failures_is_told(demo: Demo) -> None:
    rows = [
        {**demo.row, "name": name, "channels": demo.channels, "conda": [f"no-{name}"]}
        for name in ("a", "b")
    ]
    failed = run_module("conda_environments", demo.work, environments=rows, **demo.options)
    assert "Environment a: " in failed["msg"]
    assert "Environment b: " in failed["msg"]
    assert list(demo.folder.parent.iterdir()) == []


def test_a_version_in_service_that_lost_its_mark_is_not_built_over(served: Demo) -> None:
    """Built over, it would be emptied under those who run in it."""
    (mark,) = (served.folder / "current").glob("specification-*.json")
    mark.unlink()
    kept = (served.folder / "current" / "bin" / "tool").stat().st_ino
    assert not served.build("tool=1.0")["changed"]
    assert mark.exists()
    assert (served.folder / "current" / "bin" / "tool").stat().st_ino == kept


def test_a_version_that_somebody_removed_is_built_again(served: Demo) -> None:
    name = served.serving()
    subprocess.run(["rm", "-r", served.folder / name], check=True)
    answer = served.build("tool=1.0")
    assert answer["changed"]
    assert served.tool() == "tool 1.0"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix with this Python, a module, a file that is none, and one of another Python."""
    prefix = tmp_path / "prefix"
    packages = prefix / "lib" / "python3.11" / "site-packages" / "package"
    packages.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(sys.executable)
    (packages / "good.py").write_text("x = 1\n")
    (packages / "template.py").write_text("{{ cookiecutter }} = = 1\n")
    (packages / "old.py").write_text("print 'hello'\n")
    (packages / "zeros.py").write_bytes(b"x = '\0'\n")
    return prefix


def test_modules_are_compiled_and_what_is_no_python_is_left(prefix: Path) -> None:
    module = load_module("conda_environments")
    (command,) = module.byte_code_commands(prefix, 2)
    module.run("the byte code", command, {"PATH": "/usr/bin:/bin"}, 60)
    compiled = {path.name.partition(".")[0] for path in prefix.rglob("*.pyc")}
    assert compiled == {"good"}


def test_byte_code_that_cannot_be_written_is_said(prefix: Path) -> None:
    module = load_module("conda_environments")
    (command,) = module.byte_code_commands(prefix, 1)
    # Where the folder of the byte code should be is a file.
    (good,) = prefix.rglob("good.py")
    good.with_name("__pycache__").touch()
    with pytest.raises(module.VersionError, match=r"the byte code of .*good.py was not written"):
        module.run("the byte code", command, {"PATH": "/usr/bin:/bin"}, 60)


def test_an_environment_without_python_has_nothing_to_compile(tmp_path: Path) -> None:
    assert load_module("conda_environments").byte_code_commands(tmp_path, 1) == []
