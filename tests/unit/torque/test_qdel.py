# SPDX-License-Identifier: BSD-3-Clause
"""What qdel says, and what it leaves alive."""

from __future__ import annotations

import pytest

from .harness import SERVER, System, alive, lines, wait_for

USER = "velezj"


def test_queued_job(system: System) -> None:
    name = system.submit("sleep 5", "-h")
    foreign = system.run("rhea", "qdel", name)
    assert (foreign.code, foreign.out, foreign.err) == (
        159, "", f"qdel: Unauthorized Request  MSG=operation not permitted {name}\n"
    )  # fmt: skip
    own = system.run(USER, "qdel", name)
    assert (own.code, own.out, own.err) == (0, "", "")
    assert system.state(name) == "C"
    again = system.run(USER, "qdel", name)
    text = f"qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE {name}\n"
    assert (again.code, again.err) == (170, text)


MALFORMED = [
    (["999999"], 153, "qdel: nonexistent job id: 999999\n"),
    (["999999", "999998"], 153,
     "qdel: nonexistent job id: 999999\nqdel: nonexistent job id: 999998\n"),
    (["1.otherhost"], 153, "qdel: nonexistent job id: 1.otherhost\n"),
    (["abc"], 1, "qdel: illegally formed job identifier: abc\n"),
    (["12abc"], 1, "qdel: illegally formed job identifier: 12abc\n"),
    ([""], 1, "qdel: illegally formed job identifier: \n"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "text"), MALFORMED, ids=str)
def test_malformed_and_unknown(system: System, words: list[str], code: int, text: str) -> None:
    result = system.run(USER, "qdel", *words)
    assert (result.code, result.out, result.err) == (code, "", text)


def test_usage(system: System) -> None:
    usage = (
        "usage: qdel [{ -a | -c | -p | -t | -W delay | -m message}] [-b retry_seconds] "
        "[<JOBID>[<JOBID>]|'all'|'ALL']...\n"
        "       -a -c, -m, -p, -t, and -W are mutually exclusive\n"
    )
    bare = system.run(USER, "qdel")
    assert (bare.code, bare.err) == (2, usage)
    version = system.run(USER, "qdel", "--version")
    letters = "".join(f"qdel: invalid option -- '{letter}'\n" for letter in "-version")
    assert (version.code, version.err) == (2, letters + usage)


def test_one_unknown_among_two(system: System) -> None:
    name = system.submit("sleep 100", "-h")
    result = system.run(USER, "qdel", "999999", name)
    assert (result.code, result.err) == (153, "qdel: nonexistent job id: 999999\n")
    assert system.state(name) == "C"


def test_the_manager_deletes_any_job_and_only_he_purges(system: System) -> None:
    name = system.submit("sleep 100", "-h")
    assert system.run(USER, "qdel", "-p", name).code == 159
    assert system.run("root", "qdel", name).code == 0
    assert system.run("root", "qdel", "-p", name).code == 0
    assert system.run(USER, "qstat", "-x", name).code == 153


def test_all(system: System) -> None:
    assert system.run("rhea", "qdel", "all").code == 0
    names = [system.submit("sleep 100", "-h") for _ in range(2)]
    foreign = system.submit("sleep 100", "-h", user="rhea")
    assert system.run(USER, "qdel", "all").code == 0
    assert [system.state(name) for name in [*names, foreign]] == ["C", "C", "H"]
    nothing_left = system.run(USER, "qdel", "all")
    assert (nothing_left.code, nothing_left.err) == (153, "")


def test_no_grace_and_a_session_of_its_own_survives(system: System) -> None:
    home = system.home_of(USER)
    script = (
        f"trap 'echo cleanup > {home}/trapped; sleep 5; echo end > {home}/ended' TERM\n"
        "sh -c \"trap '' TERM; exec sleep 1000\" & echo $! > stubborn\n"
        "setsid sleep 1000 & echo $! > survivor\n"
        "echo $$ > shell\nwait\nsleep 1000\n"
    )
    name = system.submit(script, "-N", "kill")
    wait_for(lambda: lines(home / "shell"), "the script runs")
    result = system.run(USER, "qdel", name)
    assert (result.code, result.out, result.err) == (0, "", "")
    job = system.wait_state(name, "C")
    assert job["exit_status"] == "271"
    pids = {word: int((home / word).read_text()) for word in ("shell", "stubborn", "survivor")}
    assert not alive(pids["shell"])
    assert not alive(pids["stubborn"])
    assert alive(pids["survivor"])
    assert not (home / "ended").exists()


def test_a_login_shell_that_ignores_term_gets_the_kill_delay(system: System) -> None:
    profile = system.home_of("rhea") / ".profile"
    profile.write_text("trap '' TERM\n")
    name = system.submit("touch started; exec sleep 1000", user="rhea")
    started = system.home_of("rhea") / "started"
    wait_for(started.exists, "the script runs")
    assert system.run("rhea", "qdel", "-W", "1", name).code == 0
    assert system.state(name) == "R"
    assert system.wait_state(name, "C")["exit_status"] == "265"
    profile.unlink()


def test_signal(system: System) -> None:
    name = system.submit("touch up; exec sleep 1000")
    wait_for((system.home_of(USER) / "up").exists, "the script runs")
    assert system.run(USER, "qsig", "-s", "USR1", name).code == 0
    assert system.wait_state(name, "C")["exit_status"] == "266"


def test_another_server_is_not_ours(system: System) -> None:
    result = system.run(USER, "qdel", "1@nosuchserver.invalid")
    assert result.code == 162
    assert SERVER not in result.err
