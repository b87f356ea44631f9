# SPDX-License-Identifier: BSD-3-Clause
"""The check that stands between a rendered configuration and the hub in service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Check = Callable[[str, str], tuple[int, str]]

GOOD = """
c = get_config()
c.JupyterHub.spawner_class = "custom_pbs_spawner.ProfileMenuSpawner"
c.JupyterHub.authenticator_class = "custom_pbs_spawner.SystemAuthenticator"
c.PAMAuthenticator.service = "login"
c.CustomPBSSpawner.command_timeout = 30
c.ConfigurableHTTPProxy.should_start = False
"""
ROW = {
    "key": "a",
    "display_name": "A",
    "queue": "tintel",
    "cores": 1,
    "memory": "1gb",
    "walltime": "01:00:00",
}


@pytest.fixture
def check(repository: Path, tmp_path: Path) -> Check:
    """Run the check as the role does; gives its exit status and what it prints."""
    files = repository / "roles/jupyterhub/files"

    def run(kind: str, text: str) -> tuple[int, str]:
        # The role hands over a temporary file without a telling suffix.
        file = tmp_path / "candidate"
        file.write_text(text)
        done = subprocess.run(
            [sys.executable, str(files / "bin/check_config.py"), kind, str(file)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(files), "CONFIGPROXY_AUTH_TOKEN": "0" * 64},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert [path.name for path in tmp_path.iterdir()] == ["candidate"], "the check left a file"
        return done.returncode, done.stderr

    return run


def test_a_good_configuration_passes(check: Check) -> None:
    assert check("config", GOOD) == (0, "")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("c.JupyterHub.hub_prot = 8081", "c.JupyterHub.hub_prot: JupyterHub has no such setting"),
        ("c.JupiterHub.hub_port = 8081", "c.JupiterHub: nothing that the hub loads has this name"),
        ("c.JupyterHub.hub_port = 'eighty'", "hub_port"),
        ("c.CustomPBSSpawner.command_timeout = 'long'", "command_timeout"),
        ("c.CustomPBSSpawner.comand_timeout = 3", "CustomPBSSpawner has no such setting"),
        ("c.JupyterHub.spawner_class = 'nowhere.Spawner'", "nowhere"),
        ("c.JupyterHub.hub_port = ", "SyntaxError"),
        ("raise RuntimeError('broken')", "RuntimeError: broken"),
    ],
)
def test_a_mistake_is_told(check: Check, line: str, sentence: str) -> None:
    status, text = check("config", f"{GOOD}\n{line}\n")
    assert status == 1, text
    assert sentence in text
    assert "Traceback" not in text


def test_profile_tables_are_held_to_the_schema(check: Check) -> None:
    assert check("profiles", json.dumps({"profiles": [ROW]})) == (0, "")
    status, text = check("profiles", json.dumps({"profiles": [{**ROW, "memory": "lots"}]}))
    assert status == 1
    assert 'row 1 (a), field "memory"' in text
