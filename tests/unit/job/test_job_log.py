# SPDX-License-Identifier: BSD-3-Clause
"""What the hub makes of a job's log."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest
from custom_pbs_spawner import job_log
from custom_pbs_spawner.job_log import Ending, JobLog, clean, parse_ending

from tests.unit.job.processes import KeptJob

JOB = "17.encina"
LEFT = "keep_job: nothing is left on node01"


@pytest.fixture
def sudo(tmp_path: Path) -> Path:
    """A sudo that notes its arguments and does what the test says, as the caller."""
    path = tmp_path / "sudo"
    path.write_text(f'#!/bin/sh\nprintf "%s " "$@" > {tmp_path}/asked\n. {tmp_path}/does\n')
    path.chmod(0o755)
    return path


async def read(sudo: Path, does: str, user: str = "meteo1", job_id: str = JOB) -> JobLog:
    (sudo.parent / "does").write_text(does)
    return await job_log.read(user, job_id, sudo=str(sudo), reader="/opt/reader", timeout=1)


@pytest.mark.asyncio
async def test_log_is_read_as_the_researcher(sudo: Path) -> None:
    log = await read(
        sudo, f"echo one; echo 'keep_job: ended by signal 9 after 1.5 s at 12.5\n{LEFT}'"
    )
    assert (sudo.parent / "asked").read_text() == f"-n -u meteo1 /opt/reader {JOB} "
    assert log.ending == Ending("signal", 9, 12.5, True, 1.5)
    assert log.text.startswith("one\nkeep_job")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("does", "word"),
    [
        ("echo no such file >&2; exit 1", "no such file"),
        ("echo 'sudo: a password is required' >&2; exit 1", "a password is required"),
        ("exit 142", "exit status 142"),
        ("exec sleep 10", "did not answer within 1 s"),
    ],
)
async def test_log_that_cannot_be_read_is_empty_and_told(
    sudo: Path, caplog: pytest.LogCaptureFixture, does: str, word: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert await read(sudo, does) == JobLog("", None)
    assert [word in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("user", "job_id"), [("#0", JOB), ("-u", JOB), ("", JOB), ("meteo1", "17"), ("meteo1", "-x")]
)
async def test_odd_names_reach_no_command(sudo: Path, user: str, job_id: str) -> None:
    assert await read(sudo, "echo text", user, job_id) == JobLog("", None)
    assert not (sudo.parent / "asked").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("áñ€ 漢字 🛰\ttab\n", "áñ€ 漢字 🛰\ttab\n"),
        ("\x1b[31mred\x1b[0m \x00\x07\x7f\x9b", "\ufffd[31mred\ufffd[0m \ufffd\ufffd\ufffd\ufffd"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        (" 10%\r 50%\r100%\n", "100%\n"),
        ("\u202egnp.exe\u2066", "\ufffdgnp.exe\ufffd"),
        ("x" * 9000, "x" * 8192),
    ],
)
def test_text_is_fit_to_be_shown(text: str, shown: str) -> None:
    assert clean(text) == shown


ENDED = "keep_job: ended with status 3 after 12.5 s at 1795333110.2"


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        ("", None),
        ("keep_job: ended", None),
        (f"{LEFT}\n", None),
        (f"x {ENDED}", None),
        (ENDED, Ending("status", 3, 1795333110.2, False, 12.5)),
        (f"a\n{ENDED}\n{LEFT}\n", Ending("status", 3, 1795333110.2, True, 12.5)),
        (f"{ENDED}\nkeep_job: left on n: 1 (a)", Ending("status", 3, 1795333110.2, False, 12.5)),
        (f"{LEFT}\n{ENDED}\n", Ending("status", 3, 1795333110.2, False, 12.5)),
        (
            "keep_job: ended from outside after 0.0 s at 2.0\n" + LEFT,
            Ending("outside", 0, 2.0, True, 0.0),
        ),
        (
            f"{ENDED}\n{LEFT}\nkeep_job: ended by signal 11 after 9.0 s at 3.0",
            Ending("signal", 11, 3.0, False, 9.0),
        ),
        ("keep_job: ended with status " + "9" * 5000 + " after 1.0 s at 1.0", None),
    ],
)
def test_endings_are_understood(text: str, ending: Ending | None) -> None:
    assert parse_ending(text) == ending


@pytest.mark.parametrize(
    ("script", "kind", "value"),
    [("exit 9", "status", 9), (f"kill -{signal.SIGSEGV} $$", "signal", signal.SIGSEGV)],
)
def test_endings_are_those_that_the_keeper_writes(
    job: KeptJob, script: str, kind: str, value: int
) -> None:
    job.start(f"echo hello; sleep 0.2; {script}")
    job.wait()
    ending = parse_ending(clean(job.text()))
    assert ending is not None
    assert (ending.kind, ending.value, ending.nothing_left) == (kind, value, True)
    assert ending.ran >= 0.2
