# SPDX-License-Identifier: BSD-3-Clause
"""The administrator's commands against a rehearsal cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

from cluster import Cluster
from machine import REPOSITORY

TIMEOUT = 600  # seconds


def command(cluster: Cluster, playbook: str, *more: str, **variables: Any) -> list[str]:
    """The command that runs a playbook against a cluster."""
    inventory = "inventory/rehearsal" if len(cluster.hosts()) > 1 else "molecule/default/inventory"
    return [
        "ansible-playbook",
        f"--inventory={inventory}",
        f"--extra-vars={json.dumps({'rehearsal_name': cluster.name} | variables)}",
        *more,
        f"playbooks/{playbook}.yml",
    ]


def environment() -> dict[str, str]:
    """Variables for such a command."""
    return os.environ | {"ANSIBLE_FORCE_COLOR": "false", "ANSIBLE_NOCOLOR": "true"}


def play(
    cluster: Cluster, playbook: str, *more: str, **variables: Any
) -> tuple[int, str, dict[str, int]]:
    """Run a playbook; its exit status, what it said, and the hub's line of the recap."""
    done = subprocess.run(
        command(cluster, playbook, *more, **variables),
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    text = done.stdout + done.stderr
    recap = re.search(r"^ganymede +: (.*)$", text, re.MULTILINE)
    counts = dict(re.findall(r"(\w+)=(\d+)", recap[1])) if recap else {}
    return done.returncode, text, {name: int(count) for name, count in counts.items()}


def site(cluster: Cluster, *more: str, **variables: Any) -> tuple[int, str, dict[str, int]]:
    """Run site.yml, as `play` does."""
    return play(cluster, "site", *more, **variables)
