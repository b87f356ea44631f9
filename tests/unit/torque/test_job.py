# SPDX-License-Identifier: BSD-3-Clause
"""What a job gets, and what is left of it when it has ended."""

from __future__ import annotations

import os
import re
import resource

import pytest

from .harness import SERVER, USERS, System, alive, lines, wait_for

USER = "velezj"
UNDELIVERED = "Unable to copy files back - please see the mother superior's log for exact details."


def test_environment(system: System) -> None:
    home = system.home_of(USER)
    job = system.finished(
        "env | sort; echo ---; pwd; umask; id -u; id -g; ulimit -d; ulimit -Hd; ulimit -m;"
        " cat $PBS_NODEFILE; read line || echo EOF; echo $0 $#",
        "-l", "nodes=1:ppn=2,mem=100mb,walltime=0:05:00", "-N", "envjob",
        "-v", "HOME=/tmp,USER=root,LOGNAME=root,SHELL=/bin/zsh,PBS_JOBID=1,PATH=/evil:/bin,TV=kept",
    )  # fmt: skip
    assert (job["exit_status"], system.output(job, "e")) == ("0", "")
    environment, _, rest = system.output(job).partition("---\n")
    variables = dict(line.split("=", 1) for line in environment.splitlines())
    name = job["Job_Id"]
    node = system.nodes["node01"].home
    expected = {
        "ENVIRONMENT": "BATCH",
        "HOME": str(home),
        "LOGNAME": USER,
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_GPUFILE": f"{node}/aux//{name}gpu",
        "PBS_JOBID": name,
        "PBS_JOBNAME": "envjob",
        "PBS_MICFILE": f"{node}/aux//{name}mic",
        "PBS_MOMPORT": "15003",
        "PBS_NODEFILE": f"{node}/aux//{name}",
        "PBS_NODENUM": "0",
        "PBS_NP": "2",
        "PBS_NUM_NODES": "1",
        "PBS_NUM_PPN": "2",
        "PBS_O_HOME": str(home),
        "PBS_O_HOST": SERVER,
        "PBS_O_LOGNAME": USER,
        "PBS_O_PATH": "/usr/bin:/bin",
        "PBS_O_QUEUE": "tintel",
        "PBS_O_SERVER": SERVER,
        "PBS_O_SHELL": "/bin/bash",
        "PBS_O_WORKDIR": str(home),
        "PBS_QUEUE": "tintel",
        "PBS_TASKNUM": "1",
        "PBS_VERSION": "TORQUE-6.1.3",
        "PBS_VNODENUM": "0",
        "PBS_WALLTIME": "300",
        "SHELL": "/bin/bash",
        "TV": "kept",
        "USER": USER,
    }
    assert {key: variables.get(key) for key in expected} == expected
    assert variables.keys() - expected.keys() == {
        "PATH", "PBS_JOBCOOKIE", "PWD", "SHLVL", "_"
    }  # fmt: skip
    assert "/evil" not in variables["PATH"]  # /etc/profile has the last word
    assert re.fullmatch("[0-9A-F]{32}", variables["PBS_JOBCOOKIE"])
    uid = str(USERS[USER])
    script = f"{node}/mom_priv/jobs/{name}.SC"
    assert rest.splitlines() == [
        str(home), "0077", uid, uid, "102400", "102400", "102400", "node01", "node01", "EOF",
        f"{script} 0",
    ]  # fmt: skip


def test_the_script_is_gone_afterwards_and_was_private(system: System) -> None:
    job = system.finished("stat -c %a:%U $0; ls $(dirname $0)")
    assert system.output(job).startswith("700:")
    assert "Permission denied" in system.output(job, "e")
    folder = system.nodes["node01"].home / "mom_priv/jobs"
    wait_for(lambda: not list(folder.glob(f"{job['Job_Id']}.*")), "the mom forgets the job")


def test_a_login_shell_reads_the_profile(system: System) -> None:
    profile = system.home_of(USER) / ".profile"
    profile.write_text("echo from the profile; export FROM_PROFILE=1\n")
    job = system.finished("echo $FROM_PROFILE; ps -o args= -p $PPID")
    profile.unlink()
    assert system.output(job).splitlines() == ["from the profile", "1", "-bash"]


