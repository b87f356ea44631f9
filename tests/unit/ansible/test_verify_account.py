# SPDX-License-Identifier: BSD-3-Clause
"""What role sudoers_rhea tries as the hub's account, with stand-ins for the system's commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def verify(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("roles/sudoers_rhea/files/verify_account.py")


def _command(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_sudo_is_asked_for_the_very_command_and_does_not_run_it(
    verify: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    monkeypatch.setattr(verify, "SUDO", _command(tmp_path / "sudo", f'printf "%s " "$@" > {asked}'))
    qdel = _command(tmp_path / "qdel", f"touch {tmp_path}/ran")
    assert list(verify.sudo_problems("meteo1", [[qdel, "1.encina"]])) == []
    assert asked.read_text() == f"-n -l -u meteo1 {qdel} 1.encina "
    assert not (tmp_path / "ran").exists()


def test_a_rule_that_is_not_in_force_is_told(
    verify: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = _command(tmp_path / "sudo", "echo 'a password is required' >&2; exit 1")
    monkeypatch.setattr(verify, "SUDO", refusing)
    qsub = _command(tmp_path / "qsub", "true")
    (sentence,) = verify.sudo_problems("meteo1", [[qsub], [str(tmp_path / "installed-later")]])
    assert f"may not run {qsub} as meteo1" in sentence
    assert "@includedir /etc/sudoers.d" in sentence
    assert "a password is required" in sentence


def test_a_missing_pam_service_is_told(verify: ModuleType) -> None:
    (sentence,) = verify.pam_problems("root", "no-such-service")
    assert sentence == (
        "There is no PAM service no-such-service: /etc/pam.d/no-such-service is missing."
    )


def test_pam_answers_for_an_account_of_this_machine_only(verify: ModuleType) -> None:
    assert list(verify.pam_problems("root", "login")) == []
    (sentence,) = verify.pam_problems("no-such-account", "login")
    assert "The PAM service login has no answer for no-such-account" in sentence


def test_unreadable_hashes_matter_for_local_accounts_only(
    verify: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _command(tmp_path / "getent", "exit 2")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert list(verify.shadow_problems([])) == []
    (sentence,) = verify.shadow_problems(["meteo1"])
    assert "the password of meteo1" in sentence
    assert "sudoers_rhea_shadow_group" in sentence
