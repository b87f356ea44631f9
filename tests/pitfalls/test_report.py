# SPDX-License-Identifier: BSD-3-Clause
"""S1, S2: the report of a job says on which port its server listens, and nothing else."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pitfalls.bed import Bed, Researcher, reached, stays

REFUSED = range(400, 500)


@contextmanager
def foreign_server(address: str = "127.0.0.2") -> Iterator[int]:
    """Something that answers as a notebook server would, on a host that is no node of the job."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-JupyterHub-Version", "6.1.1")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Be silent."""

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def waiting(bed: Bed) -> tuple[Researcher, str]:
    """A researcher whose job the queue calls running, though it has not reported: and its token."""
    ana = bed.researcher()
    number = ana.queue_one()
    bed.queue.change(number, state="R")
    return ana, bed.server_token(number)


# --- S1: what is taken ---------------------------------------------------------------------


@pytest.mark.row("S1")
@pytest.mark.parametrize(
    "body",
    [
        {"port": 80},
        {"port": 65536},
        {"port": -1},
        {"port": True},
        {"port": "8888"},
        {"port": [8888]},
        {"port": 8888, "ip": "127.0.0.1"},
        {"cmd": ["id"]},
        {"child_config": {"exec_prefix": "id;"}},
        {"child_spawner": None},
        {"user_options": {"queue": "urgent"}},
        {},
        [],
        8888,
        "nonsense",
    ],
    ids=str,
)
def test_anything_but_a_port_is_refused(bed: Bed, body: object) -> None:
    ana, token = waiting(bed)
    before = ana.model()["state"]
    assert ana.report(body, token) in REFUSED
    assert ana.model()["state"] == before


@pytest.mark.row("S1")
def test_a_refusal_is_one_line_in_the_log(bed: Bed) -> None:
    ana, token = waiting(bed)
    before = len(bed.log().splitlines())
    ana.report({"cmd": ["id"]}, token)
    fresh = [line for line in bed.log().splitlines()[before:] if "refused" in line.lower()]
    assert len(fresh) == 1
    assert token not in bed.log()


@pytest.mark.row("S1")
def test_a_port_is_taken_once(bed: Bed) -> None:
    ana, token = waiting(bed)
    first = ana.report({"port": 40001}, token)
    assert first in (200, 201)
    assert ana.report({"port": 40002}, token) in REFUSED


@pytest.mark.row("S1")
def test_a_running_server_reports_nothing_more(bed: Bed) -> None:
    ana = bed.researcher()
    token = bed.server_token(ana.run())
    before = bed.targets()
    assert ana.report({"port": 40001}, token) in REFUSED
    assert bed.targets() == before


@pytest.mark.row("S1")
def test_only_the_token_of_that_server_reports(bed: Bed) -> None:
    """Not the researcher's own, not that of her other server, not another person's."""
    ana, token = waiting(bed)
    eva, other = waiting(bed)
    bed.queue.knob("schedule", "hold")
    second = ana.queue_one(server="second")
    assert ana.report({"port": 40001}, ana.token) in REFUSED
    # Each speaks for itself: what the others' tokens say is of no effect on this server.
    assert eva.report({"port": 40001}, other) in (200, 201)
    assert ana.report({"port": 40001}, bed.server_token(second)) in (200, 201)
    assert ana.report({"port": 40001}, token) in (200, 201)
    assert ana.report({"port": 40001}, "0" * 32) in REFUSED


@pytest.mark.row("S1")
def test_no_report_becomes_code_of_the_hub(own_bed: Bed, tmp_path: Path) -> None:
    """Neither at once, nor when the server stops, nor after a restart of the hub."""
    own_bed.start()
    ana = own_bed.researcher()
    token = own_bed.server_token(ana.run())
    marker = tmp_path / "code-ran-as-the-hub"
    code = f"touch {marker};"
    for body in (
        {"exec_prefix": code, "cmd": [code], "batch_query_cmd": code, "batch_cancel_cmd": code},
        {"child_config": {"exec_prefix": code, "batch_query_cmd": code}},
        {"child_state": {"job_id": f"1; {code}"}},
    ):
        ana.report(body, token)
    # What a hub stores it would store again in the course of the day.
    ana.stop()
    ana.start()
    reached("the server starts again", lambda: ana.ready() or marker.exists(), 20)
    assert not marker.exists()
    token = own_bed.server_token(ana.jobs()[-1])
    ana.report({"child_config": {"exec_prefix": code, "batch_query_cmd": code}}, token)
    own_bed.kill(2)
    own_bed.start()
    stays("no code ran as the hub", lambda: not marker.exists(), 4)


# --- S2: where the route leads -------------------------------------------------------------


@pytest.mark.row("S2")
@pytest.mark.parametrize("host", ["ip", "child_config"])
def test_the_host_is_the_scheduler_s_word(bed: Bed, host: str) -> None:
    ana, token = waiting(bed)
    with foreign_server() as port:
        stop = threading.Event()

        def insist() -> None:
            # Once the hub has read the host, another one; again and again, while the server starts.
            stop.wait(2)
            while not stop.wait(0.05):
                for address in ("127.0.0.3", "127.0.0.2"):
                    told = {"ip": address}
                    body = told if host == "ip" else {"child_config": told}
                    ana.report({**body, "port": port}, token)

        thread = threading.Thread(target=insist)
        thread.start()
        try:
            stays(
                "the route does not lead to a host of the job's choice",
                lambda: not [t for t in bed.targets().values() if "127.0.0.2" in t],
                6,
            )
        finally:
            stop.set()
            thread.join()


@pytest.mark.row("S2")
def test_the_route_of_a_running_server_does_not_move(own_bed: Bed) -> None:
    """On a hub of its own: where such a report is taken, the hub serves nobody afterwards."""
    own_bed.start()
    ana = own_bed.researcher()
    token = own_bed.server_token(ana.run())
    before = own_bed.targets()[f"/ganymede/user/{ana.name}/"]
    with foreign_server() as port:
        for body in (
            {"ip": "127.0.0.2", "port": port},
            {"server": {"ip": "127.0.0.2", "port": port}},
            {"_server": {"ip": "127.0.0.2", "port": port}},
        ):
            ana.report(body, token)
        own_bed.api("POST", "/proxy")
        model = ana.model()
    assert own_bed.targets()[f"/ganymede/user/{ana.name}/"] == before
    assert "127.0.0.2" not in json.dumps(model)


@pytest.mark.row("S2")
def test_the_port_must_answer_on_that_host(bed: Bed) -> None:
    """A port at which nothing listens is no server yet; the start goes on waiting for it."""
    ana, token = waiting(bed)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    ana.report({"port": port}, token)
    stays("there is no route yet", lambda: f"/ganymede/user/{ana.name}/" not in bed.routes(), 3)
    state = ana.model()["state"].get("child_state", {})
    assert not state.get("port"), "a port that does not answer is not believed"
    with foreign_server("127.0.0.1"):
        pass
    reached("the start still waits", lambda: ana.model().get("pending") == "spawn", 1)
