#!/usr/bin/python
# SPDX-License-Identifier: BSD-3-Clause
"""Puts versions of conda environments into service, or the previous one of an environment.

Runs on the managed host, so it keeps to the standard library and to what Python 3.8 knows.
"""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.conda_versions import (
    FORWARD,
    ROLLBACK,
    Environment,
    VersionError,
    difference,
    readable,
)

DOCUMENTATION = r"""
module: conda_switch
short_description: Puts versions of conda environments into service
description:
  - Switches the link of each environment by one rename and writes the switch into its history.
options:
  environments:
    description: The environments, each with the name of the version.
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
      version:
        description: The version; empty for the one that was in service before.
        type: str
        default: ''
"""

EXAMPLES = r"""
- name: Take the last change of the proxy's environment back
  conda_switch:
    environments:
      - name: proxy
        root: /opt/jupyterhub/envs
"""

RETURN = r"""
switches:
  description: >-
    For each switch the name, the versions C(before) and C(after), and C(removed) and C(added), the
    lines of their specifications that differ.
  type: list
  elements: dict
  returned: always
"""


def contents(environment: Environment, version: str) -> list[str]:
    """A version and the packages that it got, for people."""
    document = environment.document(version)
    python = [line for line in readable(document) if line.startswith("python: ")]
    packages = [f"conda: {name}" for name in document.get("packages", [])]
    return [version, *packages, *python] if version else []


def previous(environment: Environment) -> str:
    """The version to go back to.

    Raises:
        VersionError: there is none.
    """
    candidates: list[str] = environment.predecessors()
    if not candidates:
        serving = environment.in_service() or "nothing"
        raise VersionError(
            f"{environment.name} has no previous version: {serving} is in service, and what was "
            f"before it is not in {environment.folder} (any more). Nothing was changed."
        )
    return candidates[0]


def switch(row: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Switch one environment; returns what changed.

    Raises:
        VersionError, OSError: nothing was switched.
    """
    environment = Environment(row["root"], row["name"])
    before = environment.in_service()
    after = row["version"] or previous(environment)
    if before == after:
        return {}
    diff = difference(environment.link, contents(environment, before), contents(environment, after))
    old, new = (readable(environment.document(version)) for version in (before, after))
    if not check_mode:
        environment.switch(after, FORWARD if row["version"] else ROLLBACK)
    return {
        "name": environment.name,
        "before": before,
        "after": after,
        "removed": [line for line in old if line not in new],
        "added": [line for line in new if line not in old],
        "diff": diff,
    }


def main() -> None:
    """Run as a module."""
    row = {
        "name": {"type": "str", "required": True},
        "root": {"type": "path", "required": True},
        "version": {"type": "str", "default": ""},
    }
    rows = {"type": "list", "elements": "dict", "options": row, "required": True}
    module = AnsibleModule(argument_spec={"environments": rows}, supports_check_mode=True)
    os.umask(0o022)
    switches: list[dict[str, Any]] = []
    try:
        for item in module.params["environments"]:
            done = switch(item, check_mode=module.check_mode)
            switches += [done] if done else []
    except (VersionError, OSError) as problem:
        module.fail_json(msg=str(problem), changed=bool(switches), switches=switches)
    diff = [done.pop("diff") for done in switches]
    module.exit_json(changed=bool(switches), diff=diff, switches=switches)


if __name__ == "__main__":
    main()
