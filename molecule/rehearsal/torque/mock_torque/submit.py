# SPDX-License-Identifier: BSD-3-Clause
"""What the server checks when a job is submitted, and the job that results."""

from __future__ import annotations

import base64
import re
import time
from pathlib import PurePosixPath

from mock_torque import errors, job, resources
from mock_torque.errors import PbsError
from mock_torque.home import Account, Home
from mock_torque.job import Job
from mock_torque.resources import NodeRequest
from mock_torque.state import OLD_VERSION, Node, Queue, State
from mock_torque.wire import Message

REQUIRED = ("name", "script", "variables", "path_folder")
OPTIONAL = (
    "queue", "keep", "mail_points", "mail_users", "account", "shell", "umask", "work_dir",
    "submit_args", "init_work_dir", "output_path", "error_path", "run_as", "proxy_user",
)  # fmt: skip
NO_NODES = (
    "cannot locate feasible nodes (nodes file is empty, all systems are busy, "
    "or no nodes have the requested feature)"
)


def check_form(request: Message) -> None:
    """Refuse what no qsub would send: a user may write to trqauthd's socket without one.

    Raises PbsError (27).
    """
    try:
        sound = _is_sound(request)
    except (KeyError, TypeError, AttributeError, ValueError):
        sound = False
    if not sound:
        raise PbsError(errors.BAD_SYNTAX, msg="Invalid Syntax")


def _is_sound(request: Message) -> bool:
    base64.b64decode(request["script"], validate=True)
    texts = [request[name] for name in REQUIRED]
    texts += [request.get(name) or "" for name in OPTIONAL]
    texts += [item for pair in (request.get("resources") or {}).items() for item in pair]
    numbers = [request.get(name, 0) for name in ("priority", "execution_time")]
    return (
        all(isinstance(text, str) and "\0" not in text for text in texts)
        and all(isinstance(number, int) for number in numbers)
        and re.fullmatch("[0-7]{1,4}", request.get("umask") or "0") is not None
        and request.get("join", "n") in {"oe", "eo", "n"}
    )


def make_job(state: State, home: Home, identity: Message, request: Message, number: int) -> Job:
    """The job of a ``submit`` request, already checked; raises PbsError."""
    user, host = str(identity["user"]), str(identity["host"])
    queue = find_queue(state, request.get("queue"))
    given = _given_resources(state, request.get("resources") or {})
    if "depend" in (request.get("extra") or {}):
        raise PbsError(errors.BAD_DEPENDENCY)
    account = _check_user(state, home, user, host, request)
    _check_queue(state, queue, user, host)
    values = _complete(queue, given)
    _check_limits(state, queue, values)
    _check_nodes(state, values.get("nodes", "1"))
    now = time.time()
    new = Job(
        sequence=number,
        server=state.name,
        name=request["name"],
        user=user,
        group=home.group_name(account.gid),
        owner_host=host,
        queue=queue.name,
        script=request["script"],
        variables=(
            f"PBS_O_QUEUE={queue.name},{request['variables']},PBS_O_HOST={host},"
            f"PBS_O_SERVER={state.name}"
        ),
        resources=values,
        ctime=now,
        mtime=now,
        submit_host=host,
        queue_rank=number,
    )
    for name in ("join", "keep", "mail_points", "mail_users", "priority", "rerunable", "account",
                 "shell", "umask", "work_dir", "submit_args", "init_work_dir"):  # fmt: skip
        if request.get(name) is not None:
            setattr(new, name, request[name])
    new.output_path = _output_path(new, request, "o", host)
    new.error_path = _output_path(new, request, "e", host)
    _first_state(new, request, now)
    return new


def find_queue(state: State, text: str | None) -> Queue:
    """The queue of ``-q``: ``queue``, ``queue@server``, ``@server`` or nothing (default_queue)."""
    name = (text or "").partition("@")[0] or state.attributes.get("default_queue", "")
    if name not in state.queues:
        raise PbsError(errors.UNKNOWN_QUEUE, msg="requested queue not found")
    return state.queues[name]


def _given_resources(state: State, given: dict[str, str]) -> dict[str, str]:
    """Normalised values; an empty one counts as not given."""
    try:
        return {name: resources.normalise(name, text) for name, text in given.items() if text}
    except PbsError as error:
        if state.version == OLD_VERSION and error.code == errors.BAD_VALUE:
            name = str(error).rsplit(" ", 1)[1]
            raise PbsError(errors.BAD_VALUE, what=f" {name}") from None
        raise


def _check_user(state: State, home: Home, user: str, host: str, request: Message) -> Account:
    account = home.account(user)
    if account is None:
        raise PbsError(errors.BAD_UID, msg=f"User {user} does not exist in server password file\n")
    if account.uid == 0:
        raise PbsError(errors.BAD_UID, msg=f"root user {user} not allowed")
    proxy = request.get("proxy_user")
    if proxy and not is_manager(state, user, host):
        raise PbsError(
            errors.BAD_UID,
            msg=f"User '{user}' is attempting to submit a proxy job for user '{proxy}' "
            "but is not a manager",
        )
    wanted = str(request.get("run_as") or user).partition("@")[0]
    if wanted != user or not _may_submit_from(state, host):
        raise PbsError(errors.BAD_UID, msg=f"ruserok failed validating {user}/{wanted} from {host}")
    return account


