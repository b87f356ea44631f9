# SPDX-License-Identifier: BSD-3-Clause
"""What is run as the researcher to read her log: bounded, and led astray by nothing."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.job.processes import FILES

READER = FILES / "bin" / "read_job_log.py"
JOB = "17.encina"
LIMIT = 8192

# The program with another home in the place of this account's.
HARNESS = """
import pwd, runpy, sys, types
account = types.SimpleNamespace(pw_dir=sys.argv[1])
pwd.getpwuid = lambda uid: account
sys.argv[:2] = []
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".ganymede/logs").mkdir(parents=True)
    return tmp_path


def log_of(home: Path) -> Path:
    return home / ".ganymede/logs" / f"{JOB}.log"


def read(home: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/usr/bin/python3", "-I", "-c", HARNESS, str(home), str(READER), *arguments],
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, LIMIT, LIMIT + 1, 3 * LIMIT])
def test_the_end_is_printed(home: Path, size: int) -> None:
    content = os.urandom(size)
    log_of(home).write_bytes(content)
    outcome = read(home, JOB)
    assert (outcome.returncode, outcome.stdout) == (0, content[-LIMIT:])


def test_huge_file_costs_nothing(home: Path) -> None:
    with log_of(home).open("wb") as file:
        file.truncate(1 << 40)
        file.seek(0, os.SEEK_END)
        file.write(b"the end")
    assert read(home, JOB).stdout == bytes(LIMIT - 7) + b"the end"


def test_it_is_the_accounts_own_home() -> None:
    """Not what the environment says of it."""
    outcome = subprocess.run(
        ["/usr/bin/python3", "-I", READER, "999999999999.nowhere"],
        capture_output=True, env={"HOME": "/nonexistent"}, check=False,
    )  # fmt: skip
    assert outcome.returncode == 1
    assert f"{pwd.getpwuid(os.getuid()).pw_dir}/.ganymede/logs/" in outcome.stderr.decode()


def _link(path: Path) -> None:
    target = path.parent / "secret"
    target.write_text("secret")
    path.symlink_to(target)


ODD: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "a link": _link,
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe that nobody writes": os.mkfifo,
    "a folder": Path.mkdir,
    "a file without permission": lambda path: path.touch(0o000),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_anything_but_a_regular_file_is_not_read(
    home: Path, make: Callable[[Path], object]
) -> None:
    make(log_of(home))
    start = time.monotonic()
    outcome = read(home, JOB)
    if log_of(home).is_file() and not log_of(home).is_symlink() and os.geteuid() == 0:
        assert outcome.returncode == 0, "root may read it, and there is nothing in it"
    else:
        assert outcome.returncode == 1
        assert outcome.stderr
    assert outcome.stdout == b""
    assert time.monotonic() - start < 5


def test_device_is_not_read(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(log_of(home), 0o020666, os.makedev(1, 5))  # /dev/zero
    outcome = read(home, JOB)
    assert (outcome.returncode, outcome.stdout) == (1, b"")
    assert b"not a regular file" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        ["17"],
        ["encina"],
        ["17."],
        ["17.encina", "18.encina"],
        ["17.encina\n"],
        ["17.encina\n18.encina"],
        ["../17.encina"],
        ["17./../../../../etc/passwd"],
        ["17.encina/../x"],
        ["-h"],
        ["17.encina -x"],
        ["\u0661.encina"],
        ["1" * 13 + ".encina"],
    ],
)
def test_only_one_id_of_a_job_is_taken(home: Path, arguments: list[str]) -> None:
    log_of(home).write_text("text")
    outcome = read(home, *arguments)
    assert (outcome.returncode, outcome.stdout) == (2, b"")


def test_a_file_system_that_hangs_ends_it(home: Path) -> None:
    """An open that does not return: a named pipe, opened as a careless reader would."""
    os.mkfifo(log_of(home))
    careless = (
        READER.read_text().replace(" | os.O_NONBLOCK", "").replace("TIMEOUT_S = 5", "TIMEOUT_S = 1")
    )
    assert careless != READER.read_text()
    program = home / "careless.py"
    program.write_text(careless)
    start = time.monotonic()
    outcome = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", HARNESS, str(home), str(program), JOB],
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert outcome.returncode == -14
    assert time.monotonic() - start < 10
