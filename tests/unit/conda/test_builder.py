# SPDX-License-Identifier: BSD-3-Clause
"""The mirror's builder: what its hash covers, and that a mirror is whole or not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from offline_channel import __main__ as builder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The two locks that the builder reads."""
    (tmp_path / "repository" / "requirements").mkdir(parents=True)
    for lock in builder.LOCKS:
        (tmp_path / "repository" / lock).write_text("a==1\n")
    return tmp_path / "repository"


def run(monkeypatch: pytest.MonkeyPatch, repository: Path, output: Path) -> None:
    arguments = ["build", "--repository", str(repository), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    builder.main()


def test_the_hash_covers_locks_and_place(repository: Path) -> None:
    before = builder.mirror_hash(repository, Path("/opt/mirror"))
    assert builder.mirror_hash(repository, Path("/opt/mirror")) == before
    assert builder.mirror_hash(repository, Path("/elsewhere")) != before
    (repository / builder.LOCKS[0]).write_text("a==2\n")
    assert builder.mirror_hash(repository, Path("/opt/mirror")) != before


def test_the_hash_covers_code_and_locks_of_the_channel_but_no_documentation() -> None:
    names = {name for name, _ in builder.inputs(Path("/repository"))}
    assert {
        "wheels.txt",
        "wheels-3.9.txt",
        "tools.txt",
        "npm/package-lock.json",
        "stand_in/micromamba.py",
    } <= names
    assert "README.md" not in names


def test_caches_of_linters_are_no_inputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("code.py", ".mypy_cache/x.json", "package/.ruff_cache/x", "package/code.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(builder, "HERE", tmp_path)
    names = [name for name, _ in builder.inputs(tmp_path)]
    assert names == ["code.py", "package/code.py", *builder.LOCKS]


def test_a_failed_build_leaves_the_mirror_as_it_was(
    monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path
) -> None:
    output = tmp_path / "mirror"
    (output / "old").mkdir(parents=True)
    (output / "current").symlink_to("old")
    monkeypatch.setattr(builder, "HERE", tmp_path)  # no tools.txt there: pip fails
    with pytest.raises(SystemExit, match="the mirror is as it was"):
        run(monkeypatch, repository, output)
    assert (output / "current").readlink() == Path("old")
    assert not (output / ".work").exists()


def test_a_whole_mirror_is_switched_and_built_once(
    monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path
) -> None:
    builds: list[Path] = []

    def build(_repository: Path, _output: Path, work: Path, mounted_at: Path) -> None:
        builds.append(mounted_at)
        (work / "mirror").mkdir()

    monkeypatch.setattr(builder, "build", build)
    output = tmp_path / "mirror"
    (output / ".work" / "half").mkdir(parents=True)  # left by an interrupted build
    run(monkeypatch, repository, output)
    run(monkeypatch, repository, output)
    name = builder.mirror_hash(repository, Path("/opt/mirror"))
    assert builds == [Path("/opt/mirror") / name]
    assert (output / "current").readlink() == Path(name)
    assert not (output / ".work").exists()


def test_only_the_mirror_before_is_kept(tmp_path: Path) -> None:
    for age, name in enumerate(["now", "before", "older"]):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / ".downloads").mkdir()
    builder.switch(tmp_path, "now")
    builder.remove_old(tmp_path, "now")
    assert {path.name for path in tmp_path.iterdir()} == {"now", "before", "current", ".downloads"}
