# SPDX-License-Identifier: BSD-3-Clause
"""Interfaces of the roles, and the way from group_vars to both inventories."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = ["conda_root", "jupyterhub", "kernels", "proxy", "sudoers_rhea"]


def _options(repository: Path, role: str) -> dict[str, Any]:
    text = (repository / f"roles/{role}/meta/argument_specs.yml").read_text()
    options: dict[str, Any] = yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return options


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_and_defaults_agree(repository: Path, role: str) -> None:
    options = _options(repository, role)
    defaults = yaml.safe_load((repository / f"roles/{role}/defaults/main.yml").read_text())
    for name, option in options.items():
        if "default" in option:
            assert option["default"] == defaults[name], name
    assert set(defaults) <= set(options), "a default that no one is told about"
    for name, option in options.items():
        assert name in defaults or option.get("required"), f"{name} has no default"
        assert option["description"]


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_name_of_their_role(repository: Path, role: str) -> None:
    for folder in ("defaults", "vars"):
        file = repository / f"roles/{role}/{folder}/main.yml"
        names = yaml.safe_load(file.read_text()) if file.exists() else {}
        assert [name for name in names if not re.match(rf"(__)?{role}_", name)] == []


@pytest.mark.parametrize("inventory", ["ganymede", "rehearsal"])
def test_a_value_edited_in_group_vars_reaches_the_hub(
    repository: Path, tmp_path: Path, ansible: Any, inventory: str
) -> None:
    for folder in ("inventory", "group_vars"):
        shutil.copytree(repository / folder, tmp_path / folder, symlinks=True)
    table = tmp_path / "group_vars/all/profiles.yml"
    text = table.read_text()
    assert "key: tintel" in text
    table.write_text(text.replace("key: tintel", "key: edited"))
    # Ansible would find a group_vars in the working directory, too: only the link may lead to it.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    source = str(tmp_path / "inventory" / inventory)
    shown = ansible("ansible-inventory", "-i", source, "--host", "ganymede", cwd=elsewhere)
    assert shown.returncode == 0, shown.stderr
    rows = json.loads(shown.stdout)["jupyterhub_profiles"]
    assert [row["key"] for row in rows] == ["edited", "long", "himem", "himem4"]


def test_the_rehearsal_changes_only_what_it_says(repository: Path) -> None:
    here = repository / "inventory/rehearsal/group_vars/rehearsal"
    there = repository / "group_vars/all"
    production = {
        name: value
        for file in there.glob("*.yml")
        for name, value in yaml.safe_load(file.read_text()).items()
    }
    for file in here.glob("*.yml"):
        for name, value in yaml.safe_load(file.read_text()).items():
            assert production.get(name) != value, f"{file.name}: {name} is already so in production"
