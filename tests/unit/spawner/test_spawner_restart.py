# SPDX-License-Identifier: BSD-3-Clause
"""What a hub finds again after it was killed, and what it does not stumble over."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path

import pytest

from tests.unit.spawner.hub_process import PROFILES, Hub, wait_for


def test_running_server_outlives_the_hub_and_its_profile(own_hub: Hub) -> None:
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    before = own_hub.wait_ready("ana")
    number = own_hub.job_number("ana")
    own_hub.kill()
    own_hub.write_profiles(PROFILES[1:])
    own_hub.start()
    after = own_hub.wait_ready("ana")
    assert after["state"] == before["state"]
    assert own_hub.queue.jobs() == [number]
    time.sleep(3)
    assert own_hub.server("ana")["ready"], "the polls that follow find it too"
    assert own_hub.api("DELETE", "/users/ana/server", token=token).status_code == 204
    assert own_hub.queue.jobs() == []
    assert own_hub.start_server("ana", token).status_code == 400, "the profile is gone now"


def test_running_server_outlives_a_restart_while_the_queue_is_silent(own_hub: Hub) -> None:
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    own_hub.wait_ready("ana")
    own_hub.kill()
    own_hub.queue.knob("qstat", "fail 111 qstat: cannot connect to server encina")
    own_hub.start()
    own_hub.wait_ready("ana")
    own_hub.queue.reset()
    time.sleep(2)
    assert own_hub.server("ana")["ready"]


def test_queued_job_is_adopted(own_hub: Hub) -> None:
    own_hub.queue.knob("schedule", "hold")
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    number = own_hub.job_number("ana")
    own_hub.kill()
    own_hub.queue.reset()
    own_hub.start()
    assert not own_hub.server("ana").get("ready")
    own_hub.queue.start(number)
    model = own_hub.wait_ready("ana")
    assert model["state"]["child_state"]["job_id"] == f"{number}.encina"
    assert "/ganymede/user/ana/" in wait_for(own_hub.routes)
    assert own_hub.queue.jobs() == [number]


def test_port_that_was_told_to_a_hub_that_died_is_known_to_the_next(own_hub: Hub) -> None:
    """Its job tells it once; the queue, which knows the host, is silent meanwhile."""
    own_hub.queue.knob("qstat", "fail 111 qstat: cannot connect to server encina")
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    wait_for(lambda: "201 POST /ganymede/hub/api/batchspawner" in own_hub.log())
    assert not own_hub.server("ana").get("ready")
    own_hub.kill()
    own_hub.queue.reset()
    own_hub.start()
    own_hub.wait_ready("ana")
    (number,) = own_hub.queue.jobs()
    assert own_hub.job_number("ana") == number


def test_queued_job_that_dies_while_the_hub_is_down_is_forgotten(own_hub: Hub) -> None:
    own_hub.queue.knob("schedule", "hold")
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    number = own_hub.job_number("ana")
    own_hub.kill()
    own_hub.queue.change(number, state="C", exit_status=271)
    own_hub.start()
    wait_for(lambda: not own_hub.server("ana"))
    own_hub.queue.reset()
    assert own_hub.start_server("ana", token).ok
    own_hub.wait_ready("ana")


ODD_STATES = [
    [],
    "text",
    {"child_state": {"job_id": ""}},
    {"child_state": {"job_id": 17}, "profile": 3},
    {"child_state": {"job_id": "tintel"}, "profile": ["x"]},
    {"child_state": [1], "child_conf": {"cmd": ["id"]}},
    {"profile": "gone", "child_conf": {"req_prologue": "id"}, "child_state": {"pid": 1}},
    {"child_state": {"job_id": "1.encina", "port": "22", "submitted": "x", "host": 5}},
]


def test_odd_states_and_options_lock_nobody_out(own_hub: Hub) -> None:
    # A refusal is the answer itself, however busy this machine is.
    own_hub.extra = 'c.JupyterHub.tornado_settings["slow_spawn_timeout"] = 30'
    own_hub.start()
    tokens = {}
    for number, _ in enumerate(ODD_STATES):
        name = f"user{number}"
        tokens[name] = own_hub.add_user(name)
        own_hub.start_server(name, tokens[name], {"profile": "wrong"})
    own_hub.kill()
    for number, state in enumerate(ODD_STATES):
        own_hub.database(
            "update spawners set state = ?, user_options = ?"
            " where user_id = (select id from users where name = ?)",
            json.dumps(state),
            json.dumps([{"profile": "x"}, "text", ["a"], 5][number % 4]),
            f"user{number}",
        )
    own_hub.start()
    for name in ("user0", "user7"):
        assert own_hub.api("POST", f"/users/{name}/server", token=tokens[name]).status_code == 400
        assert own_hub.start_server(name, tokens[name]).ok
    for name, token in tokens.items():
        session = own_hub.login(name)
        assert "tintel" in session.get(f"{own_hub.url}/spawn", timeout=10).text or name in (
            "user0",
            "user7",
        )
        assert own_hub.start_server(name, token).ok or name in ("user0", "user7")
    for name in tokens:
        own_hub.wait_ready(name)


# A queue that is silent from the beginning takes a part of the time before the job is submitted.
@pytest.mark.parametrize("silence", ["", "hang"])
def test_start_that_takes_too_long_says_so_and_leaves_no_job(own_hub: Hub, silence: str) -> None:
    own_hub.extra = "c.CustomPBSSpawner.start_timeout = 15"
    own_hub.queue.knob("schedule", "hold")
    own_hub.queue.knob("qstat", silence)
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    wait_for(lambda: "The job did not start within 15 seconds" in own_hub.log())
    own_hub.queue.knob("qstat")
    wait_for(lambda: not own_hub.server("ana").get("pending"))
    assert own_hub.queue.jobs() == []


@pytest.mark.parametrize("rows", ['{"profiles": [{}]}', "nonsense"])
def test_table_that_breaks_later_stops_starts_only(own_hub: Hub, rows: str) -> None:
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    own_hub.wait_ready("ana")
    (own_hub.root / "profiles.json").write_text(rows)
    other = own_hub.add_user("bea")
    answer = own_hub.start_server("bea", other)
    assert answer.status_code == 503
    assert answer.json()["message"].startswith("The profiles cannot be read at the moment.")
    own_hub.kill()
    own_hub.start()
    assert own_hub.wait_ready("ana")


def test_single_profile_need_not_be_named(own_hub: Hub) -> None:
    own_hub.write_profiles(PROFILES[:1])
    own_hub.start()
    token = own_hub.add_user("ana")
    assert own_hub.api("POST", "/users/ana/server", token=token).ok
    own_hub.wait_ready("ana")


def test_server_on_the_hub_machine(own_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row `local`: SudoSpawner, with its own helper and a sudo that changes nobody."""
    tools = own_hub.root / "tools"
    tools.mkdir()
    write_tool(tools / "sudo", '#!/bin/sh\nexec "$4" "$5"\n')
    mediator = f"#!{own_hub.python}\nfrom sudospawner.mediator import main\nmain()\n"
    write_tool(tools / "sudospawner", mediator)
    stub = own_hub.root / "env" / "bin" / "jupyterhub-singleuser"
    write_tool(tools / "sudospawner-singleuser", f'#!/bin/sh\nexec {own_hub.python} {stub} "$@"\n')
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    own_hub.extra = f"""
c.ProfileMenuSpawner.local_server = True
c.ProfileMenuSpawner.local_server_name = "Here"
c.SudoSpawner.sudospawner_path = "{tools}/sudospawner"
c.SudoSpawner.poll_interval = 1
"""
    own_hub.start()
    me = getpass.getuser()
    token = own_hub.add_user(me)
    assert own_hub.start_server(me, token, {"profile": "local"}).ok
    model = own_hub.wait_ready(me)
    assert model["state"]["profile"] == "local"
    assert own_hub.queue.numbers() == []
    own_hub.kill()
    own_hub.start()
    own_hub.wait_ready(me)
    assert own_hub.api("DELETE", f"/users/{me}/server", token=token).ok
    wait_for(lambda: not own_hub.server(me))
    assert "is deprecated" not in own_hub.log()


def write_tool(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
