# SPDX-License-Identifier: BSD-3-Clause
"""The hub host of the scenario, and researchers at it.

They run against any cluster, from this folder:

    pytest tests --connection docker --hosts ganymede-demo-ganymede
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cluster import Cluster
from testinfra.host import Host

from tests.hub_client import SERVER, Researcher


@pytest.fixture(scope="module")
def cluster(host: Host) -> Cluster:
    """The cluster that the hub host belongs to."""
    return Cluster(host.backend.name.split("-")[1])


@pytest.fixture(scope="module")
def researcher(cluster: Cluster) -> Callable[[str], Researcher]:
    """Make the researcher of a name, with her password, not logged in."""
    url = f"http://127.0.0.1:{cluster.port()}/ganymede"
    return lambda name: Researcher(url, name, cluster.password(name))


@pytest.fixture(scope="module")
def meteo1(researcher: Callable[[str], Researcher]) -> Researcher:
    """meteo1, logged in."""
    account = researcher("meteo1")
    account.log_in().raise_for_status()
    account.use_token()
    return account


@pytest.fixture(scope="module")
def running(meteo1: Researcher) -> Iterator[Researcher]:
    """meteo1 with a server that runs as a job in the queue."""
    answer = meteo1.start(SERVER, {"profile": "tintel"})
    assert answer.status_code in {201, 202}, answer.text
    meteo1.wait_ready(SERVER)
    yield meteo1
    meteo1.stop(SERVER)
