# SPDX-License-Identifier: BSD-3-Clause
"""S4-S6, A3-A5: what may be chosen, whichever way the choice comes, and what a wrong one leaves."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pitfalls.bed import Bed, Researcher, prepared, processes, reached, stays
from tests.unit.spawner.hub_process import xsrf

ACCEPTED = (201, 202)


def script_of_a_start(ana: Researcher, options: object) -> str:
    """The script that such a start submits; "" when it is refused."""
    if ana.start(options).status_code not in ACCEPTED:
        return ""
    prepared("a job is submitted", lambda: ana.jobs() or not ana.model().get("pending"))
    return ana.bed.queue.script(ana.jobs()[-1]) if ana.jobs() else ""


# --- S4: nothing but a profile -------------------------------------------------------------


@pytest.mark.row("S4")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", "urgent"),
        ("memory", "640gb"),
        ("runtime", "999:00:00"),
        ("nprocs", "64"),
        ("cmd", "id #"),
        ("prologue", "id #"),
        ("epilogue", "id #"),
        ("options", "-A\n#PBS -W group_list=wheel"),
        ("host", "encina\n#PBS -p 1023"),
        ("keepvars", "PATH"),
    ],
)
def test_a_value_beside_the_profile_is_refused(bed: Bed, name: str, value: str) -> None:
    ana = bed.researcher()
    bed.queue.knob("schedule", "hold")
    options = {"profile": "tintel", name: value}
    answer = ana.start(options)
    assert answer.status_code == 400, answer.text
    stays("nothing was submitted", lambda: not ana.jobs(), 1)


@pytest.mark.row("S4")
@pytest.mark.parametrize("key", ["tintel\n#PBS -q urgent", "tintel ", "TINTEL", "../tintel"])
def test_a_key_is_taken_literally(bed: Bed, key: str) -> None:
    ana = bed.researcher()
    assert ana.start({"profile": key}).status_code == 400
    stays("nothing was submitted", lambda: not ana.jobs(), 0.5)


@pytest.mark.row("S4")
def test_the_table_decides_what_the_script_asks_for(bed: Bed) -> None:
    ana = bed.researcher()
    bed.queue.knob("schedule", "hold")
    script = script_of_a_start(ana, {"profile": "tintel", "nprocs": "64", "memory": "640gb"})
    assert "64" not in [line for line in script.splitlines() if "ppn" in line or "mem=" in line]
    assert "640gb" not in script


# --- A3, A4: the other doors ---------------------------------------------------------------


@pytest.mark.row("A3")
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_options_that_were_laid_down_before_are_checked_too(bed: Bed, method: str) -> None:
    """PUT makes a server with options, PATCH changes them; the start sends none of its own."""
    ana = bed.researcher()
    options = {"profile": "tintel", "queue": "urgent"}
    if method == "PATCH":
        ana.api("PUT", "/servers/side", json={"display_name": "side"})
    ana.api(method, "/servers/side", json={"display_name": "side", "user_options": options})
    bed.queue.knob("schedule", "hold")
    assert ana.api("POST", "/servers/side").status_code == 400
    stays("nothing was submitted", lambda: not ana.jobs(), 1)


@pytest.mark.row("A3")
@pytest.mark.parametrize("query", ["profile=tintel&queue=urgent", "profile=nope", "prologue=id"])
def test_the_query_of_the_spawn_page_is_checked(bed: Bed, query: str) -> None:
    ana = bed.researcher()
    session = bed.login(ana.name)
    asked = "&".join(f"opt-{pair}" for pair in query.split("&"))
    answer = session.get(f"{bed.url}/spawn?{asked}", timeout=10)
    assert answer.status_code == 400, answer.status_code
    stays("nothing was submitted", lambda: not ana.jobs() and not ana.model(), 1)


@pytest.mark.row("A3")
def test_the_fields_of_the_form_are_checked(bed: Bed) -> None:
    ana = bed.researcher()
    session = bed.login(ana.name)
    page = session.get(f"{bed.url}/spawn", timeout=10).text
    answer = session.post(
        f"{bed.url}/spawn?_xsrf={xsrf(page)}",
        data={"profile": "nope", "queue": "urgent"},
        timeout=10,
        allow_redirects=False,
    )
    assert answer.status_code == 400
    stays("nothing was submitted", lambda: not ana.jobs() and not ana.model(), 1)


@pytest.mark.row("A4")
def test_the_menu_shows_the_table_as_text(bed: Bed) -> None:
    """A name with < and & is a name, not a part of the page."""
    ana = bed.researcher()
    page = bed.login(ana.name).get(f"{bed.url}/spawn", timeout=10).text
    assert "himem4 &lt;b&gt;&amp;&lt;/b&gt;" in page
    assert "himem4 <b>" not in page


# --- S5: a profile that there is not -------------------------------------------------------


@pytest.mark.row("S5")
@pytest.mark.parametrize("options", [{}, {"profile": ""}, {"profile": "nope"}], ids=str)
def test_an_unknown_profile_is_refused_with_the_names_there_are(bed: Bed, options: object) -> None:
    ana = bed.researcher()
    answer = ana.start(options)
    assert answer.status_code == 400, answer.text
    assert "tintel, himem4" in answer.json()["message"]


@pytest.mark.row("S5")
def test_an_unknown_profile_runs_nothing_on_the_hub_machine(bed: Bed) -> None:
    ana = bed.researcher()
    (ana.home() / "environment.json").unlink(missing_ok=True)
    before = _children(bed)
    ana.start({"profile": "nope"})
    stays("the hub has no new process", lambda: _children(bed) <= before, 2)
    assert not ana.model()


def _children(bed: Bed) -> set[str]:
    """The command lines of what the hub has started, commands of the queue aside."""
    found = set()
    for process, words in processes():
        command = " ".join(words)
        with suppress(OSError, IndexError):
            stat = Path("/proc", str(process), "stat").read_text()
            if int(stat.rpartition(")")[2].split()[1]) == bed.pid:
                found.add(command)
    return {command for command in found if str(bed.queue.bin) not in command}


# --- S6: a wrong value leaves nothing behind -----------------------------------------------

WRONG = [
    {"profile": ["tintel"]},
    {"profile": {"profile": "tintel"}},
    {"profile": None},
    {"profile": 17},
    {"profile": "tintel", "memory": {"a": 1}},
]


@pytest.mark.row("S6")
@pytest.mark.parametrize("options", WRONG, ids=str)
def test_a_value_of_the_wrong_kind_is_refused_and_not_kept(bed: Bed, options: object) -> None:
    ana = bed.researcher()
    answer = ana.start(options)
    assert answer.status_code == 400, answer.text
    stored = bed.database(
        "select s.user_options from spawners s join users u on u.id = s.user_id where u.name = ?",
        ana.name,
    )
    assert [json.loads(row[0] or "{}") for row in stored] in ([], [{}])


@pytest.mark.row("S6")
def test_nobody_is_locked_out_by_what_she_sent(own_bed: Bed) -> None:
    """Not by options, not by what a job reports: not now and not after a restart of the hub."""
    own_bed.start()
    people = [own_bed.researcher() for _ in WRONG]
    for person, options in zip(people, WRONG, strict=True):
        person.start(options)
        person.api("PATCH", "/servers/", json={"user_options": options})
    reporter = own_bed.researcher()
    token = own_bed.server_token(reporter.queue_one())
    for body in (
        {"child_config": {"start_timeout": "soon", "req_memory": ["x"]}},
        {"child_config": {"start_timeout": "soon"}, "child_profile": "gone"},
        {"user_options": {"profile": ["x"]}},
    ):
        reporter.report(body, token)
    own_bed.queue.knob("schedule")
    own_bed.queue.start(reporter.jobs()[-1])
    reached("that start is over", lambda: not reporter.model().get("pending"), 30)
    for _ in range(2):
        for person in (*people, reporter):
            session = own_bed.login(person.name)
            assert session.get(f"{own_bed.url}/home", timeout=10).ok
            if not person.model():
                assert person.start().status_code in ACCEPTED, "a good choice is served"
        for person in (*people, reporter):
            reached(f"{person.name} has her server", person.ready, 20)
        own_bed.kill()
        own_bed.start()
    for person in (*people, reporter):
        assert person.stop().status_code in (202, 204)
    for person in people:
        reached("nothing runs", lambda person=person: not person.model())  # type: ignore[misc]
        assert own_bed.api("DELETE", f"/users/{person.name}").status_code == 204


ODD_STATES = [
    [],
    "text",
    {"child_state": {"job_id": 17}, "profile": 3},
    {"child_state": [1], "child_conf": {"cmd": 5}},
    {"child_state": {"job_id": "1.encina"}, "child_conf": {"start_timeout": "x"}},
    {"profile": ["x"], "child_state": {"job_id": "1.encina", "port": "22", "host": 5}},
]


@pytest.mark.row("S6")
def test_a_state_that_no_longer_fits_is_dropped(own_bed: Bed) -> None:
    """What an older release or another spawner has stored raises for nobody."""
    own_bed.start()
    people = [own_bed.researcher() for _ in ODD_STATES]
    for person in people:
        person.start({"profile": "nope"})
    own_bed.kill()
    for person, state in zip(people, ODD_STATES, strict=True):
        own_bed.database(
            "update spawners set state = ?, user_options = '{}'"
            " where user_id = (select id from users where name = ?)",
            json.dumps(state),
            person.name,
        )
    own_bed.start()
    for person in people:
        assert own_bed.login(person.name).get(f"{own_bed.url}/home", timeout=10).ok

        def served(person: Researcher = person) -> bool:
            return person.start().status_code in ACCEPTED

        # A job of that name may be waited for until the queue says that there is none.
        reached("a good choice is served", served)
    for person in people:
        reached("she has her server", person.ready, 30)
