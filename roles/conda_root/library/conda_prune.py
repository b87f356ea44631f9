#!/usr/bin/python
# SPDX-License-Identifier: BSD-3-Clause
"""Removes versions of conda environments that nobody needs any more.

Runs on the managed host, so it keeps to the standard library and to what Python 3.8 knows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.conda_versions import (
    Environment,
    Journal,
    VersionError,
    megabytes,
)

DOCUMENTATION = r"""
module: conda_prune
short_description: Removes old versions of conda environments
description:
  - Keeps of each environment the version in service, those that it would be rolled back to, and
    those that wait for being put into service.
  - Removes no version that a job or a process of this host may use. A job uses what was in service
    while it ran, so each version stays that was in service after one of the running jobs began.
    Nobody has to write down what a job uses, so nobody can forget or pretend it.
options:
  environments:
    description: The environments.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the environment.
        type: str
        required: true
      root:
        description: Folder that holds the environments.
        type: path
        required: true
  keep:
    description: How many versions of each environment to keep, with the one in service.
    type: int
    default: 2
  jobs:
    description: The jobs that run, all of the queue.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: Id of the job.
        type: str
        required: true
      owner:
        description: Whose it is.
        type: str
        required: true
      started:
        description: When it began, in seconds since the epoch; 0 when the queue does not say.
        type: int
        required: true
  cache_root:
    description: Holds the journals of the builds.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Keep the last two versions of the proxy's environment
  conda_prune:
    environments: [{name: proxy, root: /opt/jupyterhub/envs}]
    jobs: []
    cache_root: /opt/micromamba
"""

RETURN = r"""
report:
  description: What was removed, and what stays because of whom.
  type: list
  elements: str
  returned: always
"""

CLOCKS = 300
"""Seconds by which the clocks of the host and the queue server may differ."""
NAMED = 5
"""How many jobs are named as the reason."""


def surplus(environment: Environment, keep: int) -> list[str]:
    """The versions beyond those to keep: in service, to go back to, then the youngest ones."""
    versions = environment.versions()
    serving = environment.in_service()
    last_switch = max((entry["time"] for entry in environment.history()), default=0)
    waiting = [name for name in versions if int(environment.built(name)) > last_switch]
    order = [serving, *environment.predecessors(), *reversed(versions)]
    kept = {*list(dict.fromkeys(order))[:keep], *waiting, serving}
    return [name for name in versions if name not in kept]


def processes(folder: Path) -> tuple[dict[str, list[str]], list[dict[str, Any]]]:
    """The processes of this host that run out of an environment.

    By version those whose program can be seen; and as if they were jobs those of others, where root
    may not look into them (a container), but whose command line names the environment.
    """
    seen: dict[str, list[str]] = {}
    hidden: list[dict[str, Any]] = []
    place = f"{folder.resolve()}/"
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            try:
                program = os.readlink(entry / "exe")  # noqa: PTH115 - may be a deleted file
            except PermissionError:
                words = (entry / "cmdline").read_bytes()
                if f"{folder}/".encode() in words or place.encode() in words:
                    job = {"id": f"process {entry.name}", "owner": "of this host"}
                    hidden.append({**job, "started": began(entry)})
                continue
        except OSError:
            continue  # it has ended, or is the kernel's own
        if program.startswith(place):
            version = program[len(place) :].partition("/")[0]
            seen.setdefault(version, []).append(f"process {entry.name} (of this host)")
    return seen, hidden


def began(process: Path) -> float:
    """When a process began, in seconds since the epoch, as exactly as a second."""
    ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
    boot = re.search(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
    return (int(boot[1]) if boot else 0) + ticks / os.sysconf("SC_CLK_TCK")


def users(
    environment: Environment, version: str, jobs: list[dict[str, Any]], clocks: float
) -> list[str]:
    """The jobs that may use a version which is not in service.

    A job whose beginning is not known may use every version. The clocks that told when a job began
    and when the version left service differ by `clocks` seconds at most.
    """
    left = environment.left_service(version)
    found = [job for job in jobs if left and job["started"] <= left + clocks]
    return [f"{job['id']} ({job['owner']})" for job in found]


def prune(
    environment: Environment, keep: int, jobs: list[dict[str, Any]], *, check_mode: bool
) -> tuple[list[str], list[str]]:
    """Remove what may be removed; sentences about that, and about what stays because of its users.

    Raises:
        VersionError, OSError: something could not be read or removed.
    """
    removed, stays = [], []
    seen, hidden = processes(environment.folder)
    for version in surplus(environment, keep):
        reasons = users(environment, version, jobs, CLOCKS) + seen.get(version, [])
        reasons += users(environment, version, hidden, 1)
        if reasons:
            more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
            stays.append(f"{version} stays: may be in use by {', '.join(reasons[:NAMED])}{more}")
            continue
        size = megabytes(environment.document(version).get("size", 0))
        if not check_mode:
            environment.remove(version)
        removed.append(f"{version} {'would be' if check_mode else 'is'} removed, {size}")
    return removed, stays


def main() -> None:
    """Run as a module."""
    name = {"type": "str", "required": True}
    path = {"type": "path", "required": True}
    number = {"type": "int", "required": True}
    rows = {"type": "list", "elements": "dict", "required": True}
    module = AnsibleModule(
        argument_spec={
            "environments": {**rows, "options": {"name": name, "root": path}},
            "keep": {"type": "int", "default": 2},
            "jobs": {**rows, "options": {"id": name, "owner": name, "started": number}},
            "cache_root": path,
        },
        supports_check_mode=True,
    )
    options = module.params
    removed: list[str] = []
    stays: list[str] = []
    try:
        for row in options["environments"]:
            environment = Environment(row["root"], row["name"])
            arguments = (environment, max(1, options["keep"]), options["jobs"])
            if module.check_mode:
                gone, used = prune(*arguments, check_mode=True)
            else:
                with Journal(Path(options["cache_root"]), environment.folder).held(0):
                    gone, used = prune(*arguments, check_mode=False)
            removed += gone
            stays += used
    except (VersionError, OSError) as problem:
        module.fail_json(msg=str(problem), changed=bool(removed), report=removed + stays)
    diff = {"before": "".join(line.split()[0] + "\n" for line in removed), "after": ""}
    module.exit_json(changed=bool(removed), diff=diff, report=removed + stays)


if __name__ == "__main__":
    main()
