# SPDX-License-Identifier: BSD-3-Clause
"""The batch script in the mock Torque: nothing of a job outlives it, other jobs do."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from custom_pbs_spawner import endings
from custom_pbs_spawner.job_log import Ending, JobLog, parse_ending
from custom_pbs_spawner.record import JobRecord
from custom_pbs_spawner.script import render

from tests.unit.job.processes import CLINGING, FILES, KEEPER, PYTHON, new_number, sleeping
from tests.unit.torque.harness import System, alive, wait_for

TEMPLATE = FILES / "batch_script.sh.j2"
USER = "velezj"
TAG = "0123abcd-0123456789abcdef"
STUB = """\
#!/bin/bash
cd
exec bash ./server
"""


class Site:
    """The batch script with a shell script of the test in the place of the notebook server."""

    def __init__(self, folder: Path, system: System) -> None:
        self.system = system
        self.home = system.home_of(USER)
        self.number = new_number()
        self.prefix = folder / "env"
        (self.prefix / "bin").mkdir(parents=True)
        self.keeper = folder / "keep_job.py"
        shutil.copy(KEEPER, self.keeper)
        # Python for the keeper; the server is a shell script, whose path comes after -E -s.
        python = f'#!/bin/sh\n[ "$1" = -I ] && exec {PYTHON} "$@"\nshift 2; exec "$@"\n'
        for name, text in (("python", python), ("jupyterhub-singleuser", STUB)):
            (self.prefix / "bin" / name).write_text(text)
            (self.prefix / "bin" / name).chmod(0o755)

    def submit(self, server: str, *options: str, walltime: str = "1:00:00") -> str:
        """Submit a job whose server is this script; `{number}` in it is this site's."""
        (self.home / "server").write_text(server.replace("{number}", self.number))
        values = {
            "job_name": "jupyterhub-singleuser",
            "queue": "tintel",
            "cores": 1,
            "memory": "400mb",
            "walltime": walltime,
            "tag": TAG,
            "home": str(self.home),
            "log_directory": str(self.home / ".ganymede/logs"),
            "notebook_environment": str(self.prefix),
            "jupyter_path": "/nowhere",
            "jupyter_config_path": "/nowhere",
            "keeper": str(self.keeper),
            "arguments": [],
        }
        exports = {
            "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:0/user/velezj/",
            "JUPYTERHUB_API_URL": "http://127.0.0.1:1/hub/api",
            "JUPYTERHUB_API_TOKEN": "token",
        }
        return self.system.submit(render(TEMPLATE, values, exports), *options)

    def log(self, job: str) -> str:
        path = self.home / f".ganymede/logs/{job}.log"
        return path.read_text() if path.exists() else ""

    def running(self, job: str) -> None:
        wait_for(lambda: "up\n" in self.log(job), "the server runs")

    def ending(self, job: str) -> Ending:
        """How the job ended, once the keeper says that nothing is left."""

        def told() -> Ending | None:
            ending = parse_ending(self.log(job))
            return ending if ending and ending.nothing_left else None

        ending = wait_for(told, "nothing is left")
        assert ending is not None
        return ending

    def reason(self, job: str, status: int | None, walltime: float = 3600) -> str:
        """What the hub makes of the end of the job."""
        return endings.reason(
            status=status,
            log=JobLog("", self.ending(job)),
            record=JobRecord(job, "tintel", 0, ""),
            walltime=walltime,
            node_lost=False,
            now=0,
        )[0]


@pytest.fixture
def site(system: System, open_folder: Path) -> Site:
    return Site(open_folder, system)


EVERYTHING = "\n".join(CLINGING.values())


def test_nothing_outlives_qdel_and_another_job_goes_on(site: Site) -> None:
    other = site.system.submit(f"setsid sleep {site.number}7 & sleep {site.number}8")
    job = site.submit(f"{EVERYTHING}\nsleep 0.5\necho up\nwait")
    site.running(job)
    others = wait_for(
        lambda: [*sleeping(site.number + "7"), *sleeping(site.number + "8")][:2], "the other job"
    )
    assert len(sleeping(site.number + "\0")) == len(CLINGING)
    assert site.system.run(USER, "qdel", job).code == 0
    assert site.system.wait_state(job, "C")["exit_status"] == "271"
    assert site.reason(job, None) == "ended_deleted"
    assert sleeping(site.number + "\0") == []
    assert all(alive(pid) for pid in others)
    assert site.system.state(other) == "R"


def test_nothing_outlives_the_normal_end(site: Site) -> None:
    job = site.submit(f"{EVERYTHING}\nsleep 0.5\nexit 7")
    assert site.system.wait_state(job, "C")["exit_status"] == "7"
    assert sleeping(site.number) == [], "already when the job is over"
    ending = site.ending(job)
    assert (ending.kind, ending.value) == ("status", 7)


def test_nothing_outlives_the_walltime(site: Site) -> None:
    job = site.submit(f"{EVERYTHING}\necho up\nwait", walltime="00:00:03")
    assert site.system.wait_state(job, "C")["exit_status"] == "-11"
    assert [site.reason(job, status, 3) for status in (-11, 0, None)] == ["ended_walltime"] * 3
    assert sleeping(site.number) == []


