# SPDX-License-Identifier: BSD-3-Clause
"""What qsub says and accepts. Texts and exit codes are those of TORQUE 6.1.3."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from .harness import SERVER, USERS, System, attributes

LIMIT = "qsub: submit error (Job exceeds queue resource limits MSG=cannot satisfy queue max {} requirement)\n"  # noqa: E501
NO_NODES = (
    "qsub: submit error (Job exceeds queue resource limits MSG=cannot locate feasible nodes "
    "(nodes file is empty, all systems are busy, or no nodes have the requested feature))\n"
)
ILLEGAL = "qsub: submit error (Illegal attribute or resource value for Resource_List.{})\n"
SYNTAX = "qsub: submit error (Command syntax invalid MSG=Invalid Syntax)\n"
USAGE_START = "usage: qsub [-a date_time] [-A account_string] [-b secs]\n"


def test_success_is_the_id_and_nothing_else(system: System) -> None:
    result = system.run("velezj", "qsub", "-h", stdin="hostname; sleep 2")
    assert result.code == 0
    assert result.err == ""
    number, _, rest = result.out.partition(".")
    assert number.isdigit()
    assert rest == f"{SERVER}\n"


REFUSED = [
    (["-q", "nosuchqueue"], 172,
     "qsub: submit error (Unknown queue MSG=requested queue not found)\n"),
    (["-l", "walltime=24:00:01"], 190, LIMIT.format("walltime")),
    (["-l", "mem=8193mb"], 190, LIMIT.format("mem")),
    (["-l", "mem=-5gb"], 190, LIMIT.format("mem")),
    (["-l", "mem=10G"], 190, LIMIT.format("mem")),
    (["-l", "ncpus=5"], 190, LIMIT.format("ncpus")),
    (["-l", "walltime=48:00:00,mem=100gb"], 190, LIMIT.format("walltime")),
    (["-l", "walltime=1:2:3:4"], 190, LIMIT.format("walltime")),
    (["-l", "walltime=99999999999"], 190, LIMIT.format("walltime")),
    (["-l", "nodes=1:ppn=5"], 190, NO_NODES),
    (["-l", "nodes=3:ppn=1"], 190, NO_NODES),
    (["-l", "nodes=1:noprop"], 190, NO_NODES),
    (["-l", "nodes=nosuchnode"], 190, NO_NODES),
    (["-l", "walltime=abc"], 168, ILLEGAL.format("walltime")),
    (["-l", "walltime=1h"], 168, ILLEGAL.format("walltime")),
    (["-l", "walltime=-1"], 168, ILLEGAL.format("walltime")),
    (["-l", "walltime=1-00:00:00"], 168, ILLEGAL.format("walltime")),
    (["-l", "mem=1.5gb"], 168, ILLEGAL.format("mem")),
    (["-l", "mem=10xb"], 168, ILLEGAL.format("mem")),
    (["-l", "mem=abc"], 168, ILLEGAL.format("mem")),
    (["-l", "nodes=-1"], 168, ILLEGAL.format("nodes")),
    (["-l", "nodes=1ppn=1"], 168, ILLEGAL.format("nodes")),
    (["-l", "ncpus=abc"], 168, ILLEGAL.format("ncpus")),
    (["-l", "nodes=1:ppn=x"], 27, SYNTAX),
    (["-l", "nodes=1:ppn=0"], 27, SYNTAX),
    (["-l", "nodes=0"], 27, SYNTAX),
    (["-l", "foo=bar"], 189, "qsub: submit error (Unknown resource type  Resource_List.foo)\n"),
    (["-l", "walltime"], 1,
     "Cannot find an attr=value pair in comma separated value 'walltime'\n"),
    (["-u", "rhea"], 177, "qsub: submit error (Bad UID for job execution "
     f"MSG=ruserok failed validating velezj/rhea from {SERVER})\n"),
    (["-P", "rhea"], 177, "qsub: submit error (Bad UID for job execution MSG=User 'velezj' is "
     "attempting to submit a proxy job for user 'rhea' but is not a manager)\n"),
    (["-W", "depend=afterok:999999"], 208, "qsub: submit error (Invalid Job Dependency)\n"),
    (["-q", "tintel@nosuchserver.invalid"], 162,
     "Can not resolve name for server nosuchserver.invalid. (rc = -1 - )\n"
     "Cannot resolve specified server host 'nosuchserver.invalid'.\n"
     "qsub: cannot connect to server nosuchserver.invalid (errno=15010) "
     "Access from host not allowed, or unknown host\n"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "code", "text"), REFUSED, ids=lambda item: str(item)[:40])
def test_refusals(system: System, options: list[str], code: int, text: str) -> None:
    result = system.run("velezj", "qsub", *options, stdin="sleep 0")
    assert (result.code, result.out, result.err) == (code, "", text)


USAGE_ERRORS = [
    (["-Z"], "qsub: invalid option -- 'Z'\n[exiting]\n\n"),
    (["-q"], "qsub: option requires an argument -- 'q'\n[exiting]\n\n"),
    (["-j", "xx"], "[qsub: illegal -j value]\n\n"),
    (["-l", "mem=1gb,"], "[qsub: illegal -l value]\n\n"),
    (["-l", ",mem=1gb"], "[qsub: illegal -l value]\n\n"),
    (["-l", "mem=1gb,,ncpus=1"], "[qsub: illegal -l value]\n\n"),
    (["-l", "=5"], "[qsub: illegal -l value]\n\n"),
    (["-N", "a b"], "[qsub: illegal -N value]\n\n"),
    (["-N", "x" * 300], "[qsub: illegal -N value]\n\n"),
    (["-o", ""], "[qsub: illegal -o value]\n\n"),
    (["-d", "/nonexistent"], "[qsub: illegal -d value]\n\n"),
    (["--help"], "[a single - is not a valid option]\n\n"),
]


@pytest.mark.parametrize(("options", "start"), USAGE_ERRORS, ids=lambda item: str(item)[:30])
def test_usage_errors(system: System, options: list[str], start: str) -> None:
    result = system.run("velezj", "qsub", *options, stdin="hostname")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(start + USAGE_START)
    assert result.err.endswith("[-v variable_list] [-V ] [-x] [-X] [-z] [script]\n\n")


ACCEPTED = [
    ("walltime=24:00:00", {"walltime": "24:00:00"}),
    ("walltime=90", {"walltime": "00:01:30"}),
    ("walltime=1:30", {"walltime": "00:01:30"}),
    ("walltime=1:60:61", {"walltime": "02:01:01"}),
    ("walltime=0", {"walltime": "00:00:00"}),
    ("walltime=", {"walltime": "01:00:00"}),
    ("mem=8gb", {"mem": "8gb"}),
    ("mem=10", {"mem": "10b"}),
    ("mem=0", {"mem": "0b"}),
    ("ncpus=0", {"ncpus": "0"}),
    ("select=1", {"select": "1"}),
    ("", {"walltime": "01:00:00", "nodes": "1", "nodect": "1"}),
    ("nodes=1:ppn=1:ppn=2", {"nodes": "1:ppn=1:ppn=2"}),
    ("mem=1gb walltime=60", {"mem": "1gb", "walltime": "01:00:00"}),
    ("mem=1gb,mem=2gb", {"mem": "2gb"}),
    ("pmem=100gb", {"pmem": "100gb"}),
]


@pytest.mark.parametrize(("value", "expected"), ACCEPTED)
def test_accepted_resources(system: System, value: str, expected: dict[str, str]) -> None:
    job = system.job(system.submit("sleep 0", "-h", "-l", value))
    assert {name: job[f"Resource_List.{name}"] for name in expected} == expected


def test_root_may_not_submit(system: System) -> None:
    result = system.run("root", "qsub", stdin="hostname")
    assert (result.code, result.out, result.err) == (1, "", "qsub can not be run as root\n")


def test_a_host_must_be_in_submit_hosts(system: System) -> None:
    for host in ("jhub", "elsewhere"):
        system.start_trqauthd(host)
    accepted = system.run("velezj", "qsub", "-h", stdin="hostname", host="jhub")
    assert accepted.code == 0
    job = system.job(accepted.out.strip())
    assert job["Job_Owner"] == "velezj@jhub"
    assert job["submit_host"] == "jhub"
    assert job["Output_Path"].startswith("jhub:/")
    refused = system.run("velezj", "qsub", stdin="hostname", host="elsewhere")
    assert refused.code == 177
    assert refused.err == (
        "qsub: submit error (Bad UID for job execution "
        "MSG=ruserok failed validating velezj/velezj from elsewhere)\n"
    )
    assert system.run("velezj", "qstat", host="elsewhere").code == 0


def test_the_server_must_know_the_user(system: System) -> None:
    if "jhub" not in system.hosts:
        system.start_trqauthd("jhub")
    system.hosts["jhub"].know("velezj", "rhea", "ghost")
    result = system.run("ghost", "qsub", stdin="hostname", host="jhub")
    assert result.code == 177
    assert result.err == (
        "qsub: submit error (Bad UID for job execution "
        "MSG=User ghost does not exist in server password file\n)\n"
    )


def test_command_line_wins_over_directives(system: System) -> None:
    script = "#!/bin/bash\n#PBS -N dirN -l walltime=0:10:00,mem=50mb -v A=script\n\n# note\necho\n"
    name = system.submit(script, "-h", "-N", "cliN", "-l", "walltime=0:20:00", "-v", "B=cli")
    job = system.job(name)
    assert job["Job_Name"] == "cliN"
    assert job["Resource_List.walltime"] == "00:20:00"
    assert job["Resource_List.mem"] == "50mb"
    assert ",B=cli," in job["Variable_List"]
    assert "A=script" not in job["Variable_List"]
    assert job["submit_args"] == "-h -N cliN -l walltime=0:20:00 -v B=cli"


def test_directives_end_at_the_first_command(system: System) -> None:
    script = (
        "#!/bin/sh\n#PBS\n#PBS garbage\n# PBS -N no1\n#pbs -N no2\n#PBS -q long\r\n\n"
        "#PBS -l walltime=0:10:00\n#PBS -l walltime=0:11:00\n#PBS -h\n"
        '#PBS -v TV_A="quoted value",TV_B=2\necho hi\n#PBS -N late\n'
    )
    job = system.job(system.submit(script))
    assert job["Job_Name"] == "STDIN"
    assert job["queue"] == "long"
    assert job["Resource_List.walltime"] == "00:11:00"
    assert ",TV_A=quoted value,TV_B=2," in job["Variable_List"]


def test_another_directive_prefix(system: System) -> None:
    job = system.job(system.submit("#PBS -N no\n#XX -N yes\n:\n", "-h", "-C", "#XX"))
    assert job["Job_Name"] == "yes"


@pytest.mark.parametrize(
    ("script", "code", "text"),
    [
        ("#PBS -q nosuch\n", 172,
         "qsub: submit error (Unknown queue MSG=requested queue not found)\n"),
        ("#PBS -l walltime=abc\n", 168, ILLEGAL.format("walltime")),
        ("#PBS -l walltime=30:00:00\n", 190, LIMIT.format("walltime")),
    ],
)  # fmt: skip
def test_bad_directives(system: System, script: str, code: int, text: str) -> None:
    result = system.run("velezj", "qsub", stdin=script)
    assert (result.code, result.out, result.err) == (code, "", text)


def _copies() -> set[Path]:
    return {
        path
        for path in Path("/tmp").glob("qsub.*")  # noqa: S108 - where qsub puts them
        if path.stat().st_uid == USERS["velezj"]
    }


def test_a_wrong_directive_leaves_the_script_behind(system: System) -> None:
    for path in _copies():  # other tests' wrong options
        path.unlink()
    result = system.run("velezj", "qsub", stdin="#PBS -Z\nSECRET=1\n")
    assert result.code == 2
    (left,) = _copies()
    assert left.stat().st_mode & 0o777 == 0o600
    left.unlink()
    system.submit("true", "-h")
    system.run("velezj", "qsub", "-q", "nosuch", stdin="true")
    assert _copies() == set()


@pytest.mark.parametrize(
    "name", ["1abc", "16", "abcdefghijklmnopqrstuvwxyz", "jupyter+hub", 'a<b&c>"d']
)
def test_job_names_are_not_cut(system: System, name: str) -> None:
    assert system.job(system.submit("true", "-h", "-N", name))["Job_Name"] == name


def test_odd_job_names(system: System) -> None:
    job = system.job(system.submit("true", "-h", "-N", "a/b"))
    assert job["Job_Name"] == "a/b"
    number = job["Job_Id"].partition(".")[0]
    assert job["Output_Path"] == f"{SERVER}:{system.home_of('velezj')}/b.o{number}"
    assert system.job(system.submit("true", "-h", "-N", ""))["Job_Name"] == "none"


def test_script_files(system: System) -> None:
    missing = system.run("velezj", "qsub", "nosuchfile")
    assert (missing.code, missing.err) == (
        1, "qsub: script file 'nosuchfile' cannot be loaded - No such file or directory\n"
    )  # fmt: skip
    folder = system.run("velezj", "qsub", "/etc")
    assert (folder.code, folder.err) == (1, "qsub: script not a file\n")
    script = system.home_of("velezj") / "run.sh"
    script.write_text("true\n")
    result = system.run("velezj", "qsub", "-h", "run.sh")
    assert system.job(result.out.strip())["Job_Name"] == "run.sh"


def test_interactive_needs_a_terminal(system: System) -> None:
    result = system.run("velezj", "qsub", "-I")
    assert (result.code, result.err) == (
        1,
        "qsub:\tstandard input and output must be a terminal for \n\tinteractive job submission\n",
    )


def test_a_deleted_folder_is_no_place_to_submit_from(system: System) -> None:
    gone = system.home_of("velezj") / "gone"
    gone.mkdir()
    os.chown(gone, USERS["velezj"], USERS["velezj"])
    program = system.programs / "bin/qsub"
    command = f"cd {gone} && rmdir {gone} && echo pwd | {program} -N gone"
    shim = system.programs / "bin/shim"
    shim.write_text(f"#!/bin/sh\n{command}\n")
    shim.chmod(0o755)
    result = system.run("velezj", "shim")
    assert (result.code, result.err) == (
        3, "qsub: Cannot obtain the current directory.\nPlease submit from a valid directory.\n"
    )  # fmt: skip


def test_an_empty_script_gets_an_id_and_no_job(system: System) -> None:
    result = system.run("velezj", "qsub")
    assert result.code == 0
    name = result.out.strip()
    assert name.endswith(f".{SERVER}")
    unknown = system.run("velezj", "qstat", "-x", name)
    assert (unknown.code, unknown.err) == (153, f"qstat: Unknown Job Id Error {name}\n")


def test_a_refused_job_burns_a_number(system: System) -> None:
    first = int(system.submit("true", "-h").partition(".")[0])
    system.run("velezj", "qsub", "-q", "nosuch", stdin="true")
    assert system.submit("true", "-h") == f"{first + 2}.{SERVER}"


def test_silent_submission(system: System) -> None:
    result = system.run("velezj", "qsub", "-z", "-h", stdin="true")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_version(system: System) -> None:
    assert system.run("velezj", "qsub", "--version").out == "Version: 6.1.3\nCommit: \n"


def test_execution_time(system: System) -> None:
    soon = time.strftime("%Y%m%d%H%M", time.localtime(time.time() + 3600))
    job = system.job(system.submit("true", "-a", soon))
    assert job["job_state"] == "W"
    assert 3500 < int(job["Execution_Time"]) - time.time() <= 3600
    assert "etime" not in job
    assert system.run("velezj", "qsub", "-a", "99", stdin="true").code == 2


def test_output_paths(system: System) -> None:
    home = system.home_of("velezj")
    folder = home / "out"
    folder.mkdir()
    paths = {
        ("-o", "out", "-N", "odir"): f"{SERVER}:{folder}/odir.o%",
        ("-o", "out/f.o"): f"{SERVER}:{home}/out/f.o",
        ("-o", "/abs/f"): f"{SERVER}:/abs/f",
        ("-o", "host:/abs/f"): "host:/abs/f",
        ("-o", f"{SERVER}:rel.o"): f"{SERVER}:rel.o",
        ("-o", "out/$PBS_JOBID.o"): f"{SERVER}:{home}/out/$PBS_JOBID.o",
        ("-d", "out", "-N", "d"): f"{SERVER}:{folder}/d.o%",
        ("-w", "out", "-N", "w"): f"{SERVER}:{folder}/w.o%",
    }
    for options, expected in paths.items():
        job = system.job(system.submit("true", "-h", *options))
        number = job["Job_Id"].partition(".")[0]
        assert job["Output_Path"] == expected.replace("%", number), options


def test_queue_switches_and_limits(own_system: System) -> None:
    system = own_system
    host = f"velezj@{SERVER}"
    system.qmgr("set queue tintel enabled = False")
    result = system.run("velezj", "qsub", "-q", "tintel", stdin="hostname")
    assert (result.code, result.err) == (
        175,
        "qsub: submit error (Queue is not enabled "
        f"MSG=queue is disabled: user {host}, queue tintel)\n",
    )
    system.qmgr("set queue himem acl_user_enable = True")
    system.qmgr("set queue himem acl_users = rhea")
    result = system.run("velezj", "qsub", "-q", "himem", stdin="hostname")
    assert (result.code, result.err) == (
        159,
        "qsub: submit error (Unauthorized Request  "
        f"MSG=user ACL rejected the submitting user: user {host}, queue himem)\n",
    )
    system.submit("true", "-h", "-q", "himem", user="rhea")
    system.qmgr("set queue long max_user_queuable = 1")
    system.submit("true", "-h", "-q", "long")
    result = system.run("velezj", "qsub", "-q", "long", stdin="sleep 100")
    assert (result.code, result.err) == (
        228,
        "qsub: submit error (Maximum number of jobs already in queue for user MSG=total number "
        f"of current user's jobs exceeds the queue limit: user {host}, queue long)\n",
    )
    system.qmgr("set queue long max_queuable = 1")
    result = system.run("rhea", "qsub", "-q", "long", stdin="sleep 100")
    assert (result.code, result.err) == (
        200,
        "qsub: submit error (Maximum number of jobs already in queue MSG=total number of jobs in "
        f"queue exceeds the queue limit: user rhea@{SERVER}, queue long)\n",
    )


def test_a_job_of_every_kind_is_listed(system: System) -> None:
    names = {system.submit("true", "-h"), system.submit("true", "-h", "-q", "long")}
    listed = {job["Job_Id"] for job in attributes(system.run("velezj", "qstat", "-x").out)}
    assert names <= listed
