# SPDX-License-Identifier: BSD-3-Clause
"""scripts/outdated with clients that answer from here, over the pins of this repository."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import environment
import outdated
import pytest

ANSWERS = {"jupyterhub": "99.0", "configurable-http-proxy": "5.3.0"}


@pytest.mark.parametrize(
    ("held", "version", "fits"),
    [
        ("1.2.3", "1.2.3", True),
        ("1.2.3", "1.2.4", False),
        ("1.2.3", "1.2.10", False),
        ("=1.2", "1.2.9", True),
        ("=1.2", "1.20", False),
        ("=1.2.*", "1.2.9", True),
        ("=2.19.*=cpu_*", "2.19.1", True),
        ("=2.19.*=cpu_*", "2.20.0", False),
        (">=2", "2", True),
        ("<4.9", "4.9.0", False),
        ("<4.9", "4.10", False),
        ("<4.9", "4.8.1", True),
        (">=2,<3", "3.1", False),
        ("2024a", "2024b", False),
    ],
)
def test_a_pin_lets_a_release_in_or_not(held: str, version: str, fits: bool) -> None:
    assert outdated.allows(held, version) is fits


@pytest.mark.parametrize(
    ("held", "newest", "old"),
    [
        ("2.5.5", "2.4.6", False),
        ("2.5.5", "2.5.5", False),
        ("2.5.5", "2.5.10", True),
        ("2.5.5", "2.5.5rc1", False),
        ("2.5.5rc1", "2.5.5", True),
        ("2.5.5", "2.5.5.post1", True),
        ("2.5.5.post1", "2.5.6", True),
        ("=1.2", "1.1.9", False),
        ("=1.2.*", "1.3", True),
        (">=2", "1.9", False),
        (">2", "2", False),
        (">=2,<3", "1.9", False),
        (">=2,<3", "3", True),
        ("<4.9", "4.9", True),
        ("1.0", "", False),
    ],
)
def test_only_a_release_above_the_pin_is_newer(held: str, newest: str, old: bool) -> None:
    """A lock may pin a package twice, by Python; pip tells what fits the one that runs it."""
    assert outdated.Pin("pip", "numpy", held, "a.in", newest).is_old is old


def test_the_pins_of_the_repository_are_found() -> None:
    pins = {(pin.client, pin.name): pin for pin in outdated.python_pins()}
    assert pins["pip", "jupyterhub"].held[0].isdigit()
    assert ("pip", "c") not in pins, "-c and -r are options, not packages"
    conda = {(pin.name, pin.file.rpartition("/")[2]) for pin in outdated.conda_pins()}
    assert ("r-base", "jh-ganymede-climate4R.yml") in conda
    assert ("tensorflow", "jh-ganymede-pyGMS-3.11.yml") in conda
    assert ("configurable-http-proxy", "environments.yml") in conda
    assert ("micromamba", "main.yml") in conda
    assert ("xarray", "jh-ganymede-pyGMS-3.11.yml") not in conda, "held to nothing"
    assert [pin.name for pin in outdated.npm_pins()] == ["configurable-http-proxy"]


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip, npm and micromamba that know two packages, and a command line."""
    known = tmp_path / "known"
    known.mkdir()
    for name, version in ANSWERS.items():
        (known / name).write_text(version)
    package = '{\\"name\\": \\"$name\\", \\"version\\": \\"$(cat $file)\\"}'
    scripts = {
        "python": "echo \"$name ($(cat $file))\"; echo 'Available versions: ...'",
        "npm": "cat $file",
        "micromamba": f'echo "{{\\"result\\": {{\\"pkgs\\": [{package}]}}}}"',
    }
    (tmp_path / "bin").mkdir()
    for program, script in scripts.items():
        file = tmp_path / "bin" / program
        file.write_text(
            '#!/bin/sh\nfor word; do [ "$word" = version ] || name=$word; done\n'
            f'file={known}/$name; [ -e "$file" ] || exit 1\n{script}\n'
        )
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(environment, "folder", lambda: tmp_path)
    monkeypatch.setattr(environment, "install", lambda lock: None)
    monkeypatch.setattr(sys, "argv", ["outdated"])
    return known


def test_newer_releases_are_told(clients: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outdated.main() == 1
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert ["newer", "jupyterhub"] in [line[:2] for line in lines]
    assert not any("configurable-http-proxy" in line for line in lines if line[0] == "newer")
    assert "No answer from pip about: " in said
    assert "No answer from micromamba for conda-forge about: " in said


def test_nothing_newer_is_0(clients: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clients / "jupyterhub").unlink()
    assert outdated.main() == 0
    assert "0 of " in capsys.readouterr().out


def test_nobody_to_ask_is_2(
    clients: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in clients.iterdir():
        file.unlink()
    (clients.parent / "bin" / "micromamba").unlink()
    (clients.parent / "bin" / "npm").unlink()
    monkeypatch.setenv("PATH", f"{clients.parent}/bin")
    assert outdated.main() == 2
    said = capsys.readouterr().out
    assert "because micromamba is not here" in said
    assert "because npm is not here" in said


def test_all_pins_are_shown_when_asked_for(
    clients: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["outdated", "--all", "--channel", "https://mirror"])
    outdated.main()
    said = capsys.readouterr().out
    assert "hdf5" in said
    assert "micromamba for https://mirror" in said


def test_the_highest_release_of_a_channel_counts(
    clients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"name": "tool", "version": version} for version in ("1.9", "1.10", "1.10rc1")]
    rows.append({"name": "tool-more", "version": "7"})
    text = json.dumps({"result": {"pkgs": rows}})
    monkeypatch.setattr(outdated, "answer", lambda command: text)
    assert outdated.ask_conda("tool", "conda-forge") == "1.10"
