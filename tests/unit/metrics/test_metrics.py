# SPDX-License-Identifier: BSD-3-Clause
"""The hub's own figures: their names, what they say, and who may read them."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator

import pytest
import requests
from custom_pbs_spawner import metrics
from prometheus_client import REGISTRY, generate_latest

from tests.unit.spawner.hub_process import Hub
from tests.unit.spawner.small_torque import SmallTorque

NAMES = {
    "ganymede_queue_queries_total": "counter",
    "ganymede_queue_failures_total": "counter",
    "ganymede_queue_view_age_seconds": "gauge",
    "ganymede_jobs": "gauge",
    "ganymede_start_stage_seconds": "histogram",
    "ganymede_faults_total": "counter",
    "ganymede_orphans_found_total": "counter",
    "ganymede_orphans_adopted_total": "counter",
    "ganymede_orphans_deleted_total": "counter",
    "ganymede_stops_overdue": "gauge",
}
READER = "0123456789abcdef-metrics"
# The hub counts three failures, so that the page is seen to tell what was counted.
_CONFIG = f"""
from custom_pbs_spawner import metrics
metrics.QUEUE_FAILURES.labels("qdel", "unreachable").inc(3)
c.JupyterHub.services.append(dict(name="prometheus", api_token={READER!r}))
c.JupyterHub.load_roles.append(
    dict(name="prometheus", services=["prometheus"], scopes=["read:metrics"])
)
"""


@pytest.fixture(scope="module")
def metrics_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("metrics")
    hub = Hub(root, SmallTorque(root / "torque"))
    hub.extra = _CONFIG
    hub.start()
    yield hub
    hub.kill(signal.SIGTERM)


def read(hub: Hub, token: str = "", path: str = "metrics") -> requests.Response:
    headers = {"Authorization": f"token {token}"} if token else {}
    return requests.get(f"{hub.url}/{path}", headers=headers, timeout=10, allow_redirects=False)


@pytest.mark.parametrize("path", ["metrics", "api/metrics"])
def test_a_token_with_the_scope_reads_all_names(metrics_hub: Hub, path: str) -> None:
    answer = read(metrics_hub, READER, path)
    assert answer.status_code == 200
    types = dict(line.split()[2:] for line in answer.text.splitlines() if line[:6] == "# TYPE")
    assert {name: types.get(name) for name in NAMES} == NAMES
    assert 'ganymede_queue_failures_total{command="qdel",kind="unreachable"} 3.0' in answer.text


@pytest.mark.parametrize("path", ["metrics", "api/metrics"])
def test_nobody_else_reads_them(metrics_hub: Hub, path: str) -> None:
    name = "reader-of-" + path.replace("/", "-")
    researcher = metrics_hub.add_user(name)
    session = metrics_hub.login(name)
    page = session.get(f"{metrics_hub.url}/{path}", timeout=10, allow_redirects=False)
    answers = [read(metrics_hub, "", path), read(metrics_hub, researcher, path), page]
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert not any("ganymede_jobs" in answer.text for answer in answers)


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_jobs_that_are_gone_are_none() -> None:
    metrics.set_jobs({("running", "tintel"): 3, ("queued", "himem"): 1})
    metrics.set_jobs({("running", "tintel"): 2})
    assert sample("ganymede_jobs", state="running", profile="tintel") == 2
    assert sample("ganymede_jobs", state="queued", profile="himem") == 0


def test_the_age_is_asked_for_at_each_look() -> None:
    ages = [1.5]
    metrics.watch_age(lambda: ages[-1])
    assert sample("ganymede_queue_view_age_seconds") == 1.5
    ages.append(math.inf)
    assert sample("ganymede_queue_view_age_seconds") == math.inf


def test_series_are_there_before_their_first_event() -> None:
    for command in metrics.COMMANDS:
        assert sample("ganymede_queue_queries_total", command=command) is not None
    for stage in metrics.STAGES:
        assert sample("ganymede_start_stage_seconds_count", stage=stage) is not None


def test_the_page_can_be_made_at_any_time() -> None:
    assert b"ganymede_stops_overdue" in generate_latest(REGISTRY)
