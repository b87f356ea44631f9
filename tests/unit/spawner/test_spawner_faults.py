# SPDX-License-Identifier: BSD-3-Clause
"""What becomes of a job when its number is lost, its hub dies, its node is silent."""

from __future__ import annotations

import re
import threading
import time

import pytest

from tests.unit.spawner.hub_process import Hub, wait_for

CENSUS = """
import custom_pbs_spawner.census
custom_pbs_spawner.census.GRACE = 2.0
custom_pbs_spawner.census.FIRST_PAUSE = 0.5
"""


def submitted(hub: Hub, count: int = 1) -> list[int]:
    """The numbers of the jobs, once there are so many."""
    numbers: list[int] = wait_for(lambda: len(hub.queue.numbers()) >= count and hub.queue.numbers())
    return numbers


def metric(hub: Hub, name: str) -> float:
    """A figure of the hub's metrics."""
    text = hub.metrics()
    found = re.search(rf"^{re.escape(name)} (.+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


# --- the moment of submission ----------------------------------------------------------------


def test_job_whose_number_is_lost_is_found_by_its_tag(own_hub: Hub) -> None:
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.queue.knob("lose", "104")
    own_hub.start_server("ana", token)
    own_hub.wait_ready("ana")
    assert own_hub.queue.jobs() == [own_hub.job_number("ana")]
    assert metric(own_hub, "ganymede_orphans_adopted_total") == 1


def test_hub_killed_while_qsub_runs_finds_the_job(own_hub: Hub) -> None:
    """The answer of qsub never reaches a hub; its job is adopted by the next one."""
    own_hub.queue.knob("qsub", "slow 3")
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    wait_for(lambda: own_hub.queue.calls("qsub"))
    own_hub.kill()
    number = submitted(own_hub)[0]
    own_hub.start()
    own_hub.wait_ready("ana")
    assert own_hub.job_number("ana") == number
    assert own_hub.queue.jobs() == [number]
    assert own_hub.api("DELETE", "/users/ana/server", token=token).ok
    wait_for(lambda: own_hub.queue.jobs() == [])


def test_submission_that_made_no_job_is_given_up_after_a_restart(own_hub: Hub) -> None:
    own_hub.queue.knob("qsub", "hang")
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    wait_for(lambda: own_hub.queue.calls("qsub"))
    own_hub.kill()
    own_hub.queue.reset()
    own_hub.start()
    wait_for(lambda: "restarted in the moment in which the job was submitted" in own_hub.log())
    wait_for(lambda: not own_hub.server("ana"))
    assert own_hub.start_server("ana", token).ok
    own_hub.wait_ready("ana")


def test_stop_while_a_qsub_runs_that_fails_leaves_nothing(own_hub: Hub) -> None:
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.queue.knob("qsub", "slow-fail 2.5 190 qsub: Job exceeds queue resource limits")
    own_hub.start_server("ana", token)
    wait_for(lambda: own_hub.queue.calls("qsub"))
    own_hub.api("DELETE", "/users/ana/server", token=token)
    wait_for(lambda: not own_hub.server("ana"))
    assert "/ganymede/user/ana/" not in own_hub.routes()
    own_hub.queue.reset()
    assert own_hub.start_server("ana", token).ok
    own_hub.wait_ready("ana")


def test_start_that_follows_a_cancelled_one_is_left_alone(own_hub: Hub) -> None:
    own_hub.extra = "import custom_pbs_spawner.menu as menu\nmenu.CANCEL_PAUSE = 10.0"
    own_hub.queue.knob("schedule", "hold")
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    own_hub.job_number("ana")
    assert own_hub.api("DELETE", "/users/ana/server", token=token).ok
    wait_for(lambda: not own_hub.server("ana"))
    own_hub.queue.reset()
    assert own_hub.start_server("ana", token).ok
    own_hub.wait_ready("ana")
    number = own_hub.job_number("ana")
    time.sleep(11)
    assert own_hub.server("ana")["ready"]
    assert own_hub.queue.jobs() == [number]


def test_named_server_can_be_removed_while_it_stops(own_hub: Hub) -> None:
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.queue.knob("schedule", "hold")
    own_hub.start_server("ana", token, name="two")
    own_hub.job_number("ana", "two")
    own_hub.queue.knob("qdel", "fail 15 qdel: not now")
    path = "/users/ana/servers/two"
    assert own_hub.api("DELETE", path, token=token).status_code == 202
    answer = own_hub.api("DELETE", path, token=token, json={"remove": True})
    assert answer.status_code == 202
    own_hub.queue.reset()
    wait_for(lambda: own_hub.queue.jobs() == [])
    wait_for(lambda: own_hub.api("GET", path, token=token).status_code == 404)


# --- the end of a hub ------------------------------------------------------------------------


def test_start_that_outlived_its_hub_can_be_stopped(own_hub: Hub) -> None:
    own_hub.queue.knob("schedule", "hold")
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    own_hub.job_number("ana")
    own_hub.kill()
    own_hub.start()
    assert own_hub.server("ana")["pending"] == "spawn"
    answer = own_hub.api("DELETE", "/users/ana/server", token=token)
    assert answer.status_code in (202, 204), answer.text
    wait_for(lambda: own_hub.queue.jobs() == [])
    wait_for(lambda: not own_hub.server("ana"))


def test_start_that_outlived_its_hub_tells_its_page(own_hub: Hub) -> None:
    own_hub.queue.knob("schedule", "hold")
    own_hub.start()
    own_hub.start_server("ana", own_hub.add_user("ana"))
    number = own_hub.job_number("ana")
    own_hub.kill()
    own_hub.start()
    timer = threading.Timer(3, own_hub.queue.start, [number])
    timer.start()
    events = own_hub.api("GET", "/users/ana/server/progress").text
    timer.join()
    assert f"Job {number}.encina has been waiting in queue" in events
    assert '"ready": true' in events


def test_stop_that_outlives_its_hub_goes_on(own_hub: Hub) -> None:
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    own_hub.wait_ready("ana")
    own_hub.queue.knob("qdel", "fail 224 qdel: Server could not connect to MOM")
    assert own_hub.api("DELETE", "/users/ana/server", token=token).status_code == 202
    own_hub.kill()
    own_hub.start()
    assert own_hub.server("ana")["pending"] == "stop"
    own_hub.queue.reset()
    wait_for(lambda: not own_hub.server("ana"))
    assert own_hub.queue.jobs() == []
    assert own_hub.start_server("ana", token).ok


# --- jobs without a server -------------------------------------------------------------------


def test_job_that_no_server_claims_is_deleted(own_hub: Hub) -> None:
    own_hub.extra = CENSUS
    own_hub.start()
    own_hub.start_server("ana", own_hub.add_user("ana"))
    own_hub.start_server("bea", own_hub.add_user("bea"))
    own_hub.wait_ready("ana")
    own_hub.wait_ready("bea")
    kept = own_hub.job_number("bea")
    own_hub.kill()
    own_hub.database(
        "update spawners set state = '{}', server_id = null"
        " where user_id = (select id from users where name = 'ana')"
    )
    own_hub.queue.knob("qdel", "fail 15 qdel: not now")
    own_hub.start()
    wait_for(lambda: "could not be deleted: qdel: not now" in own_hub.log())
    own_hub.queue.reset()
    wait_for(lambda: own_hub.queue.jobs() == [kept])
    assert own_hub.server("bea")["ready"]
    wait_for(lambda: metric(own_hub, "ganymede_orphans_deleted_total") == 1)


def test_jobs_count_for_the_limit_also_when_their_server_is_lost(own_hub: Hub) -> None:
    own_hub.extra = "c.JupyterHub.named_server_limit_per_user = 1"
    own_hub.start()
    token = own_hub.add_user("ana")
    for name in ("", "two"):
        own_hub.start_server("ana", token, name=name)
        own_hub.wait_ready("ana", name)
    own_hub.kill()
    own_hub.database("update spawners set state = '{}', server_id = null")
    own_hub.queue.knob("qdel", "fail 15 qdel: not now")
    own_hub.start()
    own_hub.wait_census()
    answer = own_hub.start_server("ana", token)
    assert answer.status_code == 429
    assert answer.json()["message"].startswith("You have 2 jobs already, and may have 2.")
    own_hub.queue.reset()
    wait_for(lambda: own_hub.queue.jobs() == [])
    wait_for(lambda: own_hub.start_server("ana", token).ok)
    own_hub.wait_ready("ana")


# --- hidden jobs, lost nodes, jobs that are sent back ----------------------------------------


@pytest.mark.parametrize("version", ["6.1.3", "4.2.10"])
def test_queue_that_hides_other_peoples_jobs(own_hub: Hub, version: str) -> None:
    own_hub.queue.knob("hide", version)
    own_hub.start()
    tokens = {name: own_hub.add_user(name) for name in ("ana", "bea")}
    for name, token in tokens.items():
        own_hub.start_server(name, token)
    for name in tokens:
        own_hub.wait_ready(name)
    assert "The queue hides other people's jobs" in own_hub.log()
    number = own_hub.job_number("ana")
    own_hub.queue.kill(number)
    wait_for(lambda: not own_hub.server("ana"))
    assert own_hub.server("bea")["ready"]
    assert own_hub.api("DELETE", "/users/bea/server", token=tokens["bea"]).ok
    wait_for(lambda: own_hub.queue.jobs() == [])


def test_server_on_a_lost_node_stays_and_can_be_left(own_hub: Hub) -> None:
    own_hub.extra = CENSUS
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    own_hub.wait_ready("ana")
    number = own_hub.job_number("ana")
    own_hub.queue.knob("node_down", "yes")
    own_hub.queue.knob("qdel", "fail 224 qdel: Server could not connect to MOM")
    wait_for(lambda: "Node localhost does not answer." in own_hub.log())
    assert own_hub.server("ana")["ready"], "a node that is silent is no end"
    assert own_hub.api("DELETE", "/users/ana/server", token=token).ok
    wait_for(lambda: not own_hub.server("ana"))
    assert own_hub.queue.jobs() == [number]
    own_hub.queue.reset()
    wait_for(lambda: own_hub.queue.jobs() == [])


def test_job_that_is_sent_back_again_and_again_is_given_up(own_hub: Hub) -> None:
    own_hub.queue.knob("schedule", "hold")
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    number = own_hub.job_number("ana")
    own_hub.queue.change(number, start_count=6)
    wait_for(lambda: "was sent back by its node again and again" in own_hub.log())
    wait_for(lambda: own_hub.queue.jobs() == [])


def test_why_a_running_server_ended_is_kept_until_the_next_start(own_hub: Hub) -> None:
    own_hub.start()
    token = own_hub.add_user("ana")
    own_hub.start_server("ana", token)
    own_hub.wait_ready("ana")
    log = next((own_hub.queue.home("ana") / ".ganymede" / "logs").glob("*.log"))
    with log.open("a") as lines:
        lines.write("the last <b>words</b>\n")
    own_hub.queue.kill(own_hub.job_number("ana"))
    wait_for(lambda: not own_hub.server("ana"))
    session = own_hub.login("ana")
    page = session.get(f"{own_hub.url}/user/ana/lab", timeout=10).text
    assert "the last &lt;b&gt;words&lt;/b&gt;" in page
    assert own_hub.start_server("ana", token).ok
    own_hub.wait_ready("ana")


def test_many_starts_at_once_keep_the_limit(own_hub: Hub) -> None:
    own_hub.extra = "c.JupyterHub.named_server_limit_per_user = 2"
    own_hub.start()
    token = own_hub.add_user("ana")
    names = ["", "a", "b", "c", "d"]
    threads = [
        threading.Thread(target=own_hub.start_server, args=("ana", token, None, name))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: not any(own_hub.server("ana", name).get("pending") for name in names))
    assert 0 < len(own_hub.queue.jobs()) <= 3