def test_an_interpreter_of_its_own(system: System) -> None:
    job = system.finished("#!/usr/bin/python3\nimport sys\nprint(len(sys.argv))\n")
    assert system.output(job) == "1\n"


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 7", "7"), ("kill -9 $$", "137"), ("kill -TERM $$", "143"), ("nosuchcmd", "127"),
     ("exec true; echo no", "0")],
)  # fmt: skip
def test_exit_status(system: System, script: str, status: str) -> None:
    assert system.finished(script)["exit_status"] == status


def test_a_missing_shell(system: System) -> None:
    job = system.finished("true", "-S", "/bin/nosuchshell")
    assert job["exit_status"] == "254"
    assert system.output(job, "e") == "PBS: exec of shell '/bin/nosuchshell' failed\n"


def test_memory_is_limited_per_process(system: System) -> None:
    eat = 'python3 -c "x = bytearray({} * 1024 * 1024); print(len(x))"'
    job = system.finished(eat.format(300), "-l", "mem=100mb")
    assert job["exit_status"] == "1"
    assert system.output(job, "e").endswith("MemoryError\n")
    several = "; ".join([eat.format(60)] * 2)
    assert system.finished(several, "-l", "mem=100mb")["exit_status"] == "0"
    job = system.finished("ulimit -v; ulimit -d", "-l", "vmem=900mb")
    unlimited = resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
    assert system.output(job).splitlines() == ["921600", "unlimited"] or not unlimited


def test_children_at_the_normal_end(system: System) -> None:
    home = system.home_of(USER)
    job = system.finished(
        "sh -c \"trap 'echo term > termed' TERM; sleep 1000 & wait\" & echo $! > plain\n"
        "setsid sleep 1000 & echo $! > own\nsleep 0.2\n"
    )
    assert job["exit_status"] == "0"
    assert not alive(int((home / "plain").read_text()))
    assert not (home / "termed").exists()  # SIGKILL without a warning
    assert alive(int((home / "own").read_text()))


def test_walltime(system: System) -> None:
    job = system.finished("sleep 1000", "-l", "walltime=1")
    assert job["exit_status"] == "-11"
    text = system.output(job, "e")
    assert re.fullmatch(r"=>> PBS: job killed: walltime \d+ exceeded limit 1\n", text)


def test_output_appears_at_the_end(system: System) -> None:
    home = system.home_of(USER)
    name = system.submit("echo first; until [ -e go_on ]; do sleep 0.1; done", "-N", "late")
    number = name.partition(".")[0]
    spool = system.nodes["node01"].home / "spool"
    wait_for(lambda: lines(spool / f"{name}.OU") == ["first"], "output in the spool")
    assert not (home / f"late.o{number}").exists()
    assert (spool / f"{name}.OU").stat().st_mode & 0o777 == 0o600
    (home / "go_on").touch()
    system.wait_state(name, "C")
    delivered = home / f"late.o{number}"
    assert delivered.read_text() == "first\n"
    assert delivered.stat().st_uid == USERS[USER]
    assert delivered.stat().st_mode & 0o777 == 0o600
    assert not (spool / f"{name}.OU").exists()


def test_joined_output(system: System) -> None:
    home = system.home_of(USER)
    for option, letter, other in (("oe", "o", "e"), ("eo", "e", "o")):
        job = system.finished("echo out; echo err >&2", "-j", option, "-N", f"join{option}")
        assert system.output(job, letter) == "out\nerr\n"
        assert not list(home.glob(f"join{option}.{other}*"))
        assert job["Error_Path"].endswith(f"join{option}.e{job['Job_Id'].partition('.')[0]}")


def test_kept_output_grows_in_the_home(system: System) -> None:
    name = system.submit("echo first; until [ -e go ]; do sleep 0.1; done", "-k", "oe", "-N", "k")
    number = name.partition(".")[0]
    home = system.home_of(USER)
    wait_for(lambda: lines(home / f"k.o{number}") == ["first"], "output in the home")
    assert (home / f"k.o{number}").stat().st_uid == USERS[USER]
    (home / "go").touch()
    assert "sched_hint" not in system.wait_state(name, "C")


