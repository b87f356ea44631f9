# SPDX-License-Identifier: BSD-3-Clause
"""Scheduling, node states, moms that die, freeze and come back."""

from __future__ import annotations

import json
import re
import signal
import subprocess

from .harness import System, wait_for

USER = "velezj"
NO_NODES = "Not Running: Not enough of the right type of nodes are available"
SLEEP = "exec sleep 1000"


def comment(system: System, name: str) -> str:
    return wait_for(lambda: system.job(name).get("comment", ""), "a comment")


def test_cores_and_memory(own_system: System) -> None:
    system = own_system
    system.qmgr("set queue himem resources_max.mem = 128gb")
    pair = [system.submit(SLEEP, "-l", "nodes=1:ppn=2") for _ in range(2)]
    hosts = [system.wait_state(name, "R")["exec_host"] for name in pair]
    assert hosts == ["node01/0-1", "node01/2-3"]
    assert system.node_state("node01") == "job-exclusive"
    third = system.submit(SLEEP, "-q", "himem", "-l", "mem=20gb")
    assert system.wait_state(third, "R")["exec_host"] == "node02/0"
    assert system.node_state("node02") == "free"
    # a core is free on node02, 13 GB are not
    big = system.submit(SLEEP, "-q", "himem", "-l", "mem=13gb")
    assert comment(system, big) == NO_NODES
    small = system.submit(SLEEP, "-q", "himem", "-l", "mem=12gb")
    assert system.wait_state(small, "R")["exec_host"] == "node02/1"
    assert system.state(big) == "Q"
    # the end of a job makes room: no other event is needed
    assert system.run(USER, "qdel", pair[0]).code == 0
    assert system.wait_state(big, "R")["exec_host"] == "node01/0"
    listing = system.run(USER, "pbsnodes", "-a").out
    assert f"     jobs = 0/{big},2-3/{pair[1]}\n" in listing


def test_several_nodes_and_named_ones(system: System) -> None:
    wide = system.finished("cat $PBS_NODEFILE", "-l", "nodes=2:ppn=2")
    assert wide["exec_host"] == "node01/0-1+node02/0-1"
    assert system.output(wide).split() == ["node01", "node01", "node02", "node02"]
    assert system.finished("true", "-l", "nodes=node02")["exec_host"] == "node02/0"
    procs = system.submit("true", "-l", "procs=1")
    assert comment(system, procs) == "Not Running - PBS Error: Unknown node-attribute "


def test_limits_on_running_jobs(own_system: System) -> None:
    system = own_system
    system.qmgr("set queue tintel max_user_run = 1")
    system.qmgr("set queue long started = False")
    first, second = system.submit(SLEEP), system.submit(SLEEP)
    stopped = system.submit(SLEEP, "-q", "long")
    system.wait_state(first, "R")
    assert comment(system, second) == "Not Running: User has reached queue running job limit."
    assert comment(system, stopped) == "Not Running: Queue not started."


def test_pbsnodes(system: System) -> None:
    text = system.run(USER, "pbsnodes", "-a").out
    pattern = (
        r"node01\n     state = free\n     power_state = Running\n     np = 4\n"
        r"     ntype = cluster\n     status = opsys=linux,uname=Linux node01 .*,totmem=67108864kb,"
        r"availmem=\d+kb,physmem=67108864kb,ncpus=4,.*,state=free,.*version=6.1.3,rectime=\d+,"
        r"jobs=\n     mom_service_port = \d+\n     mom_manager_port = 15003\n\nnode02\n"
    )
    assert re.match(pattern, text), text
    xml = system.run(USER, "pbsnodes", "-x", "node02").out
    assert xml.startswith("<Data><Node><name>node02</name><state>free</state><power_state>")
    assert xml.endswith("<mom_manager_port>15003</mom_manager_port></Node></Data>\n")
    assert system.run(USER, "pbsnodes", "-l").out == ""
    everything = system.run(USER, "pbsnodes", "-l", "all").out
    assert everything == "node01               free\nnode02               free\n"
    unknown = system.run(USER, "pbsnodes", "nosuch")
    assert (unknown.code, unknown.err) == (
        1, "pbsnodes: Unknown node  MSG=cannot locate specified node\n"
    )  # fmt: skip
    refused = system.run(USER, "pbsnodes", "-o", "node01")
    assert (refused.code, refused.err) == (
        0,
        "Error setting note attribute for node01 - "
        "Unauthorized Request  MSG=error in permissions (PERM_OPorMGR)\n",
    )


def test_offline_and_the_scheduler_that_does_not_notice(system: System) -> None:
    for node in ("node01", "node02"):
        assert system.run("root", "pbsnodes", "-o", "-N", "maintenance note", node).code == 0
    assert system.run(USER, "pbsnodes", "-ln").out.splitlines()[0] == (
        "node01               offline                    maintenance note"
    )
    name = system.submit("true")
    assert comment(system, name) == NO_NODES
    for node in ("node01", "node02"):
        assert system.run("root", "pbsnodes", "-c", node).code == 0
    # reports of the moms pass, yet nothing happens until the next submission
    before = system.run(USER, "pbsnodes", "-a").out
    wait_for(lambda: system.run(USER, "pbsnodes", "-a").out != before, "reports of the moms")
    assert system.state(name) == "Q"
    system.submit("true")
    system.wait_state(name, "C")


