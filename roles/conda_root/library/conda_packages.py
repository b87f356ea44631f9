#!/usr/bin/python
# SPDX-License-Identifier: BSD-3-Clause
"""Lists the conda packages of the versions in service. Changes nothing.

Runs on the managed host, so it keeps to the standard library and to what Python 3.8 knows.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.conda_versions import Environment, VersionError, installed

DOCUMENTATION = r"""
module: conda_packages
short_description: Lists the conda packages of the versions in service
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
  micromamba:
    description: The program.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: List what the proxy runs in
  conda_packages:
    environments: [{name: proxy, root: /opt/jupyterhub/envs}]
    micromamba: /opt/micromamba/bin/micromamba
"""

RETURN = r"""
packages:
  description: By environment, name, version, build, url and sha256 of each package.
  type: dict
  returned: always
"""


def main() -> None:
    """Run as a module."""
    row = {
        "name": {"type": "str", "required": True},
        "root": {"type": "path", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "environments": {"type": "list", "elements": "dict", "options": row, "required": True},
            "micromamba": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    packages: dict[str, Any] = {}
    try:
        for item in module.params["environments"]:
            environment = Environment(item["root"], item["name"])
            prefix = environment.folder / environment.in_service()
            packages[environment.name] = installed(module.params["micromamba"], prefix)
    except VersionError as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(changed=False, packages=packages)


if __name__ == "__main__":
    main()
