# SPDX-License-Identifier: BSD-3-Clause
"""Torque: its commands, exit statuses, states and output formats.

Checked against 6.1.3 and 4.2.10. `qsub`, `qstat` and `qdel` end with a PBS error number modulo
256, which is the only dependable part of their answer: texts differ between versions.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from xml.etree import ElementTree

from custom_pbs_spawner import commands
from custom_pbs_spawner.scheduler import (
    AlreadyEndingError,
    HiddenJobError,
    Job,
    JobState,
    NodeUnreachableError,
    NotPermittedError,
    Queue,
    RefusedError,
    SchedulerError,
    UnauthorizedError,
    UnknownJobError,
    UnreachableError,
    UnreadableError,
)
from custom_pbs_spawner.units import parse_memory

log = logging.getLogger(__name__)

_STATES = {
    "Q": JobState.QUEUED,
    "W": JobState.QUEUED,
    "T": JobState.QUEUED,
    "H": JobState.HELD,
    "R": JobState.RUNNING,
    "S": JobState.RUNNING,
    "E": JobState.EXITING,
    "C": JobState.COMPLETED,
}

_FAILURES: dict[int, type[SchedulerError]] = {
    153: UnknownJobError,
    159: UnauthorizedError,
    170: AlreadyEndingError,
    224: NodeUnreachableError,
}
_UNREACHABLE = frozenset({33, 103, 104, 110, 111, 113, 162, 214})
"""No trqauthd, connection aborted, reset, timed out, refused, no route, unknown server host,
server shutting down."""

_KILLED = frozenset({124, 130, 137, 143})
"""How sudo or a shell ends when its command was killed: 128 + signal, or a timeout."""

_JOB_ID = re.compile(r"[0-9]{1,12}\.[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250})", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,250})", re.ASCII)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_NUMBER = re.compile(r"-?[0-9]{1,15}", re.ASCII)
_TAG = re.compile(r"/ganymede-([0-9a-f]{8}-[0-9a-f]{16})\.out", re.ASCII)
"""The batch script puts a submission's tag into `#PBS -o`: Torque shows that path to everybody
who may see the job, in every version, and sets no limit to its length."""
_DEAF = ("down", "unknown")


def is_job_id(text: object) -> bool:
    """Whether this is the full id of one job, `N.server`.

    Anything else must not reach a command: an empty id means all jobs to `qstat -x`, a word
    means a queue.
    """
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


def parse_jobs(text: str) -> dict[str, Job]:
    """Read the output of `qstat -x`.

    One job that cannot be read (a control character in an attribute makes the whole document
    ill-formed) does not hide the others: it is returned as UNREADABLE. 4.2.10 prints nothing
    at all when there are no jobs. Raises UnreadableError when the document is cut off.
    """
    text = _CONTROL.sub("?", text).strip()
    if text and not text.endswith("</Data>"):
        raise UnreadableError("qstat -x printed a document without an end")
    jobs: dict[str, Job] = {}
    for element in _job_elements(text):
        job = _parse_job(element)
        if job is not None:
            jobs[job.id] = job
    return jobs


def _job_elements(text: str) -> list[str]:
    """The `<Job>` elements as text. Torque escapes `<` in values, so the tags are reliable."""
    parts = text.split("<Job>")[1:]
    return ["<Job>" + part.partition("</Job>")[0] + "</Job>" for part in parts]


def _parse_job(text: str) -> Job | None:
    try:
        element = ElementTree.fromstring(text)  # noqa: S314 - no document type can occur inside
    except ElementTree.ParseError:
        job_id = text.partition("<Job_Id>")[2].partition("</Job_Id>")[0]
        log.warning("The queue's entry of job %.60r cannot be read.", job_id)
        return Job(job_id, JobState.UNREADABLE) if is_job_id(job_id) else None

    def value(name: str) -> str:
        return (element.findtext(name) or "").strip()

    job_id = value("Job_Id")
    if not is_job_id(job_id):
        return None
    return Job(
        id=job_id,
        state=_STATES.get(value("job_state"), JobState.UNREADABLE),
        name=value("Job_Name"),
        owner=value("Job_Owner").partition("@")[0],
        queue=value("queue"),
        host=parse_host(value("exec_host")),
        exit_status=_number(value("exit_status")),
        started=_number(value("start_time")),
        comment=value("comment"),
        starts=_number(value("start_count")) or 0,
        tag=_tag(value("Output_Path")),
    )


def _tag(output_path: str) -> str:
    found = _TAG.search(output_path)
    return found[1] if found and output_path.endswith(found[0]) else ""


def parse_host(exec_host: str) -> str:
    """The first node in `exec_host`, or an empty text.

    6.1.3 writes `node01/0-1`, 4.2.10 `node01/0+node01/1`.
    """
    host = exec_host.partition("+")[0].partition("/")[0]
    return host if _HOST.fullmatch(host) else ""


def parse_nodes(text: str) -> dict[str, bool]:
    """Read the output of `pbsnodes -x`: whether the server hears of each node.

    A node's state may be several words, `down,offline`. Raises UnreadableError.
    """
    if "<!" in text:
        raise UnreadableError("pbsnodes -x printed a document type")
    try:
        document = ElementTree.fromstring(_CONTROL.sub("?", text))  # noqa: S314 - no document type
    except ElementTree.ParseError as error:
        raise UnreadableError(f"pbsnodes -x printed no XML: {error}") from error
    states = {node.findtext("name", ""): node.findtext("state", "") for node in document}
    return {
        name: not any(word in state for word in _DEAF) for name, state in states.items() if name
    }


def parse_queues(text: str) -> dict[str, Queue]:
    """Read the output of `qstat -Qf`. Raises UnreadableError on a limit that makes no sense."""
    queues: dict[str, Queue] = {}
    for block in re.split(r"^Queue: ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = block.partition("\n")
        # A long value is wrapped; its next line begins with a tabulator.
        pairs = (line.partition("=") for line in rest.replace("\n\t", "").splitlines())
        values = {key.strip(): value.strip() for key, found, value in pairs if found}
        queues[name.strip()] = Queue(
            name=name.strip(),
            walltime=_limit(values, "walltime", _seconds),
            memory=_limit(values, "mem", _bytes),
            cores=_limit(values, "ncpus", int),
            enabled=values.get("enabled") == "True",
            started=values.get("started") == "True",
        )
    return queues


def _limit(values: Mapping[str, str], resource: str, read: Callable[[str], int]) -> int | None:
    text = values.get(f"resources_max.{resource}")
    try:
        return None if text is None else read(text)
    except ValueError:
        raise UnreadableError(f"qstat -Qf shows resources_max.{resource} = {text!r}") from None


def _seconds(text: str) -> int:
    """Torque prints `HH:MM:SS`, and takes `MM:SS`, `SS` and `DD:HH:MM:SS` too."""
    weights = (1, 60, 3600, 86400)
    parts = text.split(":")
    if len(parts) > len(weights):
        raise ValueError(text)
    return sum(int(part) * weight for part, weight in zip(reversed(parts), weights, strict=False))


def _bytes(text: str) -> int:
    return parse_memory(f"{text}b" if text.isdecimal() else text)


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


class Torque:
    """The commands of Torque (see `scheduler.Scheduler`).

    `qsub` and `qdel` run as the researcher through sudo, and `qstat` where the server hides other
    people's jobs; other queries need no privilege. `timeout` bounds each command, in seconds.
    `watch` hears the name of each command and how it failed, if it did.
    """

    def __init__(
        self,
        *,
        bin_directory: str,
        sudo: str,
        timeout: float,
        watch: Callable[[str, SchedulerError | None], None] = lambda command, error: None,
    ) -> None:
        self._bin = PurePosixPath(bin_directory)
        self._sudo = sudo
        self._timeout = timeout
        self._watch = watch

    async def submit(self, user: str, script: str) -> str:
        output = await self._run("qsub", as_user=user, stdin=script)
        lines = output.split()
        if not lines or not is_job_id(lines[-1]):
            raise UnreadableError(f"qsub answered {output[:200]!r} instead of a job id")
        return lines[-1]

    async def delete(self, user: str, job_id: str) -> None:
        if not is_job_id(job_id):
            raise UnknownJobError(f"{job_id!r} is not a job id")
        await self._run("qdel", job_id, as_user=user)

    async def jobs(self, user: str | None = None) -> dict[str, Job]:
        output = await self._run("qstat", "-x", as_user=user)
        # A full queue takes long enough to read that the hub would feel it.
        return await asyncio.to_thread(parse_jobs, output)

    async def job(self, job_id: str, user: str | None = None) -> Job:
        if not is_job_id(job_id):
            raise UnknownJobError(f"{job_id!r} is not a job id")
        try:
            jobs = parse_jobs(await self._run("qstat", "-x", job_id, as_user=user))
        except UnauthorizedError as error:
            raise HiddenJobError(str(error)) from error
        if job_id not in jobs:
            # 4.2.10 prints nothing when the job is somebody else's and hidden.
            raise HiddenJobError(f"qstat shows nothing of job {job_id}")
        return jobs[job_id]

    async def nodes(self) -> dict[str, bool]:
        return await asyncio.to_thread(parse_nodes, await self._run("pbsnodes", "-x"))

    async def _run(
        self, command: str, *arguments: str, as_user: str | None = None, stdin: str = ""
    ) -> str:
        """What the command prints. Raises SchedulerError for everything that can go wrong."""
        argv = [str(self._bin / command), *arguments]
        if as_user is not None:
            argv = [self._sudo, "-n", "-u", _checked(as_user), *argv]
        try:
            result = await commands.run(argv, stdin=stdin, timeout=self._timeout)
        except (commands.CommandTimeoutError, OSError) as error:
            failure: SchedulerError = UnreachableError(str(error))
        else:
            if not result.status:
                self._watch(command, None)
                return result.stdout
            failure = _failure(result)
        self._watch(command, failure)
        raise failure


def _checked(user: str) -> str:
    """The name of an account: sudo reads `#0` as a user id. Raises RefusedError."""
    if not _USER.fullmatch(user):
        raise RefusedError(f"{user!r} is not the name of an account")
    return user


def _failure(result: commands.Result) -> SchedulerError:
    """What a non-zero exit status means, with the command's own words."""
    text = " ".join(result.stderr.split())[:300] or f"exit status {result.status}"
    if result.status == 1 and text.startswith(("sudo:", "Sorry, user")):
        return NotPermittedError(text)
    if result.status < 0 or result.status in _KILLED:
        return UnreadableError(f"killed before it answered: {text}")
    if result.status in _UNREACHABLE:
        return UnreachableError(text)
    return _FAILURES.get(result.status, RefusedError)(text)