def test_destinations(system: System) -> None:
    home = system.home_of(USER)
    (home / "out").mkdir()
    os.chown(home / "out", USERS[USER], USERS[USER])
    job = system.finished("echo a", "-o", "out/$PBS_JOBID.o", "-e", "/dev/null")
    assert (home / f"out/{job['Job_Id']}.o").read_text() == "a\n"
    job = system.finished("echo b", "-o", "out", "-N", "folder", "-W", "umask=022")
    delivered = home / f"out/folder.o{job['Job_Id'].partition('.')[0]}"
    assert delivered.read_text() == "b\n"
    assert delivered.stat().st_mode & 0o777 == 0o644
    system.finished("echo c", "-o", f"{SERVER}:rel.o")
    assert (home / "rel.o").read_text() == "c\n"
    job = system.finished("pwd", "-d", "out", "-N", "d")
    assert (home / f"out/d.o{job['Job_Id'].partition('.')[0]}").read_text() == f"{home}/out\n"
    assert "sched_hint" not in job


@pytest.mark.parametrize("path", ["nodir/x.o", "/root/x.o", "other.host:/tmp/x.o", "/x.o"])
def test_undelivered_output(system: System, path: str) -> None:
    job = system.finished("echo lost", "-o", path)
    assert (job["exit_status"], job["sched_hint"]) == ("0", UNDELIVERED)
    kept = system.nodes["node01"].home / "undelivered" / f"{job['Job_Id']}.OU"
    assert kept.read_text() == "lost\n"
    assert kept.stat().st_uid == USERS[USER]


def test_usecp(own_system: System) -> None:
    system = own_system
    config = system.nodes["node01"].home / "mom_priv/config"
    config.write_text(config.read_text() + f"$usecp *:/shared {system.home_of(USER)}\n")
    system.stop("node01")
    system.start_mom("node01")
    system.start_trqauthd("jhub")
    result = system.run(
        USER, "qsub", "-o", "/shared/by_cp.o", "-e", "jhub:/shared/e", stdin="echo cp", host="jhub"
    )
    job = system.wait_state(result.out.strip(), "C")
    assert job["Output_Path"] == "jhub:/shared/by_cp.o"
    assert "sched_hint" not in job
    assert (system.home_of(USER) / "by_cp.o").read_text() == "cp\n"


def test_output_is_copied_with_the_owners_rights(system: System) -> None:
    """A spool file replaced by a link reads nothing that its owner may not read."""
    secret = system.root / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    spool = system.nodes["node01"].home / "spool"
    job = system.finished(f"rm {spool}/$PBS_JOBID.OU; ln -s {secret} {spool}/$PBS_JOBID.OU")
    assert job["sched_hint"] == UNDELIVERED
    assert secret.stat().st_mode & 0o777 == 0o600
    assert not list(system.home_of(USER).glob(f"*.o{job['Job_Id'].partition('.')[0]}"))


def test_no_home_on_the_node(own_system: System) -> None:
    system = own_system
    home = system.home_of("rhea")
    result = system.run("rhea", "qsub", "-h", stdin="true", cwd=system.root)
    home.rmdir()
    system.run("rhea", "qrls", result.out.strip(), cwd=system.root)
    job = system.wait_state(result.out.strip(), "C")
    assert job["exit_status"] == "-2"


def test_no_account_on_the_node(own_system: System) -> None:
    """The job flips between Q and R until it is deleted."""
    system = own_system
    for node in system.nodes.values():
        node.know("rhea")
    name = system.submit("true")
    wait_for(lambda: int(system.job(name).get("start_count", "0")) > 1, "several attempts")
    wait_for(lambda: system.job(name).get("substate") == "40", "being sent")
    assert system.state(name) == "R"
    assert system.run(USER, "qdel", name).code == 0
    wait_for(lambda: system.state(name) == "C", "deleted")
