# SPDX-License-Identifier: BSD-3-Clause
"""Check what an administrator wrote in group_vars, before any host is touched.

    - validate_tables:
        profiles: "{{ jupyterhub_profiles }}"
        kernels: "{{ kernels_table }}"
        queues: the output of `qstat -Qf`, or omitted

The tables are held to the code that the hub runs (custom_pbs_spawner.tables), and all other
variables of the roles, name and kind of value, to the argument_specs of the roles. Fails with all
problems at once, one sentence each: file, row, field, what to write.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
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
            *setting_problems(
                _of_the_site(task_vars or {}),
                {**role_settings(REPOSITORY / "roles"), **site_settings(REPOSITORY / "playbooks")},
                self._templar.template,
            ),
        ]
        if problems:
            raise AnsibleActionFail("\n".join(["Nothing was changed on any host.", *problems]))
        return {**result, "changed": False}


Options = Mapping[str, Mapping[str, Any]]
"""The variables of a role by name, as its argument_specs describe them."""

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list, one entry beginning with - a line",
    "dict": "a set of fields",
    "str": "a text",
    "path": "a path",
}
CHECKED_ROW_BY_ROW = {"jupyterhub_profiles", "kernels_table"}


def role_settings(roles: Path) -> dict[str, Options]:
    """The variables of each role."""
    return {
        path.parents[1].name: yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"][
            "main"
        ]["options"]
        for path in sorted(roles.glob("*/meta/argument_specs.yml"))
    }


def site_settings(playbooks: Path) -> dict[str, Options]:
    """The variables of the site: those that the playbooks hand to the roles."""
    text = "".join(path.read_text(encoding="utf-8") for path in playbooks.glob("*.yml"))
    return {"ganymede": {name: {} for name in re.findall(r"\bganymede_\w+", text)}}


def setting_problems(
    variables: Mapping[str, Any],
    settings: Mapping[str, Options],
    template: Callable[[Any], Any],
) -> Iterator[str]:
    """Say which variables of the site have a name or a value that their role does not know."""
    for name, value in sorted(variables.items()):
        file = _file_of(value, "")
        for role, options in settings.items():
            if not name.startswith(f"{role}_"):
                continue
            if name not in options:
                likely = difflib.get_close_matches(name, options, n=1)
                advice = f"write {likely[0]}" if likely else "take it out"
                yield f"{file}: there is no setting {name}; {advice}."
            elif name not in CHECKED_ROW_BY_ROW and (wish := _wish(template(value), options[name])):
                yield f"{file}: {name}: {value!r} is not accepted; write {wish}."


def _wish(value: object, option: Mapping[str, Any]) -> str:
    """What should stand in the place of a value; nothing when the value is right."""
    spec = {key: option[key] for key in ("type", "choices", "elements") if key in option}
    if not ArgumentSpecValidator({"value": spec}).validate({"value": value}).error_messages:
        return ""
    if "choices" in option:
        return f"one of {', '.join(map(str, option['choices']))}"
    return KINDS[option.get("type", "str")]


def _of_the_site(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that are written in group_vars or host_vars."""
    return {
        name: value
        for name, value in variables.items()
        if re.search(r"\b(group|host)_vars/", _file_of(value, ""))
    }


def _file_of(value: object, usual: str) -> str:
    """The file that a value was written in, relative to the repository where it is inside."""
    origin = Origin.get_tag(value) if Origin is not None else None
    if origin is None or not origin.path:
        return usual
    path = Path(origin.path).resolve()
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)
