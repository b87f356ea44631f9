# SPDX-License-Identifier: BSD-3-Clause
"""Torque's answers, in the forms of 6.1.3 and 4.2.10."""

from __future__ import annotations

import pytest
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
    UnknownJobError,
    UnreachableError,
    UnreadableError,
)
from custom_pbs_spawner.torque import Torque, is_job_id, parse_host, parse_jobs, parse_queues

from tests.unit.spawner.small_torque import SmallTorque

NEW = '<?xml version="1.0"?>\n<Data>{}</Data>\n'
RUNNING = (
    "<Job><Job_Id>246.encina</Job_Id><Job_Name>jupyterhub-singleuser</Job_Name>"
    "<Job_Owner>meteo1@ganymede</Job_Owner><resources_used><walltime>00:01:05</walltime>"
    "</resources_used><job_state>R</job_state><queue>tintel</queue>"
    "<exec_host>node01/0-1</exec_host><comment>Job started on Sun Nov 22 at 07:59</comment>"
    "<start_time>1795334357</start_time><submit_args>-N a&lt;b&amp;</submit_args></Job>"
)
QUEUED = (
    "<Job><Job_Id>247.encina</Job_Id><Job_Owner>meteo2@ganymede</Job_Owner>"
    "<job_state>Q</job_state></Job>"
)


def test_new_and_old_document() -> None:
    jobs = parse_jobs(NEW.format(RUNNING + QUEUED))
    assert jobs == parse_jobs(f"<Data>{RUNNING}{QUEUED}</Data>")
    assert jobs["246.encina"] == Job(
        id="246.encina",
        state=JobState.RUNNING,
        name="jupyterhub-singleuser",
        owner="meteo1",
        queue="tintel",
        host="node01",
        started=1795334357,
        comment="Job started on Sun Nov 22 at 07:59",
    )
    assert jobs["247.encina"].state is JobState.QUEUED


@pytest.mark.parametrize("text", ["", "\n", NEW.format(""), "<Data></Data>"])
def test_no_jobs(text: str) -> None:
    assert parse_jobs(text) == {}


@pytest.mark.parametrize(
    ("letter", "state"),
    [
        ("Q", JobState.QUEUED),
        ("W", JobState.QUEUED),
        ("T", JobState.QUEUED),
        ("H", JobState.HELD),
        ("R", JobState.RUNNING),
        ("S", JobState.RUNNING),
        ("E", JobState.EXITING),
        ("C", JobState.COMPLETED),
        ("X", JobState.UNREADABLE),
        ("", JobState.UNREADABLE),
    ],
)
def test_states(letter: str, state: JobState) -> None:
    text = f"<Job><Job_Id>1.encina</Job_Id><job_state>{letter}</job_state></Job>"
    assert parse_jobs(NEW.format(text))["1.encina"].state is state


@pytest.mark.parametrize("status", [0, 1, 271, -11])
def test_exit_status(status: int) -> None:
    text = (
        "<Job><Job_Id>1.encina</Job_Id><job_state>C</job_state>"
        f"<exit_status>{status}</exit_status></Job>"
    )
    assert parse_jobs(NEW.format(text))["1.encina"].exit_status == status


@pytest.mark.parametrize(
    "broken", ["<Variable_List>\x1b[0m \x07</Variable_List>", "<a></b>", "<a>&undefined;</a>"]
)
def test_one_broken_job_does_not_hide_the_others(broken: str) -> None:
    text = f"<Job><Job_Id>1.encina</Job_Id>{broken}</Job>"
    jobs = parse_jobs(NEW.format(text + RUNNING))
    assert jobs["246.encina"].state is JobState.RUNNING
    assert jobs["1.encina"].state is JobState.UNREADABLE


def test_job_with_control_characters_is_read() -> None:
    text = RUNNING.replace("a&lt;b", "esc\x1b[0m bell\x07")
    assert parse_jobs(NEW.format(text))["246.encina"].host == "node01"


@pytest.mark.parametrize("cut", [30, 100, -2])
def test_document_that_is_cut_off(cut: int) -> None:
    with pytest.raises(UnreadableError):
        parse_jobs(NEW.format(RUNNING + QUEUED).strip()[:cut])


@pytest.mark.parametrize(
    ("exec_host", "host"),
    [
        ("node01/0", "node01"),
        ("node01/0-1", "node01"),
        ("node01/0+node01/1", "node01"),
        ("n01.cluster.example/3", "n01.cluster.example"),
        ("", ""),
        ("evil host/0", ""),
        ("-o/0", ""),
        ("a" * 100_000, ""),
    ],
)
def test_exec_host(exec_host: str, host: str) -> None:
    assert parse_host(exec_host) == host


@pytest.mark.parametrize("text", ["1.encina", "1181178.encina", "12.full.name-1.org"])
def test_job_ids(text: str) -> None:
    assert is_job_id(text)


@pytest.mark.parametrize(
    "text", ["", "12", "12.", ".encina", "tintel", "1[].encina", "1.a b", "1.a\n", "-1.a", None, 12]
)
def test_what_is_no_job_id(text: object) -> None:
    assert not is_job_id(text)


