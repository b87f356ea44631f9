# SPDX-License-Identifier: BSD-3-Clause
"""Check what an administrator wrote in group_vars, before any host is touched.

    - validate_tables:
        profiles: "{{ jupyterhub_profiles }}"
        kernels: "{{ kernels_table }}"
        queues: the output of `qstat -Qf`, or omitted
        nodes: the output of `pbsnodes -x`, or omitted
        server: the output of `qmgr -c 'print server'`, or omitted
        user: the hub's account, as which the queue will be asked

The tables are held to the code that the hub runs (custom_pbs_spawner.tables), and all other
variables of the roles, name and kind of value, to the argument_specs of the roles. Fails with all
problems at once, one sentence each: file, row, field, what to write. What works and costs more
than it needs to is a warning. Returns `kernel_checks`: what has to be looked at on the host for the
kernels that are there already.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES_FILE = "group_vars/all/profiles.yml"
KERNELS_FILE = "group_vars/all/kernels.yml"

sys.path.append(str(REPOSITORY / "roles/jupyterhub/files"))

from custom_pbs_spawner.tables import (  # noqa: E402
    good_kernels,
    good_profiles,
    kernel_problems,
    kernel_warnings,
    profile_problems,
)
from custom_pbs_spawner.torque import parse_queues  # noqa: E402
from custom_pbs_spawner.torque_site import most_cores, shows_all_jobs  # noqa: E402

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # not a public interface: without it the sentences name the usual file
    Origin = None


class ActionModule(ActionBase):
    """The action; see the module's text."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"profiles", "kernels", "queues", "nodes", "server", "user"})

    def run(self, tmp: None = None, task_vars: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Raise AnsibleActionFail with all problems, or report that nothing changed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        profiles, kernels = arguments["profiles"], arguments["kernels"]
        queues, nodes = arguments.get("queues"), arguments.get("nodes")
        problems = [
            *profile_problems(
                profiles,
                file=_file_of(profiles, PROFILES_FILE),
                queues=None if queues is None else parse_queues(queues),
                node_cores=None if nodes is None else most_cores(nodes),
            ),
            *kernel_problems(
                kernels, file=_file_of(kernels, KERNELS_FILE), profiles=good_profiles(profiles)
            ),
            *kernel_file_problems(kernels, _file_of(kernels, KERNELS_FILE)),
            *name_problems(kernels, _file_of(kernels, KERNELS_FILE), task_vars or {}),
            *setting_problems(
                _of_the_site(task_vars or {}),
                {**role_settings(REPOSITORY / "roles"), **site_settings(REPOSITORY / "playbooks")},
                self._templar.template,
            ),
        ]
        if problems:
            raise AnsibleActionFail("\n".join(["Nothing was changed on any host.", *problems]))
        file, profiles = _file_of(kernels, KERNELS_FILE), good_profiles(profiles)
        warnings = [
            *([] if queues is None else queue_warnings(arguments)),
            *kernel_warnings(kernels, file=file, profiles=profiles),
        ]
        return {
            **result,
            "changed": False,
            "warnings": warnings,
            "kernel_checks": kernel_checks(kernels, file),
        }


def queue_warnings(answers: Mapping[str, str]) -> Iterator[str]:
    """Say what of the queue server could not be asked, and what its settings cost."""
    if "nodes" not in answers:
        yield "pbsnodes -x does not answer: the cores of the profiles were not held to the nodes."
    if "server" not in answers:
        yield (
            "qmgr -c 'print server' does not answer: it is not known whether the queue server "
            "shows other people's jobs (query_other_jobs)."
        )
    elif not shows_all_jobs(answers["server"], answers["user"]):
        yield (
            f"The queue server shows {answers['user']} no jobs but its own (query_other_jobs is "
            "not True). The hub works, and asks for the jobs of each researcher by a command of "
            "her own: in each jupyterhub_query_interval one qstat through sudo for each researcher "
            "with a server, in place of one for all. A manager of the queue ends that with: "
            "qmgr -c 'set server query_other_jobs = True'."
        )


def _role_kernels() -> ModuleType:
    """The code with which the role makes environments and kernelspecs of the table."""
    path = REPOSITORY / "roles/kernels/filter_plugins/kernels.py"
    spec = importlib.util.spec_from_file_location("ganymede_role_kernels", path)
    if spec is None or spec.loader is None:
        raise AnsibleActionFail(f"{path} cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rows(kernels: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """The kernels that can be used, by their number, with the fields that were written."""
    for number, kernel in good_kernels(kernels).items():
        yield number, kernel.model_dump(exclude_unset=True)


def kernel_file_problems(kernels: object, file: str) -> Iterator[str]:
    """Say what is wrong with the files that the table of kernels names."""
    role = _role_kernels()
    for number, row in _rows(kernels):
        for problem in role.file_problems(row, str(REPOSITORY)):
            yield f"{file}: row {number} ({row['name']}), {problem}"


def name_problems(kernels: object, file: str, variables: Mapping[str, Any]) -> Iterator[str]:
    """Say which kernels have the name of an environment of the service itself."""
    rows = variables.get("ganymede_environments")
    taken = {str(row.get("name")) for row in rows or () if isinstance(row, Mapping)}
    for number, row in _rows(kernels):
        if row["name"] in taken:
            yield (
                f'{file}: row {number} ({row["name"]}), field "name": an environment of the '
                "service has this name; write another one."
            )


def kernel_checks(kernels: object, file: str) -> list[dict[str, Any]]:
    """What start-kernel has to find on the host, and what to say where it does not."""
    role = _role_kernels()
    return [
        {
            "arguments": check["arguments"],
            "where": f'{file}: row {number} ({row["name"]}), field "{check["field"]}"',
            "advice": check["advice"],
        }
        for number, row in _rows(kernels)
        if (check := role.host_check(row))
    ]


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
YEAR = 365 * 24 * 3600
BOUNDS = (
    (re.compile(r"_port$"), 1, 65535),
    (re.compile(r"_idle_timeout$"), 0, YEAR),  # 0: never
    (re.compile(r"_(timeout|interval|wait)$"), 1, YEAR),
    (re.compile(""), 0, 2**31 - 1),
)
"""What a number may be, by the name of its setting; the first that fits. Times are seconds."""
FORMS = {
    "ganymede_base_url": (r"/[\w./~-]*", "a path that begins with /, such as /ganymede"),
    "ganymede_home": (r"/.*\{username\}.*", "an absolute path with {username} in it"),
}
"""What a text must look like where its role cannot tell, and what to write."""
TOGETHER = ("proxy_tls_certificate", "proxy_tls_key")
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
    text = "".join(path.read_text(encoding="utf-8") for path in playbooks.rglob("*.yml"))
    return {"ganymede": {name: {} for name in re.findall(r"\bganymede_\w+", text)}}


def setting_problems(
    variables: Mapping[str, Any],
    settings: Mapping[str, Options],
    template: Callable[[Any], Any],
) -> Iterator[str]:
    """Say which variables of the site have a name or a value that their role does not know."""
    yield from _form_problems(variables, template)
    for name, value in sorted(variables.items()):
        file = _file_of(value, "")
        for role, options in settings.items():
            if not name.startswith(f"{role}_"):
                continue
            if name not in options:
                likely = difflib.get_close_matches(name, options, n=1)
                advice = f"write {likely[0]}" if likely else "take it out"
                yield f"{file}: there is no setting {name}; {advice}."
            elif name not in CHECKED_ROW_BY_ROW and (
                wish := _wish(name, template(value), options[name])
            ):
                yield f"{file}: {name}: {value!r} is not accepted; write {wish}."


def _form_problems(variables: Mapping[str, Any], template: Callable[[Any], Any]) -> Iterator[str]:
    for name, (form, wish) in FORMS.items():
        value = variables.get(name)
        if value is not None and not re.fullmatch(form, str(template(value))):
            yield f"{_file_of(value, '')}: {name}: {value!r} is not accepted; write {wish}."
    given = [name for name in TOGETHER if name in variables and template(variables[name])]
    if len(given) == 1:
        file = _file_of(variables[given[0]], "")
        yield f"{file}: {' and '.join(TOGETHER)} belong together; write both, or neither."
    rows = variables.get("ganymede_environments")
    for row in rows if isinstance(rows, list) else ():
        lock = row.get("python_lock") if isinstance(row, Mapping) else None
        if lock and not (REPOSITORY / str(lock)).is_file():
            yield (
                f"{_file_of(rows, '')}: ganymede_environments, {row.get('name')}: python_lock "
                f"{str(lock)!r} is not in the repository; write the path of a file that is."
            )


def _wish(name: str, value: object, option: Mapping[str, Any]) -> str:
    """What should stand in the place of a value; nothing when the value is right."""
    spec = {key: option[key] for key in ("type", "choices", "elements") if key in option}
    checked = ArgumentSpecValidator({"value": spec}).validate({"value": value})
    kind = option.get("type", "str")
    if kind == "list" and isinstance(value, str):
        # Ansible would take it apart at its commas.
        return KINDS[kind]
    if not checked.error_messages:
        if kind not in ("int", "float"):
            return ""
        low, high = next(bounds[1:] for bounds in BOUNDS if bounds[0].search(name))
        # Not "or": a number that is none (.nan) is neither.
        in_range = low <= checked.validated_parameters["value"] <= high
        return "" if in_range else f"{KINDS[kind]} from {low} to {high}"
    if "choices" in option:
        return f"one of {', '.join(map(str, option['choices']))}"
    return KINDS[kind]


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
    if path.is_relative_to(REPOSITORY / "playbooks"):
        # Nobody wrote it: a playbook's own default.
        return usual
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)
