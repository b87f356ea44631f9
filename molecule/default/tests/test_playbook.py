# SPDX-License-Identifier: BSD-3-Clause
"""The administrator at work: edit a table, run site.yml, nobody's notebook notices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from cluster import Cluster
from machine import REPOSITORY
from testinfra.host import Host

from tests.hub_client import KERNEL, SERVER, Researcher
from tests.playbooks import site

TABLE = REPOSITORY / "group_vars/all/profiles.yml"


def profiles(host: Host) -> list[dict[str, Any]]:
    """The table as the hub has it."""
    rows: list[dict[str, Any]] = json.loads(
        host.file("/opt/jupyterhub/run/profiles.json").content_string
    )["profiles"]
    return rows


def started(host: Host, unit: str) -> str:
    """When a unit was started last."""
    moment: str = host.service(unit).systemd_properties["ExecMainStartTimestampMonotonic"]
    return moment


def test_check_mode_is_silent_on_a_converged_host(cluster: Cluster) -> None:
    status, text, counts = site(cluster, "--check", "--diff")
    assert (status, counts.get("changed"), counts.get("failed")) == (0, 0, 0), text


def test_bad_table_stops_before_anything_is_touched(cluster: Cluster, host: Host) -> None:
    before = started(host, "jupyterhub-hub"), profiles(host)
    rows = [*profiles(host), {**profiles(host)[0], "key": "typo", "queue": "tintell"}]
    status, text, counts = site(cluster, jupyterhub_profiles=rows)
    assert status != 0
    assert counts["changed"] == 0
    assert 'row 5 (typo), field "queue"' in text
    assert (started(host, "jupyterhub-hub"), profiles(host)) == before


def test_new_profile_restarts_the_hub_only(
    cluster: Cluster, host: Host, running: Researcher, record_property: Callable[[str, float], None]
) -> None:
    kernel = running.start_kernel(SERVER, KERNEL)
    running.compute(SERVER, kernel, "kept = 'still here'")
    hub, proxy = started(host, "jupyterhub-hub"), started(host, "jupyterhub-proxy")
    rows = profiles(host)
    short = {**rows[0], "key": "short", "display_name": "short", "walltime": 3600}

    start = time.monotonic()
    status, text, _ = site(cluster, jupyterhub_profiles=[*rows, short])
    # Into the report: 30 s are promised, but it depends on what else the machine does.
    record_property("seconds_until_the_profile_is_offered", round(time.monotonic() - start, 1))

    assert status == 0, text
    assert [row["key"] for row in profiles(host)] == [*(row["key"] for row in rows), "short"]
    assert started(host, "jupyterhub-hub") != hub
    assert started(host, "jupyterhub-proxy") == proxy
    assert running.compute(SERVER, kernel, "print(kept)") == "still here"

    status, text, counts = site(cluster)
    assert (status, counts["failed"]) == (0, 0), text
    assert profiles(host) == rows
