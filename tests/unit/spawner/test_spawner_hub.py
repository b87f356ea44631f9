# SPDX-License-Identifier: BSD-3-Clause
"""The whole way through a real hub: choice, job, port, faults of the queue, stop."""

from __future__ import annotations

import html
import json
import re
import threading
import time
from typing import Any

import pytest
import requests
from custom_pbs_spawner.scheduler import is_tag

from tests.unit.spawner.hub_process import Hub, wait_for, xsrf

CHOICES = "There are: tintel, himem4."
UNREACHABLE = "fail 111 qstat: cannot connect to server encina (errno=111) Connection refused"


def token_in_script(hub: Hub, number: int) -> str:
    match = re.search("^export JUPYTERHUB_API_TOKEN=(.+)$", hub.queue.script(number), re.MULTILINE)
    assert match is not None
    return match[1]


def failure(hub: Hub, user: str) -> str:
    """What the pending page says when a start has failed."""
    wait_for(lambda: not hub.server(user).get("pending"))
    events = progress(hub, user)
    assert events[-1]["failed"], events
    message: str = events[-1]["html_message"]
    return message


def progress(
    hub: Hub, user: str, *, until: str = "nothing", timeout: float = 15
) -> list[dict[str, Any]]:
    """The events of the pending page, until one says `until` or there are no more."""
    events = []
    with hub.api("GET", f"/users/{user}/server/progress", stream=True) as answer:
        ends = time.monotonic() + timeout
        for line in answer.iter_lines():
            if line.startswith(b"data:"):
                events.append(json.loads(line[5:]))
                if until in events[-1]["message"]:
                    break
            if time.monotonic() > ends:
                break
    return events


# --- the ways in ---------------------------------------------------------------------------


def test_rest_start(hub: Hub) -> None:
    token = hub.add_user("ana")
    assert hub.start_server("ana", token).ok
    model = hub.wait_ready("ana")
    number = hub.job_number("ana")
    assert hub.queue.job(number)["owner"] == "ana"
    assert "/ganymede/user/ana/" in hub.routes()
    state = model["state"]
    assert state["profile"] == "tintel"
    assert set(state) == {"profile", "child_state"}
    assert state["child_state"]["host"] == "localhost"
    assert "token" not in json.dumps(hub.database("select state from spawners")).lower()


def test_script_and_environment_of_the_job(hub: Hub) -> None:
    token = hub.add_user("bea")
    for number in range(30):
        old = hub.queue.home("bea") / ".ganymede" / "logs" / f"{number}.old.log"
        old.parent.mkdir(parents=True, exist_ok=True)
        old.write_text("")
    hub.start_server("bea", token, {"profile": "himem4"})
    hub.wait_ready("bea")
    number = hub.job_number("bea")
    directives = [line for line in hub.queue.script(number).splitlines() if "#PBS" in line]
    home = hub.queue.home("bea")
    assert directives[:-1] == [
        "#PBS -N jupyterhub-singleuser",
        "#PBS -q himem",
        "#PBS -l nodes=1:ppn=4",
        "#PBS -l mem=32gb",
        "#PBS -l walltime=48:00:00",
        "#PBS -r n",
        "#PBS -j oe",
    ]
    output = re.fullmatch(rf"#PBS -o {home}/\.ganymede/logs/ganymede-(.+)\.out", directives[-1])
    assert output is not None
    assert is_tag(output[1])
    environment = json.loads((home / "environment.json").read_text())
    assert environment["PATH"].startswith(f"{hub.root}/env/bin:")
    assert environment["JUPYTER_PATH"] == "/software/jupyterhub/share/jupyter"
    assert environment["MEM_LIMIT"] == str(32 * 1024**3)
    assert environment["JUPYTERHUB_SERVICE_URL"].startswith("http://0.0.0.0:")
    log = home / ".ganymede" / "logs" / f"{number}.encina.log"
    assert "stub server at 0.0.0.0" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert len(list(log.parent.iterdir())) == 20


def test_nothing_secret_reaches_a_command(hub: Hub) -> None:
    token = hub.add_user("carla")
    hub.start_server("carla", token)
    hub.wait_ready("carla")
    number = hub.job_number("carla")
    secrets = [hub.secret, token, token_in_script(hub, number)]
    calls = hub.queue.calls()
    assert not [secret for secret in secrets if secret in json.dumps(calls)]
    environments = [call["env"] for call in hub.queue.calls("sudo") + hub.queue.calls("qstat")]
    assert all(set(env) == {"PATH", "LANG", "LC_ALL"} for env in environments)
    assert {call["cwd"] for call in calls} == {"/"}
    submissions = [call["argv"] for call in hub.queue.calls("sudo") if "carla" in call["argv"]]
    assert [argv[1:] for argv in submissions] == [["-n", "-u", "carla", f"{hub.queue.bin}/qsub"]]
    assert not [line for line in hub.log().splitlines() if secrets[2] in line]