def test_what_the_login_shell_started_ends_too(site: Site) -> None:
    (site.home / ".profile").write_text(f"setsid -f sleep {site.number}5\n")
    job = site.submit("echo up; exit 0")
    site.system.wait_state(job, "C")
    assert site.ending(job).kind == "status"
    assert sleeping(site.number + "5") == []


@pytest.mark.parametrize(
    ("end", "status"), [("exit 0", "0"), ("exit 3", "3"), ("kill -9 $$", "137")]
)
def test_exit_status_of_the_job_is_the_servers(site: Site, end: str, status: str) -> None:
    assert site.system.wait_state(site.submit(end), "C")["exit_status"] == status


def test_signal_to_the_job_reaches_the_server(site: Site) -> None:
    job = site.submit("trap 'echo got it; exit 6' USR1\necho up\nwhile :; do sleep 0.05; done")
    site.running(job)
    # Torque signals the login shell, too, which dies of it: the signal is 256 + 10.
    assert site.system.run(USER, "qsig", "-s", "USR1", job).code == 0
    assert site.system.wait_state(job, "C")["exit_status"] == "266"
    wait_for(lambda: "got it\n" in site.log(job), "the server has got it")


def test_server_can_save_its_work_after_qdel(site: Site) -> None:
    job = site.submit(
        "trap 'sleep 0.5; echo saved; exit 0' TERM\necho up\nwhile :; do sleep 0.05; done"
    )
    site.running(job)
    site.system.run(USER, "qdel", job)
    assert site.ending(job).kind == "outside"
    assert "saved\n" in site.log(job)


def test_limits_of_the_job_hold_for_the_server(site: Site) -> None:
    job = site.submit("ulimit -d; umask; pwd; echo $JUPYTERHUB_SERVICE_URL")
    site.system.wait_state(job, "C")
    header, data, umask, folder, url, *_ = site.log(job).splitlines()
    assert f"job {job} on " in header
    assert (data, umask, folder) == ("409600", "0077", str(site.home))
    assert url.startswith("http://0.0.0.0:")
    assert not url.startswith("http://0.0.0.0:0/")


def _no_space(home: Path) -> None:
    (home / ".ganymede").write_text("in the way of the folder")


def _no_write(home: Path) -> None:
    (home / ".ganymede").mkdir(0o555)


def _full(home: Path) -> None:
    folder = home / ".ganymede/logs"
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=4,mode=777", "none", folder], check=True
    )
    (folder / "rest").write_bytes(bytes(4096))


@pytest.mark.parametrize("spoil", [_no_space, _no_write, _full])
def test_job_runs_where_its_log_cannot_be_written(
    site: Site, spoil: Callable[[Path], None]
) -> None:
    spoil(site.home)
    try:
        job = site.submit("echo hello > $HOME/ran; setsid sleep {number} & sleep 0.3; exit 4")
        assert site.system.wait_state(job, "C")["exit_status"] == "4"
        assert (site.home / "ran").read_text() == "hello\n"
        assert sleeping(site.number) == []
    finally:
        if spoil is _full:
            subprocess.run(["umount", site.home / ".ganymede/logs"], check=True)


def test_output_that_torque_has_is_kept_beside_the_log(site: Site) -> None:
    (site.home / ".profile").write_text("echo from the profile\n")
    job = site.submit("exit 0")
    site.system.wait_state(job, "C")
    output = site.home / f".ganymede/logs/ganymede-{TAG}.out"
    assert wait_for(output.exists, "it is delivered")
    assert output.read_text() == "from the profile\n"
    assert site.system.job(job)["Output_Path"].endswith(f"/ganymede-{TAG}.out")


def test_last_twenty_of_each_kind_are_kept(site: Site) -> None:
    folder = site.home / ".ganymede/logs"
    folder.mkdir(parents=True)
    start = time.time() - 10_000
    for number in range(25):
        for name in (f"{number}.old.log", f"ganymede-{number}.out", f"keep-{number}.txt"):
            (folder / name).touch()
            os.utime(folder / name, (start + number, start + number))
    shutil.chown(site.home / ".ganymede", 54321, 54321)
    shutil.chown(folder, 54321, 54321)
    job = site.submit("exit 0")
    site.system.wait_state(job, "C")
    logs = {path.name for path in folder.glob("*.log")}
    assert logs == {f"{job}.log", *(f"{number}.old.log" for number in range(6, 25))}
    outputs = {path.name for path in folder.glob("ganymede-*.out")} - {f"ganymede-{TAG}.out"}
    assert outputs == {f"ganymede-{number}.out" for number in range(5, 25)}
    assert len(list(folder.glob("*.txt"))) == 25


def test_missing_environment_is_said(site: Site) -> None:
    shutil.rmtree(site.prefix)
    job = site.submit("exit 0")
    assert site.system.wait_state(job, "C")["exit_status"] == "1"
    assert "There is no notebook environment on " in site.log(job)
