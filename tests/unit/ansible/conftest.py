# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of the Ansible part share: Ansible's commands, run on this machine only."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
COMMAND_TIMEOUT_S = 120

Run = Callable[..., "subprocess.CompletedProcess[str]"]
WriteInventory = Callable[[Mapping[str, object] | str], Path]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def load_module() -> Callable[[str], ModuleType]:
    """Import a file of the repository that is no part of a package, as Ansible imports plugins."""

    def load(file: str) -> ModuleType:
        path = REPOSITORY / file
        spec = importlib.util.spec_from_file_location(f"under_test_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def ansible(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a command of Ansible, as it is installed beside the Python of the tests."""
    home = tmp_path_factory.mktemp("ansible-home")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_NOCOLOR": "1",
    }

    def run(
        command: str, *arguments: str, cwd: Path = REPOSITORY
    ) -> subprocess.CompletedProcess[str]:
        # A copy of the repository has its own configuration; anywhere else this one counts.
        place = cwd if (cwd / "ansible.cfg").exists() else REPOSITORY
        return subprocess.run(
            [str(Path(sys.executable).with_name(command)), *arguments],
            cwd=cwd,
            env={**environment, "ANSIBLE_CONFIG": str(place / "ansible.cfg")},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def write_inventory(tmp_path_factory: pytest.TempPathFactory) -> WriteInventory:
    """Make an inventory whose hub is this machine: the repository's tables, then others."""

    def write(variables: Mapping[str, object] | str) -> Path:
        folder = tmp_path_factory.mktemp("inventory")
        (folder / "group_vars").mkdir()
        (folder / "group_vars/all").symlink_to(REPOSITORY / "group_vars/all")
        text = variables if isinstance(variables, str) else yaml.safe_dump(dict(variables))
        (folder / "group_vars/hub.yml").write_text(text)
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        (folder / "hosts.yml").write_text(yaml.safe_dump({"hub": {"hosts": {"ganymede": host}}}))
        return folder

    return write
