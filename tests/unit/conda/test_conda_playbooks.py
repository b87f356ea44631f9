# SPDX-License-Identifier: BSD-3-Clause
"""rollback.yml, prune.yml and lock.yml over one environment of this machine, as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conda.environments import Demo

REPOSITORY = Path(__file__).resolve().parents[3]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
QSTAT = """#!/bin/sh
[ -e {folder}/silent ] && {{ echo 'qstat: cannot connect to server encina' >&2; exit 111; }}
cat {folder}/jobs.xml
"""
QMGR = """#!/bin/sh
echo 'set server query_other_jobs = True' | sed s/True/$(cat {folder}/shows)/
"""
BUILD = """
- name: Build and switch
  hosts: hub
  gather_facts: false
  roles: [conda_root]
"""


class Site:
    """A repository with one environment, a queue of its own, and the playbooks."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.repository = demo.work / "repository"
        self.file = self.repository / "demo.yml"
        self.lock = self.repository / "environments" / "locks" / "demo.lock"
        self.queue = demo.work / "queue"
        for folder in (self.repository, self.queue, demo.work / "bin"):
            folder.mkdir()
        self.ask("tool=1.0")
        self.jobs()
        (self.queue / "shows").write_text("True")
        for name, text in (("qstat", QSTAT), ("qmgr", QMGR)):
            (self.queue / name).write_text(text.format(folder=self.queue))
            (self.queue / name).chmod(0o755)
        # Asks as the account that it is given: for an ordinary user that takes a root.
        (demo.work / "bin" / "runuser").write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
        (demo.work / "bin" / "runuser").chmod(0o755)
        (demo.work / "build.yml").write_text(BUILD)
        (demo.work / "hosts.yml").write_text("hub: {hosts: {localhost: }}\n")

    def ask(self, *specs: str) -> None:
        """Let the repository name these packages."""
        self.file.write_text(json.dumps({"name": "demo", "dependencies": list(specs)}))

    def jobs(self, *started: int) -> None:
        """Let jobs run that began at these moments."""
        rows = "".join(
            f"<Job><Job_Id>{number}.encina</Job_Id><Job_Owner>ada@encina</Job_Owner>"
            f"<job_state>R</job_state><start_time>{moment}</start_time></Job>"
            for number, moment in enumerate(started, 1)
        )
        (self.queue / "jobs.xml").write_text(f"<Data>{rows}</Data>")

    def run(self, playbook: str, *options: str, **variables: Any) -> tuple[int, str]:
        """Run a playbook; its exit status and what it said, in one line."""
        values = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "conda_root_repository": str(self.repository),
            "conda_root_prefix": str(self.demo.work),
            "__conda_root_micromamba": self.demo.options["micromamba"],
            "conda_root_channels": self.demo.channels,
            "conda_root_environments": [{**self.demo.row, "conda_file": "demo.yml"}],
            "conda_root_micromamba_sha256": self.sha256(),
            "kernels_table": [],
            "ganymede_user": "rhea",
            "ganymede_torque_bin": str(self.queue),
            **variables,
        }
        (self.demo.work / "values.json").write_text(json.dumps(values))
        path = self.demo.work if playbook == "build" else REPOSITORY / "playbooks"
        arguments = ["-i", f"{self.demo.work}/hosts.yml", "-e", f"@{self.demo.work}/values.json"]
        done = subprocess.run(
            [ANSIBLE, *arguments, path / f"{playbook}.yml", *options],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PATH": f"{self.demo.work}/bin:{os.environ['PATH']}",
                "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
                "ANSIBLE_HOME": str(self.demo.work / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def sha256(self) -> str:
        """Of the stand-in, which is where the role wants micromamba."""
        done = subprocess.check_output(["sha256sum", self.demo.options["micromamba"]], text=True)
        return done.split()[0]

    def well(self, playbook: str, *options: str, **variables: Any) -> str:
        """Run a playbook that must succeed."""
        status, text = self.run(playbook, *options, **variables)
        assert status == 0, text
        return text

    def refused(self, playbook: str, *options: str, **variables: Any) -> str:
        """Run a playbook that must refuse, and change nothing."""
        before = self.demo.serving(), self.demo.versions()
        status, text = self.run(playbook, *options, **variables)
        assert status != 0, text
        assert "changed=0" in text
        assert (self.demo.serving(), self.demo.versions()) == before
        return text


@pytest.fixture
def site(demo: Demo) -> Site:
    """The site with tool 1.0 in service."""
    found = Site(demo)
    found.well("build")
    return found


def test_back_and_forward_again(site: Site) -> None:
    first = site.demo.serving()
    site.ask("tool=2.0")
    site.well("build")
    second = site.demo.serving()
    preview = site.well("rollback", "--check", "--diff", target="demo")
    assert f"demo: would go back from {second} to {first}." in preview
    assert f"-{second}" in preview
    assert f"+{first}" in preview
    assert site.demo.serving() == second
    text = site.well("rollback", target="demo")
    assert f"demo: went back from {second} to {first}." in text
    assert "This holds until site.yml runs" in text
    assert "take the change back in demo.yml:" in text
    assert "take out conda: tool=2.0" in text
    assert "put back conda: tool=1.0" in text
    assert site.demo.tool() == "tool 1.0"
    forward = site.well("build", "--diff")
    assert f"-{first}" in forward
    assert f"+{second}" in forward
    assert site.demo.tool() == "tool 2.0"


def test_a_rollback_says_why_it_refuses(site: Site) -> None:
    assert "Say which environment: write -e target= and one of demo." in site.refused("rollback")
    unknown = site.refused("rollback", target="../demo")
    assert "There is no environment ../demo: write -e target= and one of demo." in unknown
    assert "demo has no previous version" in site.refused("rollback", target="demo")


@pytest.fixture
def long_served(site: Site) -> tuple[Site, list[str]]:
    """Three versions that were in service one after another, a day each."""
    names = [site.demo.serving()]
    for specs in (["tool=2.0"], ["tool", "large"]):
        site.demo.backdate(86400)
        names.append(site.demo.serve(*specs))
    site.ask("tool", "large")
    return site, names


def test_a_version_in_use_is_not_pruned(long_served: tuple[Site, list[str]]) -> None:
    site, names = long_served
    site.jobs(int(time.time() - 3 * 86400))
    used = site.well("prune")
    assert f"{names[0]} stays: may be in use by 1.encina (ada)" in used
    assert "changed=0" in used
    site.jobs(int(time.time()))
    preview = site.well("prune", "--check", "--diff")
    assert f"-{names[0]}" in preview
    assert site.demo.versions() == set(names)
    assert f"{names[0]} is removed" in site.well("prune")
    assert site.demo.versions() == set(names[1:])
    assert "There is nothing to remove." in site.well("prune")


def test_nothing_is_pruned_when_the_queue_does_not_tell(
    long_served: tuple[Site, list[str]],
) -> None:
    site, _ = long_served
    (site.queue / "jobs.xml").write_text("<Data><Job>")
    assert "qstat -x printed a document without an end" in site.refused("prune")
    (site.queue / "silent").touch()
    text = site.refused("prune")
    assert "Nothing was removed, because it is not known which jobs run: qstat -x does not" in text
    assert "cannot connect to server encina" in text
    (site.queue / "silent").unlink()
    site.jobs()
    (site.queue / "shows").write_text("False")
    assert "shows rhea no jobs but its own" in site.refused("prune")


def test_from_a_solution_to_a_lock_and_to_the_next_one(site: Site) -> None:
    first = site.demo.serving()
    preview = site.well("lock", "--check", "--diff")
    assert "added tool 1.0" in preview
    assert not site.lock.parent.exists()
    assert "added tool 1.0" in site.well("lock")
    assert "#" in site.lock.read_text().splitlines()[-1]
    assert "changed=0" in site.well("lock"), "a second one changes nothing"
    assert "changed=0" in site.well("build"), "what is in service is what the lock names"
    assert site.demo.versions() == {first}

    site.ask("tool=2.0")
    stale = site.well("build")
    assert "demo.lock was made from another specification of demo" in stale
    assert site.demo.tool() == "tool 2.0"
    assert "upgraded tool 1.0 -> 2.0" in site.well("lock")
    assert "was made from another" not in site.well("build")

    subprocess.run(["rm", "-r", site.demo.folder], check=True)
    site.well("build")
    (mark,) = (site.demo.folder / "current").glob("specification-*.json")
    assert json.loads(mark.read_text())["explicit"], "built from the lock"


def test_what_the_repository_does_not_name_is_not_frozen(site: Site) -> None:
    site.ask("tool=2.0")
    text = site.refused("lock")
    assert "Not in service as the repository names them: demo." in text
    assert not site.lock.exists()
