# SPDX-License-Identifier: BSD-3-Clause
"""The roles conda_root and kernels, run by ansible-playbook in a folder of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


class Site:
    """One site in a folder: its variables, and playbook runs over them."""

    def __init__(self, folder: Path, channel: Path, stand_in: Path) -> None:
        self.folder = folder
        self.root = folder / "envs"
        self.repository = folder / "repository"
        self.repository.mkdir()
        self.variables: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "conda_root_prefix": str(folder / "micromamba"),
            "conda_root_micromamba_url": f"file://{stand_in}",
            "conda_root_micromamba_sha256": hashlib.sha256(stand_in.read_bytes()).hexdigest(),
            "conda_root_channels": [f"file://{channel}"],
            "conda_root_repository": str(self.repository),
            "kernels_repository": str(self.repository),
            "kernels_prefix": str(folder / "shared"),
        }
        (folder / "ansible.cfg").touch()
        self.environment("demo", "tool=1.0")

    def environment(self, name: str, *specs: str, check: str = "tool") -> None:
        """Make this the only environment of the site."""
        row = {"name": name, "root": str(self.root), "conda": list(specs), "check": [check]}
        self.variables["conda_root_environments"] = [row]

    def command(self, *options: str, role: str = "conda_root") -> tuple[list[str], dict[str, str]]:
        play = {
            "hosts": "localhost",
            "gather_facts": False,
            "roles": [role],
            "post_tasks": [
                {
                    "ansible.builtin.debug": {
                        "msg": "CHANGED={{ (conda_root_changed_environments | default([])) "
                        "| join(',') }}."
                    }
                }
            ],
        }
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        (self.folder / "variables.json").write_text(json.dumps(self.variables))
        variables = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_ROLES_PATH": str(REPOSITORY / "roles"),
            "ANSIBLE_LIBRARY": str(REPOSITORY / "plugins/modules"),
            "ANSIBLE_ACTION_PLUGINS": str(REPOSITORY / "plugins/action"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "ansible"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "ansible"),
        }
        extra = f"@{self.folder / 'variables.json'}"
        play_file = str(self.folder / "play.yml")
        return [str(PLAYBOOK), "-i", "localhost,", "-e", extra, play_file, *options], variables

    def run(self, *options: str, role: str = "conda_root") -> subprocess.CompletedProcess[str]:
        """Run the role."""
        command, variables = self.command(*options, role=role)
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=120, check=False
        )

    def converge(self, *options: str, role: str = "conda_root") -> str:
        """Run the role, which must succeed; returns what Ansible printed."""
        done = self.run(*options, role=role)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def tool(self, name: str = "demo") -> str:
        """What the command of the environment in service says."""
        command = [self.root / name / "current" / "bin" / "tool"]
        return subprocess.check_output(command, text=True, timeout=10).strip()


@pytest.fixture
def site(tmp_path: Path, channel: Path, stand_in: Path) -> Site:
    """A site on which nothing is installed."""
    return Site(tmp_path, channel, stand_in)


def test_from_an_empty_host_to_a_converged_one(site: Site) -> None:
    preview = site.converge("--check", "--diff")
    assert "would be fetched from" in preview
    assert "+conda: tool=1.0" in preview
    assert "CHANGED=demo." in preview
    assert not site.root.exists()
    assert not Path(site.variables["conda_root_prefix"]).exists()
    assert "CHANGED=demo." in site.converge()
    assert site.tool() == "tool 1.0"
    again = site.converge("--diff")
    assert "changed=0" in again
    assert "CHANGED=." in again
    assert "changed=0" in site.converge("--check")


def test_nothing_is_switched_when_one_environment_fails(site: Site) -> None:
    site.converge()
    rows = [
        {"name": "demo", "root": str(site.root), "conda": ["tool=2.0"]},
        {"name": "other", "root": str(site.root), "conda": ["nosuchpackage"]},
    ]
    site.variables["conda_root_environments"] = rows
    failed = site.run()
    assert failed.returncode != 0
    assert "Could not solve for environment specs" in failed.stdout
    assert site.tool() == "tool 1.0"
    site.variables["conda_root_environments"] = rows[:1]
    assert "CHANGED=demo." in site.converge()
    assert site.tool() == "tool 2.0"


def test_a_wrong_hash_stops_the_play_and_leaves_nothing(site: Site) -> None:
    right = site.variables["conda_root_micromamba_sha256"]
    site.variables["conda_root_micromamba_sha256"] = "0" * 64
    stopped = site.run()
    assert stopped.returncode != 0
    assert "micromamba was not installed" in stopped.stdout
    assert not Path(site.variables["conda_root_prefix"]).exists()
    assert not site.root.exists()
    site.variables["conda_root_micromamba_sha256"] = right
    site.converge()
    program = Path(site.variables["conda_root_prefix"]) / "bin" / "micromamba"
    before = program.read_bytes()
    site.variables["conda_root_micromamba_sha256"] = "0" * 64
    assert site.run().returncode != 0
    assert program.read_bytes() == before
    assert [path.name for path in program.parent.iterdir()] == ["micromamba"]


def test_files_count_by_their_content_and_not_by_their_channels(site: Site, channel: Path) -> None:
    package = channel / "noarch" / "tool-1.0-0.conda"
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    lock, file = site.repository / "explicit.lock", site.repository / "file.yml"
    lock.write_text(f"# words\n@EXPLICIT\nfile://{package}#{digest}\n")
    file.write_text("channels: [conda-forge, nodefaults]\ndependencies: [tool=1.0]\n")
    site.variables["conda_root_environments"] = [
        {"name": path.stem, "root": str(site.root), "conda_file": path.name}
        for path in (lock, file)
    ]
    assert "CHANGED=explicit,file." in site.converge()
    assert site.tool("explicit") == site.tool("file") == "tool 1.0"
    file.write_text("# words\nchannels: [elsewhere]\ndependencies:\n  - tool=1.0\n")
    assert "changed=0" in site.converge()


def test_rows_that_cannot_be_built_are_refused(site: Site) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "nothing"},
        {"name": "both", "conda": ["tool"], "conda_file": "demo.yml"},
        {"name": "../up", "conda": ["tool"]},
        {"name": "no-file", "conda_file": "none.yml"},
        {"name": "no-lock", "conda": ["tool"], "python_lock": "none.txt"},
    ]
    site.variables["conda_root_environments"] = [{"root": str(site.root), **row} for row in rows]
    refused = site.run()
    assert refused.returncode != 0
    output = " ".join(refused.stdout.split())
    for sentence in (
        "Environment nothing (conda_root_environments): write either conda",
        "Environment both (conda_root_environments): write either conda",
        "Environment ../up (conda_root_environments): its name may have",
        "Environment no-file (conda_root_environments): not in the repository: ",
        "Environment no-lock (conda_root_environments): not in the repository: ",
    ):
        assert sentence in output
    assert not Path(site.variables["conda_root_prefix"]).exists()


@pytest.fixture
def kernel_site(site: Site) -> Site:
    """A site with a Python and an R kernel in its table."""
    (site.repository / "environments").mkdir()
    for name, package in [("python", "ipykernel=7"), ("r", "r-irkernel")]:
        text = f"dependencies: [{package}, other]\n"
        (site.repository / "environments" / f"{name}.yml").write_text(text)
    site.variables["kernels_table"] = [
        {"name": "Py", "display_name": "Python", "environment": "environments/python.yml"},
        {"name": "R", "display_name": "R (climate4R)", "environment": "environments/r.yml"},
    ]
    return site


def kernelspecs(site: Site) -> dict[str, dict[str, Any]]:
    """The kernelspecs that are installed, by name."""
    folder = Path(site.variables["kernels_prefix"]) / "share" / "jupyter" / "kernels"
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/kernel.json")}


def test_kernelspecs_follow_the_table(kernel_site: Site) -> None:
    kernel_site.converge("--check", role="kernels")
    prefix = Path(kernel_site.variables["kernels_prefix"])
    assert not prefix.exists()
    kernel_site.converge(role="kernels")
    specs = kernelspecs(kernel_site)
    assert specs["Py"]["argv"][:5] == [
        f"{prefix}/bin/start-kernel",
        "--environment",
        f"{prefix}/kernels/Py/current",
        "--",
        "python",
    ]
    assert specs["Py"]["display_name"].strip() == "Python"
    assert specs["R"]["language"] == "R"
    assert "IRkernel::main()" in specs["R"]["argv"]
    assert all("{connection_file}" in spec["argv"] for spec in specs.values())
    assert "changed=0" in kernel_site.converge(role="kernels")
    foreign = prefix / "share" / "jupyter" / "kernels" / "foreign"
    foreign.mkdir()
    (foreign / "kernel.json").write_text('{"argv": ["x"]}')
    del kernel_site.variables["kernels_table"][0]
    kernel_site.converge(role="kernels")
    assert set(kernelspecs(kernel_site)) == {"R", "foreign"}


def test_an_environment_without_a_kernel_is_refused(kernel_site: Site) -> None:
    (kernel_site.repository / "environments/r.yml").write_text("dependencies: [r-base]\n")
    refused = kernel_site.run(role="kernels")
    assert refused.returncode != 0
    assert "r.yml has no kernel in it" in refused.stdout + refused.stderr