QSTAT_QF = """\
Queue: tintel
    queue_type = Execution
    total_jobs = 5
    state_count = Transit:0 Queued:0 Held:0 Waiting:0 Running:1 Exiting:0 Comp
\tlete:4 
    resources_max.walltime = 24:00:00
    resources_max.mem = 8gb
    resources_max.ncpus = 4
    resources_default.walltime = 01:00:00
    enabled = True
    started = True

Queue: long
    queue_type = Execution
    resources_max.walltime = 168:00:00
    resources_default.walltime = 24:00:00
    enabled = False
    started = True

"""  # noqa: W291 - as qstat prints it


def test_queues() -> None:
    assert parse_queues(QSTAT_QF) == {
        "tintel": Queue("tintel", walltime=86400, memory=8 * 1024**3, cores=4),
        "long": Queue("long", walltime=604800, enabled=False),
    }
    assert parse_queues("") == {}


def test_queue_limit_that_makes_no_sense() -> None:
    with pytest.raises(UnreadableError):
        parse_queues("Queue: a\n    resources_max.mem = lots\n")


# --- the commands --------------------------------------------------------------------------


@pytest.fixture
def torque(queue: SmallTorque) -> Torque:
    queue.home("meteo1")
    return Torque(bin_directory=str(queue.bin), sudo=str(queue.bin / "sudo"), timeout=5)


@pytest.mark.asyncio
async def test_life_of_a_job(torque: Torque, queue: SmallTorque) -> None:
    job_id = await torque.submit("meteo1", "#!/bin/sh\nexec sleep 100\n")
    assert job_id == "1.encina"
    assert (await torque.job(job_id)).owner == "meteo1"
    assert set(await torque.jobs()) == {job_id}
    while "pid" not in queue.job(1):
        pass
    await torque.delete("meteo1", job_id)
    while (await torque.job(job_id)).state is not JobState.COMPLETED:
        pass
    with pytest.raises(AlreadyEndingError):
        await torque.delete("meteo1", job_id)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("knob", "error"),
    [
        ("fail 190 qsub: submit error (Job exceeds queue resource limits)", RefusedError),
        ("fail 172 qsub: submit error (Unknown queue)", RefusedError),
        ("fail 177 qsub: submit error (Bad UID for job execution)", RefusedError),
        ("fail 111 qsub: cannot connect to server encina", UnreachableError),
        ("fail 33 qsub: could not connect to trqauthd", UnreachableError),
        ("fail 214 qsub: Server shutting down", UnreachableError),
        ("fail 1 sudo: a password is required", NotPermittedError),
        ("fail 1 Sorry, user rhea is not allowed to execute", NotPermittedError),
        ("print", UnreadableError),
        ("print <html>", UnreadableError),
        ("print 17", UnreadableError),
        ("hang", UnreachableError),
    ],
)
async def test_submission_errors(
    torque: Torque, queue: SmallTorque, knob: str, error: type[SchedulerError]
) -> None:
    queue.knob("qsub", knob)
    with pytest.raises(error):
        await torque.submit("meteo1", "#!/bin/sh\n")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("knob", "error"),
    [
        ("fail 153", UnknownJobError),  # 4.2.10 says nothing more
        ("fail 159 qdel: Unauthorized Request", NotPermittedError),
        ("fail 170 qdel: invalid state for job - EXITING", AlreadyEndingError),
        ("fail 224 qdel: Server could not connect to MOM 228.encina", NodeUnreachableError),
        ("hang", UnreachableError),
    ],
)
async def test_deletion_errors(
    torque: Torque, queue: SmallTorque, knob: str, error: type[SchedulerError]
) -> None:
    queue.knob("qdel", knob)
    with pytest.raises(error):
        await torque.delete("meteo1", "1.encina")


@pytest.mark.asyncio
async def test_hidden_job(torque: Torque, queue: SmallTorque) -> None:
    """query_other_jobs = False: 6.1.3 refuses, 4.2.10 shows nothing; neither means `gone`."""
    for knob in ("fail 159 qstat: Unauthorized Request  1.encina", "print", "print <Data></Data>"):
        queue.knob("qstat", knob)
        with pytest.raises(HiddenJobError):
            await torque.job("1.encina")
    queue.reset()
    with pytest.raises(UnknownJobError):
        await torque.job("1.encina")


@pytest.mark.asyncio
@pytest.mark.parametrize("job_id", ["", "tintel", "all", "1.encina 2.encina", "-p"])
async def test_what_is_no_id_reaches_no_command(
    torque: Torque, queue: SmallTorque, job_id: str
) -> None:
    with pytest.raises(UnknownJobError):
        await torque.delete("meteo1", job_id)
    with pytest.raises(UnknownJobError):
        await torque.job(job_id)
    assert queue.calls() == []


@pytest.mark.asyncio
@pytest.mark.parametrize("user", ["", "#0", "-s", "a b", "root\n", "%wheel"])
async def test_what_is_no_account_reaches_no_command(
    torque: Torque, queue: SmallTorque, user: str
) -> None:
    with pytest.raises(RefusedError):
        await torque.submit(user, "#!/bin/sh\n")
    assert queue.calls() == []


@pytest.mark.asyncio
async def test_missing_command() -> None:
    torque = Torque(bin_directory="/nonexistent", sudo="/nonexistent/sudo", timeout=2)
    with pytest.raises(UnreachableError):
        await torque.jobs()