def test_killed_mom(own_system: System) -> None:
    system = own_system
    name = system.submit("until [ -e end ]; do sleep 0.1; done; exit 7", "-l", "nodes=node01")
    wait_for(lambda: system.job(name).get("substate") == "42", "running")
    system.stop("node01", signal.SIGKILL)
    assert system.state(name) == "R"
    for _ in range(2):
        result = system.run(USER, "qdel", name)
        assert (result.code, result.out, result.err) == (
            224, "", f"qdel: Server could not connect to MOM {name}\n"
        )  # fmt: skip
    assert system.node_state("node01") == "down"
    assert system.run(USER, "pbsnodes", "-l").out == "node01               down\n"
    waiting = system.submit("true", "-l", "nodes=node01")
    assert comment(system, waiting) == NO_NODES
    system.start_mom("node01")
    system.wait_node("node01", "free")
    assert system.state(name) == "R"
    (system.home_of(USER) / "end").touch()
    job = system.wait_state(name, "C")
    assert job["exit_status"] == "0"  # really 7: the new mom cannot know
    system.wait_state(waiting, "C")


def test_job_that_ends_while_its_mom_is_away(own_system: System) -> None:
    system = own_system
    home = system.home_of(USER)
    name = system.submit("until [ -e end ]; do sleep 0.1; done; echo out; touch gone; exit 7")
    wait_for(lambda: system.job(name).get("substate") == "42", "running")
    system.stop("node01")
    (home / "end").touch()
    wait_for((home / "gone").exists, "the job goes on without its mom")
    assert system.state(name) == "R"
    system.start_mom("node01")
    job = system.wait_state(name, "C")
    assert job["exit_status"] == "0"
    assert system.output(job) == "out\n"


def test_qdel_after_a_restart_of_the_mom(own_system: System) -> None:
    system = own_system
    name = system.submit(SLEEP)
    wait_for(lambda: system.job(name).get("substate") == "42", "running")
    system.stop("node01")
    system.start_mom("node01")
    wait_for(lambda: "found" in system.log("node01"), "the new mom finds the job")
    wait_for(lambda: system.run(USER, "qdel", name).code == 0, "the mom answers")
    assert system.wait_state(name, "C")["exit_status"] == "0"


def test_frozen_mom(own_system: System) -> None:
    system = own_system
    system.qmgr("set server tcp_timeout = 2")
    name = system.submit(SLEEP)
    wait_for(lambda: system.job(name).get("substate") == "42", "running")
    system.daemons["node01"].send_signal(signal.SIGSTOP)
    result = system.run(USER, "qdel", name)
    assert (result.code, result.out, result.err) == (
        224,
        "Connection to server timed out. Trying again" * 2,
        f"qdel: Server could not connect to MOM {name}\n",
    )
    assert system.node_state("node01") == "down"
    assert system.state(name) == "R"
    system.daemons["node01"].send_signal(signal.SIGCONT)
    assert system.wait_state(name, "C")["exit_status"] == "271"


def test_silent_node_is_down(own_system: System) -> None:
    system = own_system
    system.qmgr("set server node_check_rate = 1")
    system.daemons["node02"].send_signal(signal.SIGSTOP)
    system.wait_node("node02", "down")
    system.daemons["node02"].send_signal(signal.SIGCONT)
    system.wait_node("node02", "free")


def test_purged_job_is_stopped_on_its_node(system: System) -> None:
    name = system.submit("touch up; exec sleep 1000")
    wait_for((system.home_of(USER) / "up").exists, "the script runs")
    session = int(wait_for(lambda: system.job(name).get("session_id"), "session") or 0)
    assert system.run("root", "qdel", "-p", name).code == 0
    assert system.run(USER, "qstat", "-x", name).code == 153
    wait_for(lambda: f"{name} ended" in system.log("node01"), f"session {session} is stopped")


def test_a_reused_session_number_harms_nobody(own_system: System) -> None:
    """After a reboot of the node the number belongs to another process."""
    system = own_system
    name = system.submit(SLEEP)
    wait_for(lambda: system.job(name).get("substate") == "42", "running")
    system.stop("node01")
    record = system.nodes["node01"].home / f"mom_priv/jobs/{name}.JB"
    content = json.loads(record.read_text())
    with subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True) as stranger:
        content["session"] = stranger.pid
        record.write_text(json.dumps(content))
        system.start_mom("node01")
        assert system.wait_state(name, "C")["exit_status"] == "0"
        assert stranger.poll() is None
        stranger.kill()
