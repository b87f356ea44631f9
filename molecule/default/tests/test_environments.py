# SPDX-License-Identifier: BSD-3-Clause
"""The day of a change: built beside, switched, taken back, and tidied up, while people compute.

The tests follow each other: what one leaves in service is where the next one begins.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from cluster import Cluster
from machine import REPOSITORY
from testinfra.host import Host

from tests.hub_client import KERNEL, SERVER, Researcher, wait_for
from tests.playbooks import command, environment, play, site

NAME = "jh-ganymede-pyGMS-3.11"
FOLDERS = {"hub": "/opt/jupyterhub/envs/hub", NAME: f"/software/jupyterhub/kernels/{NAME}"}
JOURNALS = "/opt/micromamba/builds"
# A kernel with less in it, quickly built, and a hub with a package more.
SMALL = ["python=3.11.*", "ipykernel"]
HUB = ["python=3.11", "pip", "zict"]


def rows(kernel: list[str], hub: list[str], *kernel_checks: str) -> list[dict[str, Any]]:
    """The table of environments with another kernel and another hub."""
    table = yaml.safe_load((REPOSITORY / "group_vars/all/environments.yml").read_text())
    changed = [
        row | {"conda": hub} if row["name"] == "hub" else row
        for row in table["ganymede_environments"]
    ]
    root = "{{ kernels_environments_root }}"
    checks = ["python -m ipykernel_launcher --version", *kernel_checks]
    return [*changed, {"name": NAME, "root": root, "conda": kernel, "check": checks}]


def serving(host: Host, name: str) -> str:
    """The version of an environment that is in service."""
    version: str = host.check_output(f"readlink {FOLDERS[name]}/current")
    return version


def versions(host: Host, name: str) -> set[str]:
    """The versions of an environment that are there, complete or not."""
    return set(host.check_output(f"find {FOLDERS[name]} -mindepth 1 -maxdepth 1 -type d").split())


def started(host: Host, unit: str) -> str:
    """When a unit was started last."""
    moment: str = host.service(unit).systemd_properties["ExecMainStartTimestampMonotonic"]
    return moment


@pytest.fixture(scope="module")
def old(host: Host) -> dict[str, str]:
    """The versions in service before the first test."""
    return {name: serving(host, name) for name in FOLDERS}


@pytest.fixture(scope="module")
def kernel(running: Researcher, old: dict[str, str]) -> str:
    """A kernel that was started before all changes."""
    started: str = running.start_kernel(SERVER, KERNEL)
    prefix = running.compute(SERVER, started, "import sys; kept = 42; print(sys.prefix)")
    assert prefix.endswith(old[NAME])
    return started


@pytest.fixture
def still_computes(running: Researcher, kernel: str) -> Callable[[str], None]:
    """See that the old kernel goes on, with a module that it has not loaded yet."""

    def look(module: str) -> None:
        code = f"import {module}; print(kept, {module}.__file__)"
        kept, file = running.compute(SERVER, kernel, code).split()
        assert kept == "42"
        assert file.startswith(FOLDERS[NAME])

    return look


@pytest.fixture(autouse=True)
def _in_order(kernel: str) -> None:
    """All of it happens while a kernel computes."""


def test_change_is_built_beside_and_switched(
    cluster: Cluster,
    host: Host,
    running: Researcher,
    old: dict[str, str],
    still_computes: Callable[[str], None],
) -> None:
    units = {unit: started(host, unit) for unit in ("jupyterhub-hub", "jupyterhub-proxy")}
    status, text, _ = site(cluster, "--diff", conda_root_environments=rows(SMALL, HUB))
    assert status == 0, text
    for name in FOLDERS:
        new = serving(host, name)
        assert new != old[name]
        assert f"-{old[name]}" in text, "the diff names both"
        assert f"+{new}" in text
        assert f"{new} built in " in text
    assert started(host, "jupyterhub-hub") != units["jupyterhub-hub"]
    assert started(host, "jupyterhub-proxy") == units["jupyterhub-proxy"]
    still_computes("matplotlib.pyplot")
    fresh = running.start_kernel(SERVER, KERNEL)
    code = "import importlib.util, sys; print(sys.prefix, importlib.util.find_spec('matplotlib'))"
    assert running.compute(SERVER, fresh, code).split() == [
        f"{FOLDERS[NAME]}/{serving(host, NAME)}",
        "None",
    ]


def test_failed_build_changes_nothing(cluster: Cluster, host: Host) -> None:
    before = {name: (serving(host, name), versions(host, name)) for name in FOLDERS}
    broken = rows([*SMALL, "no-such-package"], HUB)
    status, text, counts = site(cluster, conda_root_environments=broken)
    assert status != 0
    assert counts["changed"] == 0
    assert f"Environment {NAME}: micromamba failed with status 1" in text
    assert f"{serving(host, NAME)} stays in service." in text
    assert {name: (serving(host, name), versions(host, name)) for name in FOLDERS} == before


def test_killed_playbook_leaves_nothing_after_the_next_run(cluster: Cluster, host: Host) -> None:
    before = versions(host, NAME)
    slow = rows([*SMALL, "zict"], HUB, "sleep 7654399")
    with subprocess.Popen(
        command(cluster, "site", conda_root_environments=slow),
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as playbook:
        wait_for(
            "the build gets to its check",
            lambda: host.run("pgrep --full --exact 'sleep 7654399'").rc == 0,
            120,
        )
        # The playbook with its workers, which have sessions of their own; on the host the module,
        # whose number its journal names.
        workers = subprocess.check_output(["pgrep", "--parent", str(playbook.pid)], text=True)
        for number in (playbook.pid, *map(int, workers.split())):
            os.kill(number, signal.SIGKILL)
        host.check_output(f"kill -9 $(cut -d' ' -f1 {JOURNALS}/{NAME}-*)")
        host.check_output("pkill --full --exact 'sleep 7654399'")
    assert len(versions(host, NAME) - before) == 1
    status, text, _ = site(cluster, conda_root_environments=rows(SMALL, HUB))
    assert status == 0, text
    assert "not complete, is removed" in text
    assert versions(host, NAME) == before


def test_hub_goes_back_and_restarts_alone(
    cluster: Cluster,
    host: Host,
    old: dict[str, str],
    running: Researcher,
    still_computes: Callable[[str], None],
) -> None:
    new = serving(host, "hub")
    units = {unit: started(host, unit) for unit in ("jupyterhub-hub", "jupyterhub-proxy")}
    status, text, _ = play(cluster, "rollback", "--check", "--diff", target="hub")
    assert status == 0, text
    assert "hub would be restarted" in text
    assert serving(host, "hub") == new
    assert started(host, "jupyterhub-hub") == units["jupyterhub-hub"]

    status, text, _ = play(
        cluster, "rollback", target="hub", conda_root_environments=rows(SMALL, HUB)
    )
    assert status == 0, text
    assert f"hub: went back from {new} to {old['hub']}." in text
    assert "take out conda: zict" in text
    assert serving(host, "hub") == old["hub"]
    assert started(host, "jupyterhub-hub") != units["jupyterhub-hub"]
    assert started(host, "jupyterhub-proxy") == units["jupyterhub-proxy"]
    assert host.file("/etc/systemd/system/jupyterhub-hub.service").contains(old["hub"])
    running.wait_ready(SERVER, 60)
    still_computes("xarray")


def test_kernel_goes_back_and_nothing_restarts(
    cluster: Cluster, host: Host, old: dict[str, str], still_computes: Callable[[str], None]
) -> None:
    units = {unit: started(host, unit) for unit in ("jupyterhub-hub", "jupyterhub-proxy")}
    status, text, _ = play(cluster, "rollback", target=NAME)
    assert status == 0, text
    assert serving(host, NAME) == old[NAME]
    assert {unit: started(host, unit) for unit in units} == units
    status, text, counts = play(cluster, "rollback", target=NAME)
    assert status != 0
    assert counts["changed"] == 0
    assert f"{NAME} has no previous version" in text
    status, text, _ = play(cluster, "rollback", target="nosuch")
    assert status != 0
    assert f"write -e target= and one of hub, proxy, notebook, {NAME}" in " ".join(text.split())
    still_computes("pandas")


def test_what_a_job_may_use_is_not_pruned(
    cluster: Cluster, host: Host, running: Researcher, old: dict[str, str]
) -> None:
    """The job began before the versions that were rolled back left service."""
    both = {name: versions(host, name) for name in FOLDERS}
    status, text, counts = play(cluster, "prune", conda_root_keep=1)
    assert (status, counts["changed"]) == (0, 0), text
    assert "stays: may be in use by" in text
    assert f"({running.name})" in text
    running.stop(SERVER)
    wait_for("server gone", lambda: not (running.server(SERVER) or {}).get("ready"), 60)
    wait_for("its job", lambda: host.run("pgrep -u meteo1").rc != 0, 60)

    host.check_output("systemctl stop pbs_server")
    status, text, counts = play(cluster, "prune", conda_root_keep=1)
    host.check_output("systemctl start pbs_server")
    assert status != 0
    assert counts["changed"] == 0
    assert "Nothing was removed, because it is not known which jobs run" in text
    assert {name: versions(host, name) for name in FOLDERS} == both

    host.run_expect(
        [0], "timeout 60 sh -c 'until /usr/local/torque/bin/qstat -x; do sleep 1; done'"
    )
    status, text, _ = play(cluster, "prune", conda_root_keep=1)
    assert status == 0, text
    for name, folder in FOLDERS.items():
        assert versions(host, name) == {f"{folder}/{old[name]}"}, text


def test_site_has_nothing_to_do_where_it_began(cluster: Cluster) -> None:
    status, text, counts = site(cluster)
    assert (status, counts["changed"]) == (0, 0), text
