# SPDX-License-Identifier: BSD-3-Clause
"""The stand-in behaves as micromamba does where the roles depend on it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Micromamba = Callable[..., subprocess.CompletedProcess[str]]

COMMAND_LINE_ERROR = 109


def create(channel: Path, *specs: str) -> list[str]:
    return ["create", "-y", "--no-rc", "--override-channels", "-c", f"file://{channel}", *specs]


def links(output: str) -> list[str]:
    document = json.loads(output)
    return sorted(f"{item['name']} {item['version']}" for item in document["actions"]["LINK"])


def test_it_says_its_version(micromamba: Micromamba) -> None:
    done = micromamba("--version")
    assert (done.returncode, done.stdout) == (0, "2.9.0\n")


@pytest.mark.parametrize("arguments", [["--colour"], ["create", "--prune"], ["fetch"]])
def test_an_unknown_option_ends_with_109(micromamba: Micromamba, arguments: list[str]) -> None:
    assert micromamba(*arguments).returncode == COMMAND_LINE_ERROR


def test_create_links_the_newest_and_puts_the_prefix_into_scripts(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "environment"
    done = micromamba(*create(channel, "tool"), "-p", prefix)
    assert done.returncode == 0, done.stderr
    script = (prefix / "bin" / "tool").read_text()
    assert "echo tool 2.0" in script
    assert f"# lives in {prefix}\n" in script


def test_a_dry_run_shows_the_transaction_and_writes_nothing(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "environment"
    done = micromamba(*create(channel, "tool<2"), "-p", prefix, "--dry-run", "--json")
    assert links(done.stdout) == ["tool 1.0"]
    assert not prefix.exists()


def test_create_empties_an_environment_before_it_solves(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "environment"
    micromamba(*create(channel, "tool"), "-p", prefix)
    done = micromamba(*create(channel, "nosuchpackage"), "-p", prefix)
    assert done.returncode == 1
    assert "Could not solve for environment specs" in done.stderr
    assert not prefix.exists()


def test_create_refuses_a_folder_that_is_no_environment(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    done = micromamba(*create(channel, "tool"), "-p", tmp_path / "folder")
    assert done.returncode == 1
    assert "Non-conda folder exists" in done.stderr
    assert (tmp_path / "folder" / "file").exists()


def test_an_unsatisfiable_wish_prints_json(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    done = micromamba(*create(channel, "tool=9"), "-p", tmp_path / "environment", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "solver_problems": ["unsupported request"],
        "success": False,
    }


def test_install_keeps_what_satisfies_and_says_when_nothing_is_to_do(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "environment"
    micromamba(*create(channel, "tool=1.0"), "-p", prefix)
    install = ["install", *create(channel)[1:], "-p", prefix, "--json"]
    nothing = json.loads(micromamba(*install, "tool").stdout)
    assert nothing["message"] == "All requested packages already installed"
    assert links(micromamba(*install, "failing").stdout) == ["failing 1.0"]
    assert "tool 1.0" in (prefix / "bin" / "tool").read_text()
    assert links(micromamba(*install, "tool=2.0").stdout) == ["tool 2.0"]


def test_install_needs_an_environment(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    done = micromamba("install", *create(channel, "tool")[1:], "-p", tmp_path / "environment")
    assert done.returncode == 1
    assert "No prefix found" in done.stderr


def test_a_package_whose_bytes_changed_is_refused(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    done = micromamba(*create(channel, "spoilt"), "-p", tmp_path / "environment")
    assert done.returncode == 1
    assert "SHA256 doesn't match expectation" in done.stderr


def test_channels_of_a_file_are_added_to_those_of_the_command_line(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    file = tmp_path / "environment.yml"
    file.write_text(f"channels: ['file://{missing}', nodefaults]\ndependencies: [tool]\n")
    done = micromamba(*create(channel), "-f", file, "-p", tmp_path / "environment")
    assert done.returncode == 1
    file.write_text("channels: [nodefaults]\ndependencies: [tool]\n")
    done = micromamba(*create(channel), "-f", file, "-p", tmp_path / "environment")
    assert done.returncode == 0, done.stderr


def test_a_pip_section_is_refused(micromamba: Micromamba, channel: Path, tmp_path: Path) -> None:
    file = tmp_path / "environment.yml"
    file.write_text("dependencies: [tool, {pip: [six]}]\n")
    done = micromamba(*create(channel), "-f", file, "-p", tmp_path / "environment")
    assert done.returncode == 1
    assert "pip" in done.stderr


@pytest.mark.parametrize("form", ["#{md5}", "#{sha256}", "#sha256:{sha256}", ""])
def test_an_explicit_lock_needs_no_channel(
    micromamba: Micromamba, channel: Path, tmp_path: Path, form: str
) -> None:
    package = channel / "noarch" / "tool-1.0-0.conda"
    content = package.read_bytes()
    suffix = form.format(
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    lock = tmp_path / "lock.txt"
    lock.write_text(f"# a lock\n@EXPLICIT\nfile://{package}{suffix}\n")
    prefix = tmp_path / "environment"
    done = micromamba("create", "-y", "--no-rc", "-p", prefix, "-f", lock)
    assert done.returncode == 0, done.stderr
    export = micromamba("env", "export", "-p", prefix, "--explicit").stdout.splitlines()
    assert export[-2] == "@EXPLICIT"
    assert export[-1].startswith(f"file://{package}#")


def test_an_explicit_lock_with_a_wrong_hash_is_refused(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"@EXPLICIT\nfile://{channel}/noarch/tool-1.0-0.conda#{'0' * 64}\n")
    done = micromamba("create", "-y", "--no-rc", "-p", tmp_path / "environment", "-f", lock)
    assert done.returncode == 1
    assert "SHA256 doesn't match expectation" in done.stderr


def test_list_shows_where_each_package_came_from(
    micromamba: Micromamba, channel: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / "environment"
    micromamba(*create(channel, "tool"), "-p", prefix)
    document: dict[str, Any] = json.loads(micromamba("list", "-p", prefix, "--json").stdout)
    (row,) = document["packages"]
    package = channel / "noarch" / "tool-2.0-0.conda"
    assert row["url"] == f"file://{package}"
    assert row["sha256"] == hashlib.sha256(package.read_bytes()).hexdigest()


def test_a_missing_file_is_said(micromamba: Micromamba, channel: Path, tmp_path: Path) -> None:
    done = micromamba(*create(channel), "-f", tmp_path / "none.yml", "-p", tmp_path / "environment")
    assert done.returncode == 1
    assert "does not exist" in done.stderr


def test_an_empty_channel_is_an_error(micromamba: Micromamba, tmp_path: Path) -> None:
    done = micromamba(*create(tmp_path / "nothing", "tool"), "-p", tmp_path / "environment")
    assert done.returncode == 1
    assert not (tmp_path / "environment").exists()