def _may_submit_from(state: State, host: str) -> bool:
    allowed = {state.name, *state.names("submit_hosts")}
    return host in allowed or host.partition(".")[0] in allowed


def is_manager(state: State, user: str, host: str, *, operator: bool = False) -> bool:
    """Whether ``user@host`` is in ``managers`` (or ``operators``); root of the server's host is."""
    entries = {f"root@{state.name}", *state.names("managers")}
    if operator:
        entries.update(state.names("operators"))
    return f"{user}@{host}" in entries or f"{user}@*" in entries


def _check_queue(state: State, queue: Queue, user: str, host: str) -> None:
    where = f"user {user}@{host}, queue {queue.name}"
    if not queue.flag("enabled"):
        raise PbsError(errors.QUEUE_DISABLED, msg=f"queue is disabled: {where}")
    jobs = [item for item in state.jobs.values() if item.queue == queue.name and item.state != "C"]
    limit = queue.number("max_queuable")
    if limit is not None and len(jobs) >= limit:
        text = f"total number of jobs in queue exceeds the queue limit: {where}"
        raise PbsError(errors.QUEUE_FULL, msg=text)
    limit = queue.number("max_user_queuable")
    if limit is not None and sum(item.user == user for item in jobs) >= limit:
        text = f"total number of current user's jobs exceeds the queue limit: {where}"
        raise PbsError(errors.USER_QUEUE_FULL, msg=text)
    allowed = queue.attributes.get("acl_users", "").split(",")
    if queue.flag("acl_user_enable") and user not in allowed and f"{user}@{host}" not in allowed:
        raise PbsError(errors.UNAUTHORIZED, msg=f"user ACL rejected the submitting user: {where}")


def _complete(queue: Queue, given: dict[str, str]) -> dict[str, str]:
    """Add the queue's defaults and nodect, in the order in which TORQUE shows them."""
    values = dict(given)
    if "nodes" in values:
        values["nodect"] = _node_count(values["nodes"])
    for name, text in queue.resources("resources_default").items():
        values.setdefault(name, resources.normalise(name, text))
    if "nodes" in values:
        values.setdefault("nodect", _node_count(values["nodes"]))
    return values


def _node_count(text: str) -> str:
    return str(sum(request.count for request in resources.node_requests(text)))


def _check_limits(state: State, queue: Queue, values: dict[str, str]) -> None:
    """The first limit that is broken is reported, without its value."""
    maxima = queue.resources("resources_max")
    if state.version == OLD_VERSION:
        maxima = dict(sorted(maxima.items()))
    for bound, limits in (("max", maxima), ("min", queue.resources("resources_min"))):
        for name, text in limits.items():
            limit = resources.amount(name, text)
            if name not in values or limit is None:
                continue
            value = resources.amount(name, values[name])
            # A negative size is a huge number to TORQUE.
            broken = value is not None and (
                value < 0 or (value > limit if bound == "max" else value < limit)
            )
            if broken:
                msg = f"cannot satisfy queue {bound} {name} requirement"
                raise PbsError(errors.EXCEEDS_LIMITS, msg=msg)


def _check_nodes(state: State, text: str) -> None:
    """The nodes asked for must exist, busy, down or offline as they may be."""
    spare = list(state.nodes.values())
    for request in resources.node_requests(text):
        for _ in range(request.count):
            fitting = next((node for node in spare if could_serve(node, request)), None)
            if fitting is None:
                raise PbsError(errors.EXCEEDS_LIMITS, msg=NO_NODES)
            spare.remove(fitting)


def could_serve(node: Node, request: NodeRequest) -> bool:
    """Whether an empty ``node`` has what the request names."""
    if request.name is not None and request.name not in {node.name, *node.properties}:
        return False
    return node.np >= request.ppn and set(request.properties) <= set(node.properties)


def _output_path(new: Job, request: Message, letter: str, host: str) -> str:
    """``host:path`` of the output (o) or error (e) file."""
    given = request.get("output_path" if letter == "o" else "error_path")
    name = f"{PurePosixPath(new.name).name}.{letter}{new.sequence}"
    folder = request["path_folder"].rstrip("/")
    if not given:
        return f"{host}:{folder}/{name}"
    if given.endswith("/"):  # qsub marks an existing folder so
        given += name
    if ":" in given.partition("/")[0]:
        return str(given)
    return f"{host}:{given}" if given.startswith("/") else f"{host}:{folder}/{given}"


def _first_state(new: Job, request: Message, now: float) -> None:
    if request.get("hold"):
        new.state, new.substate = "H", job.HELD
    elif (request.get("execution_time") or 0) > now:
        new.state, new.substate = "W", job.WAITING
        new.execution_time = int(request["execution_time"])
    else:
        new.etime = now


def release_waiting(state: State, now: float) -> bool:
    """Queue the jobs whose ``-a`` time has come; tells whether there were any."""
    due = [
        item for item in state.jobs.values()
        if item.state == "W" and (item.execution_time or 0) <= now
    ]  # fmt: skip
    for item in due:
        item.set_state("Q", job.QUEUED)
        item.etime = now
        state.save_job(item)
    return bool(due)
