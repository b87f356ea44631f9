# SPDX-License-Identifier: BSD-3-Clause
"""The language of qmgr: parse one directive, apply it, print it back."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from mock_torque import errors, resources
from mock_torque.errors import PbsError
from mock_torque.state import OLD_VERSION, Queue, State, parse_node

VERBS = ("create", "delete", "set", "unset", "print", "list")
OBJECTS = ("server", "queue", "node")
BOOLEANS = {
    "enabled", "started", "acl_user_enable", "scheduling", "query_other_jobs", "acl_host_enable",
    "allow_node_submit", "poll_jobs", "down_on_error", "mom_job_sync", "moab_array_compatible",
    "note_append_on_error",
}  # fmt: skip
NUMBERS = {
    "max_queuable", "max_user_queuable", "max_running", "max_user_run", "Priority",
    "keep_completed", "kill_delay", "tcp_timeout", "node_check_rate", "scheduler_iteration",
    "next_job_number", "log_events", "job_stat_rate", "nppcu", "timeout_for_job_delete",
    "timeout_for_job_requeue",
}  # fmt: skip
TEXTS = {"queue_type", "default_queue", "mail_from"}
LISTS = {"acl_users", "managers", "operators", "submit_hosts", "acl_hosts"}
QUEUE_ONLY = {
    "enabled", "started", "acl_user_enable", "acl_users", "max_queuable", "max_user_queuable",
    "max_running", "max_user_run", "Priority", "queue_type",
}  # fmt: skip
LIMITS = ("resources_max", "resources_min", "resources_default")
SYNTAX = "cannot parse directive"

_ASSIGNMENT = re.compile(r"\s*([\w.]+)\s*(\+=|-=|=)\s*(.*?)\s*(?:,(?=\s*[\w.]+\s*[-+]?=)|$)")


@dataclass(frozen=True)
class Directive:
    """``set queue tintel enabled = True``: verb, object, name, assignments."""

    verb: str
    kind: str
    name: str
    assignments: tuple[tuple[str, str, str], ...]  # (attribute, operator, value)


def parse(line: str) -> Directive:
    """One line of qmgr; verbs and objects may be cut short. Raises PbsError (27)."""
    words = line.split(None, 2)
    if len(words) < 2:  # noqa: PLR2004 - a verb and an object
        raise PbsError(errors.BAD_SYNTAX, msg=SYNTAX)
    verb, kind = _complete(words[0], VERBS), _complete(words[1], OBJECTS)
    rest = words[2] if words[2:] else ""
    name = ""
    head, _, tail = rest.partition(" ")
    if kind != "server":
        name, rest = head, tail
    elif head.startswith("@") or head == "default":
        rest = tail
    verb = "print" if verb == "list" else verb
    if verb == "unset":
        names = [part.strip() for part in rest.split(",")]
        return Directive(verb, kind, name, tuple((item, "unset", "") for item in names))
    return Directive(verb, kind, name, tuple(_assignments(rest)))


def _complete(word: str, full: tuple[str, ...]) -> str:
    for candidate in full:
        if candidate.startswith(word.lower()):
            return candidate
    raise PbsError(errors.BAD_SYNTAX, msg=SYNTAX)


def _assignments(text: str) -> list[tuple[str, str, str]]:
    if "=" not in text:
        # create node node01 np=4 PROPERTY has no other words without "="
        if text.strip():
            raise PbsError(errors.BAD_SYNTAX, msg=SYNTAX)
        return []
    separated = re.sub(r"(?<=\S) +(?=[\w.]+=)", ",", text) if " = " not in text else text
    return [
        (name, operator, value.strip("\"'"))
        for name, operator, value in _ASSIGNMENT.findall(separated)
    ]


def apply(state: State, directive: Directive) -> None:
    """Change the state; raises PbsError."""
    changes = {"server": _apply_server, "queue": _apply_queue, "node": _apply_node}
    changes[directive.kind](state, directive)
    state.save()


def _apply_server(state: State, directive: Directive) -> None:
    for name, operator, value in directive.assignments:
        if name in QUEUE_ONLY or name.partition(".")[0] in LIMITS:
            raise PbsError(errors.UNDEFINED_ATTRIBUTE, what=name)
        _assign(state.attributes, name, operator, value)
        if name == "next_job_number":
            state.next_number = int(state.attributes.pop(name))


def _apply_queue(state: State, directive: Directive) -> None:
    name = directive.name
    if directive.verb == "create":
        if name in state.queues:
            raise PbsError(errors.QUEUE_EXISTS)
        state.queues[name] = Queue(name)
    elif name not in state.queues:
        raise PbsError(errors.UNKNOWN_QUEUE)
    if directive.verb == "delete":
        if any(job.queue == name and job.state != "C" for job in state.jobs.values()):
            raise PbsError(errors.OBJECT_BUSY)
        del state.queues[name]
        return
    queue = state.queues[name]
    queue.mtime = int(time.time())
    for attribute, operator, value in directive.assignments:
        if attribute not in QUEUE_ONLY and attribute.partition(".")[0] not in LIMITS:
            raise PbsError(errors.UNDEFINED_ATTRIBUTE, what=attribute)
        _assign(queue.attributes, attribute, operator, value)


def _apply_node(state: State, directive: Directive) -> None:
    name = directive.name
    words = [f"{key}={value}" for key, _, value in directive.assignments]
    if directive.verb == "create":
        try:
            state.nodes[name] = parse_node(" ".join([name, *words]))
        except ValueError as error:
            raise PbsError(errors.BAD_VALUE, what=str(error)) from error
    elif name not in state.nodes:
        raise PbsError(errors.UNKNOWN_NODE, msg="cannot locate specified node")
    elif directive.verb == "delete":
        del state.nodes[name]
    else:
        _set_node(state, directive)
    state.save_nodes()


def _set_node(state: State, directive: Directive) -> None:
    node = state.nodes[directive.name]
    for key, operator, value in directive.assignments:
        if key == "state" and value in {"offline", "free"}:
            node.offline = (value == "offline") != (operator == "-=")
        elif key == "np" and value.isdigit():
            node.np = int(value)
        elif key == "note":
            node.note = value
        else:
            raise PbsError(errors.BAD_VALUE, what=key)


def _assign(target: dict[str, str], name: str, operator: str, value: str) -> None:
    if operator == "unset":
        target.pop(name, None)
    elif name in LISTS:
        _assign_list(target, name, operator, value)
    else:
        target[name] = _checked(name, value)


def _assign_list(target: dict[str, str], name: str, operator: str, value: str) -> None:
    new = [item.strip() for item in value.split(",") if item.strip()]
    old = [item for item in target.get(name, "").split(",") if item]
    if operator == "=":
        old = []
    if operator == "-=":
        target[name] = ",".join(item for item in old if item not in new)
    else:
        target[name] = ",".join(old + [item for item in new if item not in old])


def _checked(name: str, value: str) -> str:
    stem, _, resource = name.partition(".")
    if stem in LIMITS:
        try:
            return resources.normalise(resource, value)
        except PbsError as error:
            raise PbsError(error.code, what=name) from None
    if name in BOOLEANS:
        word = value.lower()
        if word not in {"true", "false", "t", "f", "1", "0", "y", "n"}:
            raise PbsError(errors.BAD_VALUE, what=name)
        return str(word in {"true", "t", "1", "y"})
    if name in NUMBERS:
        if not value.isdigit():
            raise PbsError(errors.BAD_VALUE, what=name)
        return value
    if name in TEXTS:
        return "Execution" if name == "queue_type" else value
    raise PbsError(errors.UNDEFINED_ATTRIBUTE, what=name)


def show(state: State, directive: Directive) -> str:
    """``print server``, ``print queue NAME``, ``print node NAME``; raises PbsError."""
    if directive.kind == "server":
        return _show_server(state)
    if directive.kind == "queue":
        names = sorted(state.queues) if directive.name in {"", "@default"} else [directive.name]
        if not set(names) <= set(state.queues):
            raise PbsError(errors.UNKNOWN_QUEUE)
        return _comment("Create queues and set their attributes.") + "".join(
            _show_queue(state.queues[name]) for name in names
        )
    if directive.name not in state.nodes:
        raise PbsError(errors.UNKNOWN_NODE, msg="cannot locate specified node")
    node = state.nodes[directive.name]
    return f"create node {node.name}\nset node {node.name} np = {node.np}\n"


def _comment(text: str) -> str:
    return f"#\n# {text}\n#\n"


def _show_queue(queue: Queue) -> str:
    lines = [f"create queue {queue.name}", f"set queue {queue.name} queue_type = Execution"]
    rest = {key: value for key, value in queue.attributes.items() if key != "queue_type"}
    tail = {key: rest.pop(key, "False") for key in ("enabled", "started")}
    lines += [f"set queue {queue.name} {key} = {value}" for key, value in {**rest, **tail}.items()]
    return _comment(f"Create and define queue {queue.name}") + "\n".join(lines) + "\n"


def _server_defaults(state: State) -> dict[str, str]:
    """What the server shows though nobody set it, in its order."""
    old = state.version == OLD_VERSION
    root = f"root@{state.name}"
    return {
        "scheduling": "True",
        "acl_hosts": state.name,
        "managers": root,
        "operators": root,
        "default_queue": "",
        "log_events": "511" if old else "2047",
        "mail_from": "adm",
        "query_other_jobs": "",
        "node_check_rate": "150",
        "tcp_timeout": "300",
        "job_stat_rate": "45" if old else "300",
        "poll_jobs": "True",
        "mom_job_sync": "True",
        "keep_completed": "",
        "submit_hosts": "",
        "next_job_number": str(state.next_number),
        "moab_array_compatible": "True",
        "nppcu": "1",
    }


def _show_server(state: State) -> str:
    text = _comment("Create queues and set their attributes.")
    text += "".join(_show_queue(state.queues[name]) for name in sorted(state.queues))
    values = {**_server_defaults(state), **state.attributes}
    lines = [
        f"set server {key} {'+=' if number else '='} {item}\n"
        for key, value in values.items()
        if value
        for number, item in enumerate(value.split(",") if key in LISTS else [value])
    ]
    return text + _comment("Set server attributes.") + "".join(lines)
