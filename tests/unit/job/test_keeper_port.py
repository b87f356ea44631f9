# SPDX-License-Identifier: BSD-3-Clause
"""The keeper finds a port for the server and tells the hub, whatever the hub does meanwhile."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.unit.job.processes import KeptJob, sleeping, wait_for

HubMaker = Callable[..., AbstractContextManager["FakeHub"]]
Reports = list[tuple[str, str, dict[str, int]]]


class FakeHub(http.server.ThreadingHTTPServer):
    """Answers reports of ports with one status after the other; the last one stays."""

    def __init__(self, port: int, statuses: list[int]) -> None:
        self.statuses = statuses
        self.reports: Reports = []
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeHub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.reports.append((self.path, self.headers["Authorization"], body))
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """The tests look at what was reported."""


@contextmanager
def _hub(port: int, *statuses: int) -> Iterator[FakeHub]:
    with FakeHub(port, list(statuses)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def hub(job: KeptJob, port: int) -> Callable[..., AbstractContextManager[FakeHub]]:
    """A hub with these answers, which the job is told of."""
    job.environment |= {
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{port}/ganymede/hub/api",
        "JUPYTERHUB_API_TOKEN": "the-servers-own",
        "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:0/ganymede/user/ana/",
    }
    return lambda *statuses: _hub(port, *statuses)


SERVER = "echo $JUPYTERHUB_SERVICE_URL; exec sleep {number}"


def reported(job: KeptJob, server: FakeHub, count: int = 1) -> int:
    """The port that the server was given, once the hub has heard so many reports of it."""
    wait_for("reports", lambda: len(server.reports) >= count)
    url = job.wait_text("/user/ana/\n").splitlines()[0]
    port = int(url.removeprefix("http://0.0.0.0:").partition("/")[0])
    assert url == f"http://0.0.0.0:{port}/ganymede/user/ana/"
    report = ("/ganymede/hub/api/batchspawner", "token the-servers-own", {"port": port})
    assert server.reports == [report] * count
    return port


def test_hub_and_server_learn_the_same_port(job: KeptJob, hub: HubMaker) -> None:
    with hub(201) as server:
        job.start(SERVER, "--report-port")
        port = reported(job, server)
    with socket.socket() as listener:
        listener.bind(("", port))
    wait_for("only the server is below the watcher", lambda: len(job.children()) == 1)


def test_hub_that_is_down_or_fails_is_told_later(job: KeptJob, hub: HubMaker) -> None:
    job.start(SERVER, "--report-port")
    wait_for("the server runs without a hub", lambda: sleeping(job.number))
    with hub(503, 500, 201) as server:
        reported(job, server, 3)
    assert "keep_job:" not in job.text()


def test_hub_that_refuses_is_not_asked_again(job: KeptJob, hub: HubMaker) -> None:
    with hub(403, 201) as server:
        job.start(SERVER, "--report-port")
        port = reported(job, server)
        job.wait_text(f"keep_job: the hub refused port {port}: 403 Forbidden\n")
        wait_for("the report is given up", lambda: len(job.children()) == 1)
        assert len(server.reports) == 1


def test_end_does_not_wait_for_the_hub(job: KeptJob, hub: HubMaker) -> None:
    with hub(503):
        job.start("sleep 0.5; exit 4", "--report-port")
        assert job.wait() == 4
    assert "nothing is left" in job.text()


def test_report_ends_with_the_job(job: KeptJob, hub: HubMaker) -> None:
    with hub(503):
        job.start(SERVER, "--report-port")
        wait_for("the server", lambda: sleeping(job.number))
        os.kill(job.keeper, signal.SIGKILL)
        job.wait_text("keep_job: nothing is left")
