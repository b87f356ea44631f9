# SPDX-License-Identifier: BSD-3-Clause
"""The keeper: nothing of a job outlives it, and it ends as its server does."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time

import pytest

from tests.unit.job.processes import (
    CLINGING,
    KEEPER,
    PYTHON,
    KeptJob,
    parent,
    running,
    sleeping,
    switches,
    wait_for,
)

NODE = os.uname().nodename


def last_lines(job: KeptJob) -> list[str]:
    return job.text().splitlines()[-2:]


@pytest.mark.parametrize("line", CLINGING.values(), ids=CLINGING)
def test_nothing_is_left_when_the_server_has_ended(job: KeptJob, line: str) -> None:
    job.start(f"{line}\nsleep 0.3\ntouch up\nsleep 0.5\nexit 7")
    wait_for("the server", (job.root / "up").exists)
    assert len(sleeping(job.number)) == 1
    assert job.wait() == 7
    assert sleeping(job.number) == []
    assert last_lines(job)[1] == f"keep_job: nothing is left on {NODE}"


@pytest.mark.parametrize("victim", ["keeper", "watcher"])
@pytest.mark.parametrize("line", CLINGING.values(), ids=CLINGING)
def test_nothing_is_left_when_it_is_killed(job: KeptJob, line: str, victim: str) -> None:
    job.start(f"{line}\nsleep 0.3\necho up\nsleep {{number}}1")
    job.wait_text("up\n")
    assert len(sleeping(job.number + "\0")) == 1
    os.kill(getattr(job, victim), signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    job.wait_text(f"keep_job: nothing is left on {NODE}\n")
    assert sleeping(job.number) == []
    assert last_lines(job)[0].startswith("keep_job: ended from outside after ")


def test_many_processes_that_multiply_are_all_ended(job: KeptJob) -> None:
    """Each has five children in sessions of their own, and each of them has five, deaf all."""
    tree = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for depth in range(3):\n"
        "    for n in range(5):\n"
        "        if os.fork() == 0:\n"
        "            os.setsid()\n"
        "            break\n"
        "    else:\n"
        "        break\n"
        "time.sleep(10000)\n"
    )
    (job.root / f"{job.number}.py").write_text(tree)
    job.start("python3 {number}.py & echo up; wait")
    wait_for("156 processes", lambda: len(running(f"{job.number}.py")) == 156)
    os.kill(job.keeper, signal.SIGKILL)
    job.wait_text(f"keep_job: nothing is left on {NODE}\n")
    assert running(f"{job.number}.py") == []


def test_chain_of_processes_that_each_start_the_next_and_end_is_caught(job: KeptJob) -> None:
    """None of them lives long enough to be found in a list; it would end by itself after 30 s."""
    chain = (
        "import os, signal, time\n"
        "end = time.time() + 30\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while time.time() < end:\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
        "    os.setsid()\n"
    )
    (job.root / f"{job.number}.py").write_text(chain)
    start = time.monotonic()
    job.start("python3 {number}.py & sleep 0.3")
    assert job.wait() == 0
    assert last_lines(job)[1] == f"keep_job: nothing is left on {NODE}"
    assert running(f"{job.number}.py") == []
    assert time.monotonic() - start < 25, "it did not just wait for the chain's end"


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_status_is_the_servers(job: KeptJob, status: int) -> None:
    job.start(f"exit {status}")
    assert job.wait() == status
    assert last_lines(job)[0].startswith(f"keep_job: ended with status {status} after ")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGPIPE])
def test_signal_that_ended_the_server_ends_the_keeper(job: KeptJob, number: int) -> None:
    job.start(f"kill -{number} $$")
    assert job.wait() == -number
    assert last_lines(job)[0].startswith(f"keep_job: ended by signal {number} after ")


def test_server_that_is_not_there(job: KeptJob) -> None:
    again = subprocess.run(
        [PYTHON, "-I", "-S", str(KEEPER), "--", str(job.root / "no-server")],
        capture_output=True, text=True, check=False, start_new_session=True,
    )  # fmt: skip
    assert again.returncode == 127
    assert "cannot be started: No such file or directory" in again.stdout


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"])
def test_signals_are_handed_on(job: KeptJob, name: str) -> None:
    job.start(f"trap 'echo got {name}; exit 5' {name}\necho up\nwhile :; do sleep 0.05; done")
    job.wait_text("up\n")
    os.kill(job.keeper, getattr(signal, f"SIG{name}"))
    assert job.wait() == 5
    assert f"got {name}\n" in job.text()


def test_server_finds_signals_as_the_batch_script_left_them(job: KeptJob) -> None:
    job.start("grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status", before="trap '' USR1")
    assert job.wait() == 0
    masks = dict(line.split(":\t") for line in job.text().splitlines() if line.startswith("Sig"))
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) == 1 << (signal.SIGUSR1 - 1)


def test_server_has_time_to_end_well_when_the_keeper_is_killed(job: KeptJob) -> None:
    """Torque gives a session three milliseconds."""
    job.start("trap 'sleep 0.5; echo saved; exit 0' TERM\necho up\nwhile :; do sleep 0.05; done")
    job.wait_text("up\n")
    os.killpg(job.keeper, signal.SIGTERM)
    os.killpg(job.keeper, signal.SIGKILL)
    job.wait_text(f"keep_job: nothing is left on {NODE}\n")
    assert "saved\n" in job.text()
    assert last_lines(job)[0].startswith("keep_job: ended from outside after ")


def test_what_a_profile_started_ends_and_nobody_elses(job: KeptJob) -> None:
    """Known by the job's cookie; another job, the job's session and terminals are left alone."""
    other = f"setsid env PBS_JOBCOOKIE={'0' * 32} sleep {{number}}1 &"
    job.start("true", before=f"setsid sleep {{number}} & sleep {{number}}2 &\n{other}\nsleep 0.3")
    terminal, slave = pty.openpty()
    worker = subprocess.Popen(
        ["/usr/bin/setsid", "--ctty", "sleep", f"{job.number}3"],
        env=job.environment, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    assert job.wait() == 0
    assert sleeping(job.number + "\0") == []
    assert len(sleeping(job.number + "1")) == 1
    assert len(sleeping(job.number + "2")) == 1, "it is in the job's session: Torque's"
    assert worker.poll() is None
    worker.kill()
    worker.wait()
    os.close(terminal)
    os.close(slave)


def test_without_a_cookie_only_its_own_descent_ends(job: KeptJob) -> None:
    del job.environment["PBS_JOBCOOKIE"]
    job.start("setsid sleep {number} &", before="setsid sleep {number}1 & sleep 0.2")
    assert job.wait() == 0
    assert sleeping(job.number + "\0") == []
    assert len(sleeping(job.number + "1")) == 1


def test_full_disk_below_the_log_changes_nothing(job: KeptJob) -> None:
    job.start("setsid sleep {number} & exit 3", stdout="/dev/full")
    assert job.wait() == 3
    assert sleeping(job.number) == []


def test_keeper_and_watcher_sleep_while_the_server_works(job: KeptJob) -> None:
    job.start("echo up; exec sleep {number}")
    job.wait_text("up\n")
    pid = wait_for("the server", lambda: sleeping(job.number))[0]
    watcher = parent(pid)
    time.sleep(0.2)
    before = switches(job.keeper), switches(watcher)
    time.sleep(1)
    assert (switches(job.keeper), switches(watcher)) == before
