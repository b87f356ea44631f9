# SPDX-License-Identifier: BSD-3-Clause
"""Check what an administrator wrote in group_vars, before any host is touched.

    - validate_tables:
        profiles: "{{ jupyterhub_profiles }}"
        kernels: "{{ kernels_table }}"
        queues: the output of `qstat -Qf`, or omitted

The tables are held to the code that the hub runs (custom_pbs_spawner.tables), and the names of
role variables to the argument_specs of the roles. Fails with all problems at once, one sentence
each: file, row, field, what to write.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES_FILE = "group_vars/all/profiles.yml"
KERNELS_FILE = "group_vars/all/kernels.yml"

sys.path.append(str(REPOSITORY / "roles/jupyterhub/files"))

from custom_pbs_spawner.tables import kernel_problems, profile_problems  # noqa: E402
from custom_pbs_spawner.torque import parse_queues  # noqa: E402

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # not a public interface: without it the sentences name the usual file
    Origin = None


class ActionModule(ActionBase):
    """The action; see the module's text."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"profiles", "kernels", "queues"})

    def run(self, tmp: None = None, task_vars: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Raise AnsibleActionFail with all problems, or report that nothing changed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        profiles, kernels = arguments["profiles"], arguments["kernels"]
        text = arguments.get("queues")
        queues = None if text is None else parse_queues(text)
        problems = [
            *profile_problems(profiles, file=_file_of(profiles, PROFILES_FILE), queues=queues),
            *kernel_problems(kernels, file=_file_of(kernels, KERNELS_FILE)),
            *unknown_settings(task_vars or {}, role_settings(REPOSITORY / "roles")),
        ]
        if problems:
            raise AnsibleActionFail("\n".join(["Nothing was changed on any host.", *problems]))
        return {**result, "changed": False}


def role_settings(roles: Path) -> dict[str, set[str]]:
    """The names that the argument_specs of each role know."""
    return {
        path.parents[1].name: set(
            yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"]
        )
        for path in sorted(roles.glob("*/meta/argument_specs.yml"))
    }


def unknown_settings(
    variables: Mapping[str, Any], settings: Mapping[str, set[str]]
) -> Iterator[str]:
    """Say which variables of group_vars and host_vars are named like a role's, and are not."""
    for name, value in sorted(variables.items()):
        file = _file_of(value, "")
        if "group_vars/" not in file and "host_vars/" not in file:
            continue
        for role, known in settings.items():
            if name.startswith(f"{role}_") and name not in known:
                likely = difflib.get_close_matches(name, known, n=1)
                advice = f"write {likely[0]}" if likely else f"see roles/{role}/defaults/main.yml"
                yield f"{file}: the role {role} has no setting {name}; {advice}."


def _file_of(value: object, usual: str) -> str:
    """The file that a value was written in, relative to the repository where it is inside."""
    origin = Origin.get_tag(value) if Origin is not None else None
    if origin is None or not origin.path:
        return usual
    path = Path(origin.path).resolve()
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)