def test_form_start(hub: Hub) -> None:
    session = hub.login("diana", language="fr, es;q=0.9, en;q=0.5")
    page = session.get(f"{hub.url}/spawn", timeout=10).content.decode()
    assert "¿Dónde debe ejecutarse el cuaderno?" in page
    assert "himem4 &lt;b&gt;&amp;&lt;/b&gt;" in page
    answer = session.post(
        f"{hub.url}/spawn?_xsrf={xsrf(page)}",
        data={"profile": "himem4"},
        timeout=10,
        allow_redirects=False,
    )
    assert answer.status_code == 302
    hub.wait_ready("diana")
    assert "ppn=4" in hub.queue.script(hub.job_number("diana"))


def test_url_start(hub: Hub) -> None:
    session = hub.login("elsa")
    session.get(f"{hub.url}/spawn?opt-profile=himem4", timeout=10)
    hub.wait_ready("elsa")
    assert "ppn=4" in hub.queue.script(hub.job_number("elsa"))


def test_named_server_beside_the_first(hub: Hub) -> None:
    token = hub.add_user("fatima")
    hub.start_server("fatima", token)
    hub.start_server("fatima", token, {"profile": "himem4"}, name="second")
    hub.wait_ready("fatima")
    hub.wait_ready("fatima", "second")
    assert hub.job_number("fatima") != hub.job_number("fatima", "second")
    assert "/ganymede/user/fatima/second/" in hub.routes()


# --- the choice is enforced ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "nope"}, f"There is no profile 'nope'. {CHOICES}"),
        ({"profile": ""}, f"There is no profile ''. {CHOICES}"),
        ({"profile": "local"}, f"There is no profile 'local'. {CHOICES}"),
        ({}, f"Choose a profile. {CHOICES}"),
        *(
            (odd, f'Only "profile" can be chosen, and it is one word. {CHOICES}')
            for odd in (
                {"profile": "tintel", "queue": "urgent"},
                {"profile": "tintel", "req_nprocs": "64"},
                {"prologue": "id"},
                {"profile": ["tintel"]},
                {"profile": {"profile": "tintel"}},
                {"profile": None},
                {"profile": 1},
            )
        ),
    ],
)
def test_rest_refuses(hub: Hub, options: object, sentence: str) -> None:
    user = f"gala{abs(hash(repr(options)))}"
    token = hub.add_user(user)
    answer = hub.start_server(user, token, options)
    assert (answer.status_code, answer.json()["message"]) == (400, sentence)
    stored = hub.database(
        "select s.user_options from spawners s join users u on u.id = s.user_id where u.name = ?",
        user,
    )
    assert stored == [("{}",)]
    assert not hub.server(user)


def test_refusal_leaves_nothing_behind(hub: Hub) -> None:
    token = hub.add_user("gunda")
    assert hub.start_server("gunda", token, {"profile": 1}).status_code == 400
    assert hub.start_server("gunda", token).ok
    hub.wait_ready("gunda")


def test_form_refuses(hub: Hub) -> None:
    session = hub.login("hilda")
    page = session.get(f"{hub.url}/spawn", timeout=10).text
    address = f"{hub.url}/spawn?_xsrf={xsrf(page)}"
    for fields, sentence in (
        ({"profile": "<b>"}, "There is no profile '<b>'."),
        ({"profile": "tintel", "queue": "x"}, 'Only "profile" can be chosen'),
        ({"profile": ["tintel", "himem4"]}, 'Only "profile" can be chosen'),
    ):
        answer = session.post(address, data=fields, timeout=10)
        assert answer.status_code == 400
        assert sentence in html.unescape(answer.text)
        assert "'<b>'" not in answer.text
        assert 'value="tintel"' in answer.text, "the form is shown again"


# --- the port --------------------------------------------------------------------------------


