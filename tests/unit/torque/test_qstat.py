# SPDX-License-Identifier: BSD-3-Clause
"""What qstat shows: XML in every state, full listing, tables, queues, errors."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET

import pytest

from .harness import SERVER, System, attributes, parse, tags, wait_for

USER = "velezj"
QUEUED = [
    "Job_Id", "Job_Name", "Job_Owner", "job_state", "queue", "server", "Checkpoint", "ctime",
    "Error_Path", "Hold_Types", "Join_Path", "Keep_Files", "Mail_Points", "mtime", "Output_Path",
    "Priority", "qtime", "Rerunable", "Resource_List", "Variable_List", "euser", "egroup",
    "queue_type", "etime", "submit_args", "fault_tolerant", "job_radix", "submit_host",
    "init_work_dir", "request_version",
]  # fmt: skip
RUNNING = [
    "Job_Id", "Job_Name", "Job_Owner", "job_state", "queue", "server", "Checkpoint", "ctime",
    "Error_Path", "exec_host", "Hold_Types", "Join_Path", "Keep_Files", "Mail_Points", "mtime",
    "Output_Path", "Priority", "qtime", "Rerunable", "Resource_List", "session_id",
    "Variable_List", "euser", "egroup", "queue_type", "comment", "etime", "submit_args",
    "start_time", "Walltime", "start_count", "fault_tolerant", "job_radix", "submit_host",
    "init_work_dir", "request_version",
]  # fmt: skip
COMPLETED = [
    "Job_Id", "Job_Name", "Job_Owner", "resources_used", "job_state", "queue", "server",
    "Checkpoint", "ctime", "Error_Path", "exec_host", "Hold_Types", "Join_Path", "Keep_Files",
    "Mail_Points", "mtime", "Output_Path", "Priority", "qtime", "Rerunable", "Resource_List",
    "session_id", "Variable_List", "euser", "egroup", "queue_type", "comment", "etime",
    "exit_status", "submit_args", "start_time", "start_count", "fault_tolerant", "comp_time",
    "job_radix", "total_runtime", "submit_host", "init_work_dir", "request_version",
]  # fmt: skip


def held(system: System, *options: str) -> str:
    return system.submit("sleep 1", "-h", *options)


def test_queued(system: System) -> None:
    system.knob("schedule_delay", "3600")
    options = ["-q", "tintel", "-l", "walltime=1:00:00,nodes=1:ppn=1,mem=100mb", "-N", "j"]
    name = system.submit("sleep 1", *options)
    result = system.run(USER, "qstat", "-x", name)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith('<?xml version="1.0"?>\n<Data><Job><Job_Id>')
    assert result.out.endswith("</request_version></Job></Data>\n")
    assert result.out.count("\n") == 2
    assert tags(result.out) == QUEUED
    (job,) = attributes(result.out)
    home = system.home_of(USER)
    number = name.partition(".")[0]
    expected = {
        "Job_Id": name,
        "Job_Name": "j",
        "Job_Owner": f"velezj@{SERVER}",
        "job_state": "Q",
        "queue": "tintel",
        "server": SERVER,
        "Checkpoint": "u",
        "Error_Path": f"{SERVER}:{home}/j.e{number}",
        "Hold_Types": "n",
        "Join_Path": "n",
        "Keep_Files": "n",
        "Mail_Points": "a",
        "Output_Path": f"{SERVER}:{home}/j.o{number}",
        "Priority": "0",
        "Rerunable": "True",
        "Resource_List.walltime": "01:00:00",
        "Resource_List.nodes": "1:ppn=1",
        "Resource_List.mem": "100mb",
        "Resource_List.nodect": "1",
        "euser": "velezj",
        "queue_type": "E",
        "submit_args": " ".join(options),
        "fault_tolerant": "False",
        "job_radix": "0",
        "submit_host": SERVER,
        "init_work_dir": str(home),
        "request_version": "1",
    }
    assert {key: job[key] for key in expected} == expected
    assert job["Variable_List"] == (
        f"PBS_O_QUEUE=tintel,PBS_O_HOME={home},PBS_O_LOGNAME=velezj,PBS_O_PATH=/usr/bin:/bin,"
        f"PBS_O_SHELL=/bin/bash,PBS_O_WORKDIR={home},PBS_O_HOST={SERVER},PBS_O_SERVER={SERVER}"
    )
    assert abs(int(job["ctime"]) - time.time()) < 60


def test_held(system: System) -> None:
    result = system.run(USER, "qstat", "-x", held(system))
    (job,) = attributes(result.out)
    assert (job["job_state"], job["Hold_Types"]) == ("H", "u")
    assert tags(result.out) == [tag for tag in QUEUED if tag != "etime"]


def test_released(system: System) -> None:
    name = held(system, "-N", "rel")
    assert system.run(USER, "qrls", name).code == 0
    assert system.wait_state(name, "C")["exit_status"] == "0"


def test_waiting(system: System) -> None:
    name = system.submit("true", "-a", time.strftime("%H%M", time.localtime(time.time() + 7200)))
    result = system.run(USER, "qstat", "-x", name)
    found = tags(result.out)
    assert attributes(result.out)[0]["job_state"] == "W"
    assert found[found.index("Error_Path") + 1] == "Execution_Time"


def test_running_and_completed(system: System) -> None:
    fifo = system.home_of(USER) / "go"
    name = system.submit(f"until [ -e {fifo} ]; do sleep 0.1; done", "-l", "nodes=1:ppn=2")
    system.wait_state(name, "R")
    wait_for(lambda: "session_id" in system.job(name), "session")
    running = system.run(USER, "qstat", "-x", name).out
    assert [tag for tag in tags(running) if tag != "resources_used"] == RUNNING
    (job,) = attributes(running)
    assert job["exec_host"] == "node01/0-1"
    assert re.fullmatch(r"Job started on \w{3} \w{3} \d\d at \d\d:\d\d", job["comment"])
    assert 3500 < int(job["Walltime.Remaining"]) <= 3600
    assert job["start_count"] == "1"
    fifo.touch()
    system.wait_state(name, "C")
    completed = system.run(USER, "qstat", "-x", name).out
    assert tags(completed) == COMPLETED
    (job,) = attributes(completed)
    assert job["exit_status"] == "0"
    assert float(job["total_runtime"]) > 0
    used = parse(completed).find("Job/resources_used")
    assert used is not None
    assert [child.tag for child in used] == ["cput", "vmem", "walltime", "mem", "energy_used"]


def test_resources_used_appear_while_running(system: System) -> None:
    name = system.submit("sleep 100")
    wait_for(lambda: "resources_used.mem" in system.job(name), "usage")
    job = system.job(name)
    assert job["job_state"] == "R"
    assert int(job["resources_used.mem"].removesuffix("kb")) > 1000


def test_deleted_before_it_ran(system: System) -> None:
    name = held(system)
    system.run(USER, "qdel", name)
    job = system.job(name)
    assert job["job_state"] == "C"
    assert not {"exit_status", "exec_host", "start_time", "comp_time"} & set(job)


def test_who_sees_the_variables(system: System) -> None:
    name = held(system, "-v", "TOKEN=s3cr3t-literal")
    own = system.job(name, USER)
    assert ",TOKEN=s3cr3t-literal," in own["Variable_List"]
    foreign = system.job(name, "rhea")
    assert "Variable_List" not in foreign
    assert foreign["submit_args"] == "-h -v TOKEN=s3cr3t-literal"
    manager = system.job(name, "root")
    assert "Variable_List" in manager
    assert {"substate", "hashname", "queue_rank"} <= set(manager)
    assert not {"substate", "hashname", "queue_rank"} & set(own)


def test_other_users_jobs_can_be_hidden(own_system: System) -> None:
    system = own_system
    name = held(system)
    system.qmgr("set server query_other_jobs = False")
    for option in ("-x", "-f"):
        result = system.run("rhea", "qstat", option, name)
        assert (result.code, result.out, result.err) == (
            159, "", f"qstat: Unauthorized Request  {name}\n"
        )  # fmt: skip
    assert system.run("rhea", "qstat").out == ""
    empty = system.run("rhea", "qstat", "-x")
    assert (empty.code, empty.out) == (0, '<?xml version="1.0"?>\n<Data></Data>\n')
    assert system.run(USER, "qstat", "-x", name).code == 0
    assert system.run("root", "qstat", "-x", name).code == 0


UNKNOWN = [
    (["-x", "999999"], 153, f"qstat: Unknown Job Id Error 999999.{SERVER}\n"),
    (["-x", f"999999.{SERVER}"], 153, f"qstat: Unknown Job Id Error 999999.{SERVER}\n"),
    (["999999"], 153, f"qstat: Unknown Job Id Error 999999.{SERVER}\n"),
    (["-f", "999999"], 153, f"qstat: Unknown Job Id Error 999999.{SERVER}\n"),
    (["-x", "1.nosuchhost"], 153, "qstat: Unknown Job Id Error 1.nosuchhost\n"),
    (["-x", "1.encina.foo"], 153, "qstat: Unknown Job Id Error 1.encina.foo\n"),
    (["-x", "1[]"], 153, f"qstat: Unknown Job Id Error 1[].{SERVER}\n"),
    (["-x", "1[0]"], 153, f"qstat: Unknown Job Id Error 1[0].{SERVER}\n"),
    (["-x", "001"], 153, f"qstat: Unknown Job Id Error 001.{SERVER}\n"),
    (["-x", "abc"], 172, "qstat: Unknown queue destination abc\n"),
    (["-x", "a", "b"], 172,
     "qstat: Unknown queue destination a\nqstat: Unknown queue destination b\n"),
    (["-x", ".encina"], 172, "qstat: Unknown queue destination .encina\n"),
    (["-x", "12abc"], 1, "qstat: illegally formed job identifier: 12abc\n"
     "qstat: Error (1 - Operation not permitted) \n"),
    (["-x", "1."], 1, "qstat: illegally formed job identifier: 1.\n"
     "qstat: Error (1 - Operation not permitted) \n"),
    (["-x", "99999999999999999999"], 1,
     "qstat: illegally formed job identifier: 99999999999999999999\n"
     "qstat: Error (1 - Operation not permitted) \n"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "text"), UNKNOWN, ids=lambda item: str(item)[:30])
def test_unknown(system: System, words: list[str], code: int, text: str) -> None:
    result = system.run(USER, "qstat", *words)
    assert (result.code, result.out, result.err) == (code, "", text)


def test_a_dash_is_an_option(system: System) -> None:
    result = system.run(USER, "qstat", "-x", "-1")
    assert result.code == 2
    assert result.err.startswith("qstat: conflicting options.\nusage: \n")


@pytest.mark.parametrize("word", ["", "tintel", f"@{SERVER}"])
def test_words_that_mean_many_jobs(system: System, word: str) -> None:
    name = held(system)
    result = system.run(USER, "qstat", "-x", word)
    assert result.code == 0
    assert name in [job["Job_Id"] for job in attributes(result.out)]


def test_two_ids_are_two_documents(system: System) -> None:
    first, second = held(system), held(system)
    both = system.run(USER, "qstat", "-x", first, second)
    assert both.code == 0
    documents = both.out.splitlines()
    assert documents[0] == documents[2] == '<?xml version="1.0"?>'
    with_unknown = system.run(USER, "qstat", "-x", first, "999999", second)
    assert (with_unknown.code, with_unknown.out) == (153, both.out)
    assert with_unknown.err == f"qstat: Unknown Job Id Error 999999.{SERVER}\n"


def test_table(system: System) -> None:
    name = held(system, "-N", "jupyterhub-singleuser")
    result = system.run("rhea", "qstat", name)
    assert result.out == (
        "Job ID                    Name             User            Time Use S Queue\n"
        "------------------------- ---------------- --------------- -------- - -----\n"
        f"{name:<26} ...ub-singleuser velezj                 0 H tintel         \n"
    )


def test_alternate_table(system: System) -> None:
    name = held(system, "-N", "held")
    row = system.run(USER, "qstat", "-a", name).out.splitlines()[-1]
    assert row == (
        f"{name:<23} velezj      tintel   held                --      1      1       --  "
        " 01:00:00 H       -- "
    )
    row = system.run(USER, "qstat", "-n1", name).out.splitlines()[-1]
    assert row.endswith(" H       --     -- ")


def test_full_listing(system: System) -> None:
    name = held(system, "-N", "full")
    result = system.run(USER, "qstat", "-f", name)
    lines = result.out.splitlines()
    assert lines[:5] == [
        f"Job Id: {name}",
        "    Job_Name = full",
        f"    Job_Owner = velezj@{SERVER}",
        "    job_state = H",
        "    queue = tintel",
    ]
    assert re.search(r"\n    ctime = \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n", result.out)
    assert "\n    Resource_List.walltime = 01:00:00\n" in result.out
    assert result.out.endswith("\n    request_version = 1\n\n")
    unfolded = result.out.replace("\n\t", "")
    own = system.job(name, USER)["Variable_List"]
    assert f"\n    Variable_List = {own}\n" in unfolded
    assert max(len(line.expandtabs(8)) for line in lines) <= 80


def test_values_travel_as_they_are(system: System) -> None:
    value = "<x>&amp;& é\tl1\nl2"
    name = system.run(
        USER, "qsub", "-h", "-v", "TV_A", stdin="true", env={"TV_A": value}
    ).out.strip()
    text = system.run(USER, "qstat", "-x", name).out
    assert ",TV_A=&lt;x&gt;&amp;amp;&amp; é\tl1\\\nl2,PBS_O_WORKDIR" in text
    bell = system.run(
        USER, "qsub", "-h", "-v", "TV_A", stdin="true", env={"TV_A": "\033[0m\a"}
    ).out.strip()
    with pytest.raises(ET.ParseError):
        attributes(system.run(USER, "qstat", "-x", bell).out)


def test_queues(system: System) -> None:
    held(system)
    assert system.run(USER, "qstat", "-Q").out == (
        "Queue              Max    Tot   Ena   Str   Que   Run   Hld   Wat   Trn   Ext T   Cpt\n"
        "----------------   ---   ----    --    --   ---   ---   ---   ---   ---   --- -   ---\n"
        "tintel               0      1   yes   yes     0     0     1     0     0     0 E     0\n"
        "long                 0      0   yes   yes     0     0     0     0     0     0 E     0\n"
        "himem                0      0   yes   yes     0     0     0     0     0     0 E     0\n"
    )
    assert system.run(USER, "qstat", "-q").out == (
        f"\nserver: {SERVER}\n\n"
        "Queue            Memory CPU Time Walltime Node  Run Que Lm  State\n"
        "---------------- ------ -------- -------- ----  --- --- --  -----\n"
        "tintel              8gb    --    24:00:00   --    0   0 --   E R\n"
        "long               --      --    168:00:0   --    0   0 --   E R\n"
        "himem              64gb    --    48:00:00   --    0   0 --   E R\n"
        "                                               ----- -----\n"
        "                                                   0     0\n"
    )
    full = system.run(USER, "qstat", "-Qf", "tintel").out
    assert re.sub(r"mtime = \d+", "mtime = N", full) == (
        "Queue: tintel\n"
        "    queue_type = Execution\n"
        "    total_jobs = 1\n"
        "    state_count = Transit:0 Queued:0 Held:1 Waiting:0 Running:0 Exiting:0 Comp\n"
        "\tlete:0 \n"
        "    resources_max.walltime = 24:00:00\n"
        "    resources_max.mem = 8gb\n"
        "    resources_max.ncpus = 4\n"
        "    resources_default.walltime = 01:00:00\n"
        "    resources_default.nodes = 1\n"
        "    mtime = N\n"
        "    enabled = True\n"
        "    started = True\n\n"
    )
    assert system.run(USER, "qstat", "-Qf").out.count("\nQueue: ") == 2
    unknown = system.run(USER, "qstat", "-Qf", "nosuchq")
    assert (unknown.code, unknown.err) == (172, "qstat: Unknown queue destination nosuchq\n")


def test_nothing_to_show(system: System) -> None:
    assert system.run(USER, "qstat").out == ""
    assert system.run(USER, "qstat", "-x").out == '<?xml version="1.0"?>\n<Data></Data>\n'


def test_completed_jobs_are_forgotten(own_system: System) -> None:
    system = own_system
    assert system.finished("exit 3")["exit_status"] == "3"
    system.qmgr("set server keep_completed = 0")
    name = system.submit("sleep 0.3")
    wait_for(lambda: system.run(USER, "qstat", "-x", name).code == 153, "forgotten at once")
    assert system.run(USER, "qstat", "-x", name).err == f"qstat: Unknown Job Id Error {name}\n"
