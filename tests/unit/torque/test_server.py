# SPDX-License-Identifier: BSD-3-Clause
"""A server that dies, hangs and comes back; trqauthd; qmgr; knobs; version 4.2.10."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from .harness import SERVER, System, attributes, lines, wait_for

USER = "velezj"
UNREACHABLE = (
    f"\nUnable to communicate with {SERVER}(127.0.0.1)\n"
    f"Cannot connect to specified server host '{SERVER}'.\n"
)
REFUSED = f"cannot connect to server {SERVER} (errno=111) Connection refused\n"


def test_dead_server(own_system: System) -> None:
    system = own_system
    system.stop("server", signal.SIGKILL)
    expected = {
        ("qstat", "-x"): (111, f"{UNREACHABLE * 3}qstat: {REFUSED}"
                               "qstat: Error (111 - Connection refused) \n"),
        ("qsub",): (111, f"{UNREACHABLE}qsub: {REFUSED}"),
        ("qdel", "1"): (111, f"{UNREACHABLE}qdel: {REFUSED}"),
        ("pbsnodes", "-a"): (1, f"{UNREACHABLE}pbsnodes: cannot connect to server {SERVER}, "
                                "error=111 (Connection refused)\n"),
        ("qmgr", "-c", "p s"): (3, f"{UNREACHABLE}qmgr: cannot connect to server  (errno=111) "
                                   "Connection refused\n"),
    }  # fmt: skip
    for words, (code, text) in expected.items():
        result = system.run(USER, *words, stdin="hostname")
        assert (result.code, result.out, result.err) == (code, "", text)


def test_trqauthd_down(own_system: System) -> None:
    system = own_system
    system.stop(f"trqauthd-{SERVER}")
    failed = "socket_connect_unix failed: 15137\n"
    text = "cannot connect to server (null) (errno=15137) could not connect to trqauthd\n"
    qstat = system.run(USER, "qstat")
    assert (qstat.code, qstat.err) == (
        33,
        f"{failed * 3}qstat: {text}qstat: Error (15137 - could not connect to trqauthd) \n",
    )
    for command in ("qsub", "qdel"):
        result = system.run(USER, command, *(["999"] if command == "qdel" else []), stdin="true")
        assert (result.code, result.err) == (33, f"{failed}{command}: {text}")


def test_restart_of_the_server(own_system: System) -> None:
    system = own_system
    home = system.home_of(USER)
    running = system.submit("touch up; until [ -e end ]; do sleep 0.1; done; exit 3")
    short = system.submit("touch up2; until [ -e end2 ]; do sleep 0.1; done; echo done; exit 5")
    held = system.submit("true", "-h")
    done = system.finished("exit 4")["Job_Id"]
    wait_for(lambda: (home / "up").exists() and (home / "up2").exists(), "both run")
    system.stop("server", signal.SIGKILL)
    (home / "end2").touch()
    delivered = home / f"STDIN.o{short.partition('.')[0]}"
    wait_for(lambda: lines(delivered) == ["done"], "output during the outage")
    system.start_server()
    assert (system.state(running), system.state(held)) == ("R", "H")
    assert system.job(done)["exit_status"] == "4"
    assert "substate" in system.wait_state(short, "E")
    assert system.job(short)["substate"] == "52"
    exiting = system.run(USER, "qdel", short)
    assert (exiting.code, exiting.err) == (
        170,
        f"qdel: Request invalid for state of job MSG=invalid state for job - EXITING {short}\n",
    )
    job = system.wait_state(short, "C")
    assert job["exit_status"] == "5"
    (home / "end").touch()
    job = system.wait_state(running, "C")
    assert job["exit_status"] == "3"
    assert float(job["total_runtime"]) > 1_000_000_000  # garbage, as in TORQUE
    assert int(system.submit("true", "-h").partition(".")[0]) > int(done.partition(".")[0])
    assert system.run(USER, "qstat", "-Q").out.count("\n") == 5  # setup.qmgr was not run again


def test_no_submission_while_the_server_shuts_down(own_system: System) -> None:
    system = own_system
    server = system.daemons["server"]
    server.send_signal(signal.SIGTERM)
    result = system.run(USER, "qsub", stdin="hostname")
    # On a slow machine the server may be gone before the command has started.
    if "Unable to communicate" not in result.err:
        assert (result.code, result.err) == (
            214, "qsub: submit error (Request not allowed: Server shutting down)\n"
        )  # fmt: skip
    assert server.wait(30) == 0


@pytest.mark.parametrize("way", ["SIGSTOP", "knob"])
def test_hanging_server(own_system: System, way: str) -> None:
    system = own_system
    name = system.submit("true", "-h")
    if way == "knob":
        system.knob("hang", "on")
    else:
        system.daemons["server"].send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        system.run(USER, "qstat", "-x", timeout=1.5)
    if way == "knob":
        system.knob("hang", "off")
    else:
        system.daemons["server"].send_signal(signal.SIGCONT)
    assert system.state(name) == "H"


def test_knobs(own_system: System) -> None:
    system = own_system
    system.knob("--times", "1", "fail.qstat", "15 qstat: no luck today")
    failed = system.run(USER, "qstat", "-x")
    assert (failed.code, failed.out, failed.err) == (15, "", "qstat: no luck today\n")
    assert system.run(USER, "qstat", "-x").code == 0
    system.knob("output.qsub", "")
    lost = system.run(USER, "qsub", "-h", "-N", "lost", stdin="true")
    assert (lost.code, lost.out, lost.err) == (0, "", "")
    system.knob("output.qsub")
    listed = attributes(system.run(USER, "qstat", "-x").out)
    assert [job["Job_Name"] for job in listed] == ["lost"]
    system.knob("output.qstat", "<Data><Jo")
    assert system.run(USER, "qstat", "-x").out == "<Data><Jo"
    system.knob("reset")
    system.knob("slow.qdel", "1")
    start = time.monotonic()
    assert system.run(USER, "qdel", listed[0]["Job_Id"]).code == 0
    assert time.monotonic() - start >= 1
    system.knob("schedule_delay", "3600")
    name = system.submit("true")
    system.knob("schedule_delay", "0.1")
    system.submit("true", "-h")  # has the scheduler look again
    system.wait_state(name, "C")


@pytest.mark.parametrize("words", [["nosuch", "1"], ["fail.qsub", "x"], ["slow.nosuch", "1"],
                                   ["schedule_delay", "soon"], ["hang", "maybe"]])  # fmt: skip
def test_wrong_knobs_are_refused(system: System, words: list[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        system.knob(*words)


def test_qmgr(own_system: System) -> None:
    system = own_system
    shown = system.run(USER, "qmgr", "-c", "p s")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(
        "#\n# Create queues and set their attributes.\n#\n"
        "#\n# Create and define queue himem\n#\n"
        "create queue himem\nset queue himem queue_type = Execution\n"
        "set queue himem resources_max.walltime = 48:00:00\n"
        "set queue himem resources_max.mem = 64gb\n"
        "set queue himem resources_default.walltime = 01:00:00\n"
        "set queue himem resources_default.nodes = 1\n"
        "set queue himem enabled = True\nset queue himem started = True\n"
    )
    assert "#\n# Set server attributes.\n#\nset server scheduling = True\n" in shown.out
    assert "set server query_other_jobs = True\n" in shown.out
    denied = system.run(USER, "qmgr", "-c", "s s scheduling=false")
    assert (denied.code, denied.err) == (
        2,
        "qmgr obj= svr=default: Unauthorized Request  MSG=error in permissions (PERM_OPorMGR)\n",
    )
    wrong = {
        "set queue nosuch enabled = True": "obj=nosuch svr=default: Unknown queue\n",
        "create queue tintel": "obj=tintel svr=default: Queue already exists\n",
        "set queue tintel nosuch = 1": "obj=tintel svr=default: Undefined attribute  nosuch\n",
        "set server keep_completed = x": "Illegal attribute or resource value for keep_completed\n",
    }
    for line, text in wrong.items():
        result = system.run("root", "qmgr", "-c", line)
        assert result.code == 2
        assert result.err.endswith(text)
    system.qmgr("create queue short queue_type=Execution,enabled=True,started=True")
    system.qmgr("set queue short resources_max.walltime = 0:30:00")
    system.qmgr("set server managers += rhea@*")
    system.qmgr("create node node03 np=8 mem=1gb")
    system.qmgr("set node node02 np = 3")
    system.qmgr("set server scheduling = False")
    waiting = system.submit("true", "-q", "short")
    system.stop("server", signal.SIGKILL)
    system.start_server()
    assert system.run("rhea", "qmgr", "-c", "set server keep_completed = 60").code == 0
    assert "node03 np=8 mem=1048576kb\n" in (system.server_priv / "nodes").read_text()
    assert "resources_max.walltime = 00:30:00" in system.run(USER, "qstat", "-Qf", "short").out
    assert system.state(waiting) == "Q"
    assert "comment" not in system.job(waiting)
    system.wait_node("node01", "free")
    system.qmgr("set server scheduling = True")
    system.wait_state(waiting, "C")
    busy = system.submit("true", "-h", "-q", "short")
    assert system.run("root", "qmgr", "-c", "delete queue short").code == 2
    system.run(USER, "qdel", busy)
    system.qmgr("delete queue short")


def test_wrong_configuration_stops_a_daemon(own_system: System) -> None:
    system = own_system
    (system.server_priv / "nodes").write_text("node01 np=many\n")
    program = system.programs / "sbin/pbs_server"
    result = subprocess.run(
        [program, "-d", system.server_host.home], capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "server_priv/nodes, line 1" in result.stderr


def test_version_4_2_10(own_system: System) -> None:
    system = own_system
    system.stop("server")
    (system.server_priv / "version").write_text("4.2.10\n")
    system.start_server()
    empty = system.run(USER, "qstat", "-x")
    assert (empty.code, empty.out) == (0, "")
    system.qmgr("set server keep_completed = 300")
    name = system.submit("sleep 1000", "-l", "nodes=1:ppn=2")
    assert name == f"0.{SERVER}"
    wait_for(lambda: system.job(name).get("substate") == "42", "running")
    text = system.run(USER, "qstat", "-x", name).out
    assert text.startswith("<Data><Job>")
    assert "<exec_host>node01/0+node01/1</exec_host><exec_port>15003+15003</exec_port>" in text
    for absent in ("energy_used", "init_work_dir", "request_version", "<Walltime>"):
        assert absent not in text
    unknown = system.run(USER, "qdel", "999999")
    assert (unknown.code, unknown.out, unknown.err) == (153, "", "")
    assert system.run(USER, "qdel", "999999", name).code == 0
    system.qmgr("set server query_other_jobs = False")
    foreign = system.run("rhea", "qstat", "-x", name)
    assert (foreign.code, foreign.out, foreign.err) == (0, "", "")
    assert system.run("root", "qsub").out == "qsub can not be run as root\n"
    start = time.monotonic()
    refused = system.run(USER, "qsub", "-l", "walltime=abc", stdin="true")
    assert time.monotonic() - start >= 3
    assert refused.err == (
        "qsub: submit error (Illegal attribute or resource value for  Resource_List.walltime)\n"
    )
    number = int(name.partition(".")[0])
    variables = system.submit("true", "-h", "-v", "TV_U1,TV_U2")
    assert int(variables.partition(".")[0]) == number + 3
    assert ",TV_U1=,TV_U2=,PBS_O_WORKDIR" in system.job(variables)["Variable_List"]
    assert system.finished("")["exit_status"] == "0"
    hint = system.finished("echo lost", "-o", "nodir/x")["sched_hint"]
    assert hint.count("\n") > 1
    system.qmgr("unset server keep_completed")
    name = system.submit("true")
    wait_for(lambda: system.run(USER, "qstat", name).code == 153, "forgotten at once")