def test_port_report_takes_one_integer_once(hub: Hub) -> None:
    hub.queue.knob("schedule", "hold")
    user_token = hub.add_user("ines")
    hub.start_server("ines", user_token)
    number = hub.job_number("ines")
    token = token_in_script(hub, number)
    before = hub.server("ines")

    def report(body: object, with_token: str = token) -> int:
        text = body if isinstance(body, str) else json.dumps(body)
        answer = hub.api("POST", "/batchspawner", token=with_token, data=text)
        return answer.status_code

    for body in (
        *({"port": port} for port in (0, 80, 1023, 65536, -1, 8888.0, "8888", True, None, [8888])),
        {"port": 8888, "ip": "10.0.0.1"},
        {"port": 8888, "exec_prefix": "id"},
        {"profiles": []},
        {"cmd": ["id"]},
        {},
        [],
        8888,
        "port=8888",
        '{"port": 8888' + " " * 1000 + "}",
        "",
    ):
        assert report(body) == 400, body
    assert report({"port": 8888}, user_token) == 403
    assert report({"port": 8888}, "0" * 32) == 403
    assert report({"port": 8888}, "0123456789abcdef-service") == 403
    assert (
        requests.post(f"{hub.url}/api/batchspawner", data='{"port": 8888}', timeout=5).status_code
        == 403
    )
    assert hub.server("ines") == before, "nothing has changed"
    assert hub.log().count("Port report refused") == 22
    # Nothing listens at this port, so the server does not become ready by it.
    assert report({"port": 8888}) == 201
    assert report({"port": 8889}) == 409
    hub.queue.knob("schedule")
    hub.queue.change(number, state="R")
    time.sleep(2)
    assert not hub.server("ines")["ready"]


def test_port_report_of_a_running_server_is_refused(hub: Hub) -> None:
    token = hub.add_user("julia")
    hub.start_server("julia", token)
    before = hub.wait_ready("julia")
    server_token = token_in_script(hub, hub.job_number("julia"))
    answer = hub.api("POST", "/batchspawner", token=server_token, json={"port": 8888})
    assert answer.status_code == 409
    assert hub.server("julia")["state"] == before["state"]


# --- while it starts -------------------------------------------------------------------------


def test_pending_page_speaks_the_language_of_the_browser(hub: Hub) -> None:
    hub.queue.knob("schedule", "hold")
    session = hub.login("karin", language="es")
    (hub.queue.home("karin") / "slow").write_text("")
    session.get(f"{hub.url}/spawn?opt-profile=tintel", timeout=10)
    number = hub.job_number("karin")
    hub.queue.change(number, comment="Not Running: <no> nodes")
    messages = [event["message"] for event in progress(hub, "karin", until="<no>")]
    assert re.search(
        rf"El trabajo {number}.encina lleva (un momento|\d+ segundos) esperando en la cola tintel. "
        "La cola dice: Not Running: <no> nodes",
        messages[-1],
    ), messages
    hub.queue.knob("schedule")
    hub.queue.start(number)
    texts = [event["message"] for event in progress(hub, "karin")]
    assert f"El trabajo {number}.encina ha empezado en localhost" in " ".join(texts)
    hub.wait_ready("karin")


def test_job_that_dies_before_its_port_is_seen_at_once(hub: Hub) -> None:
    token = hub.add_user("lena")
    (hub.queue.home("lena") / "die").write_text("")
    begun = time.monotonic()
    hub.start_server("lena", token)
    text = failure(hub, "lena")
    assert time.monotonic() - begun < 15, "long before the start's 60 s are over"
    match = re.search(r"The notebook server of job (\d+).encina ended with exit status 3\.", text)
    assert match is not None, text
    assert (
        f"Its output is in {hub.queue.home('lena')}/.ganymede/logs/{match[1]}.encina.log." in text
    )
    assert re.search(r'<pre class="job-log[^"]*">[^<]*no luck today\s', text), text


@pytest.mark.parametrize(
    ("knob", "sentence"),
    [
        (
            "fail 190 qsub: submit error (Job exceeds queue resource limits MSG=<max> walltime)",
            "The queue did not accept the job: qsub: submit error "
            "(Job exceeds queue resource limits MSG=&lt;max&gt; walltime)",
        ),
        ("fail 111 qsub: cannot connect", "The queue does not answer, so no job was submitted."),
        ("hang", "The queue does not answer, so no job was submitted."),
        ("print 17", "The queue gave an answer that makes no sense."),
        ("fail 1 sudo: a password is required", "The hub may not submit jobs in your name."),
    ],
)
def test_submission_that_fails(hub: Hub, knob: str, sentence: str) -> None:
    user = f"maria{abs(hash(knob))}"
    token = hub.add_user(user)
    hub.queue.knob("qsub", knob)
    hub.start_server(user, token)
    assert sentence in failure(hub, user)
    hub.queue.reset()
    hub.start_server(user, token)
    hub.wait_ready(user)


def test_start_that_is_cancelled_deletes_its_job(hub: Hub) -> None:
    hub.queue.knob("schedule", "hold")
    token = hub.add_user("nora")
    hub.start_server("nora", token)
    number = hub.job_number("nora")
    assert hub.api("DELETE", "/users/nora/server", token=token).status_code in (202, 204)
    wait_for(lambda: hub.queue.job(number)["state"] == "C")


def test_start_that_is_cancelled_during_the_submission_deletes_its_job(hub: Hub) -> None:
    hub.queue.knob("qsub", "slow 2.5")
    hub.queue.knob("schedule", "hold")
    token = hub.add_user("olga")
    hub.start_server("olga", token)
    jobs = hub.queue.jobs()
    hub.api("DELETE", "/users/olga/server", token=token)
    submitted = wait_for(lambda: set(hub.queue.numbers()) - set(jobs))
    wait_for(lambda: not submitted & set(hub.queue.jobs()))


# --- while it runs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knob", [UNREACHABLE, "print", "print <Data><Job><Job_Id>1.enc", "print nonsense", "hang"]
)
def test_server_outlives_a_queue_that_does_not_answer(hub: Hub, knob: str) -> None:
    user = f"paula{abs(hash(knob))}"
    token = hub.add_user(user)
    hub.start_server(user, token)
    hub.wait_ready(user)
    number = hub.job_number(user)
    hub.queue.knob("qstat", knob)
    asked = len(hub.queue.calls("qstat"))
    wait_for(lambda: len(hub.queue.calls("qstat")) >= asked + 2)
    time.sleep(1.5)
    assert hub.server(user)["ready"]
    assert f"/ganymede/user/{user}/" in hub.routes()
    hub.queue.reset()
    asked = len(hub.queue.calls("qstat"))
    wait_for(lambda: len(hub.queue.calls("qstat")) >= asked + 2)
    assert hub.server(user)["ready"]
    assert number in hub.queue.jobs()


@pytest.mark.parametrize("forget", ["", "yes"])
def test_server_whose_job_ends_is_gone(hub: Hub, forget: str) -> None:
    """With and without `keep_completed`: state C, or an unknown job."""
    user = f"quita{forget}"
    token = hub.add_user(user)
    hub.start_server(user, token)
    hub.wait_ready(user)
    hub.queue.knob("forget", forget)
    hub.queue.kill(hub.job_number(user))
    wait_for(lambda: not hub.server(user))
    assert f"/ganymede/user/{user}/" not in hub.routes()


def test_one_query_serves_all_servers(own_hub: Hub) -> None:
    """On a hub of its own: after an empty answer a hub asks for each owner for a minute."""
    hub = own_hub
    hub.start()
    token = hub.add_user("rosa")
    for name in ("one", "two", "three", "four"):
        hub.start_server("rosa", token, name=name)
    for name in ("one", "two", "three", "four"):
        hub.wait_ready("rosa", name)
    begun, asked = time.time(), len(hub.queue.calls("qstat"))
    time.sleep(5)
    queries = hub.queue.calls("qstat")[asked:]
    # The interval of this hub is half a second, whatever the number of servers.
    assert len(queries) <= (time.time() - begun) / 0.5 + 1
    assert all(query["argv"][1:] == ["-x"] for query in queries)


# --- the end ---------------------------------------------------------------------------------


def test_stop(hub: Hub) -> None:
    token = hub.add_user("sara")
    hub.start_server("sara", token)
    hub.wait_ready("sara")
    number = hub.job_number("sara")
    assert hub.api("DELETE", "/users/sara/server", token=token).status_code == 204
    assert hub.queue.job(number)["state"] == "C"
    assert "/ganymede/user/sara/" not in hub.routes()
    # Other tests' servers may still be stopping.
    calls = [call["argv"][1:] for call in hub.queue.calls("sudo") if "sara" in call["argv"]]
    assert ["-n", "-u", "sara", f"{hub.queue.bin}/qdel", f"{number}.encina"] in calls


def test_stop_is_repeated_until_the_queue_confirms(hub: Hub) -> None:
    token = hub.add_user("tamara")
    hub.start_server("tamara", token)
    hub.wait_ready("tamara")
    number = hub.job_number("tamara")
    hub.queue.knob("qdel", "fail 224 qdel: Server could not connect to MOM")
    assert hub.api("DELETE", "/users/tamara/server", token=token).status_code == 202
    assert hub.server("tamara")["pending"] == "stop"
    assert hub.database("select state from spawners where state like ?", f"%{number}.encina%"), (
        "the job is not forgotten"
    )
    hub.queue.reset()
    wait_for(lambda: not hub.server("tamara"))
    assert hub.queue.job(number)["state"] == "C"


def test_parallel_starts_have_a_job_each(hub: Hub) -> None:
    tokens = {f"user{number}": hub.add_user(f"user{number}") for number in range(5)}
    threads = [threading.Thread(target=hub.start_server, args=pair) for pair in tokens.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for user in tokens:
        hub.wait_ready(user)
    assert len({hub.job_number(user) for user in tokens}) == len(tokens)
