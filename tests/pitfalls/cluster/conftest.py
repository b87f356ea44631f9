# SPDX-License-Identifier: BSD-3-Clause
"""A rehearsal cluster; with --stock, the released classes in it for as long as the tests run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pitfalls.cluster.rehearsal import Rehearsal, Resident

SOURCE = Path(__file__).parents[3] / "molecule" / "rehearsal" / "stock"
PLACES = {
    "jupyterhub_config.py": "/etc/jupyterhub/stock/jupyterhub_config.py",
    "sudoers": "/etc/sudoers.d/zz-stock",
    "hub.conf": "/etc/systemd/system/jupyterhub-hub.service.d/stock.conf",
    "proxy.conf": "/etc/systemd/system/jupyterhub-proxy.service.d/stock.conf",
}


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, stock: bool) -> Iterator[Rehearsal]:
    """The cluster under test, with nobody's server in it."""
    rehearsal = Rehearsal(request.config.getoption("--cluster"))
    rehearsal.clear()
    try:
        if stock:
            for name, place in PLACES.items():
                rehearsal.put(place, (SOURCE / name).read_text())
            rehearsal.run("ganymede", "visudo", "-c", "-q")
            rehearsal.restart("jupyterhub-proxy", "jupyterhub-hub")
        yield rehearsal
        rehearsal.clear()
    finally:
        if stock:
            leftovers = [*PLACES.values(), "/var/lib/jupyterhub/stock.sqlite"]
            rehearsal.run("ganymede", "rm", "-f", *leftovers)
            rehearsal.restart("jupyterhub-proxy", "jupyterhub-hub")


@pytest.fixture
def ana(cluster: Rehearsal) -> Iterator[Resident]:
    """A researcher who has nothing in the cluster, before and after the test."""
    cluster.clear()
    yield Resident(cluster, "meteo1")
    cluster.clear()


@pytest.fixture
def eva(cluster: Rehearsal) -> Resident:
    """Her colleague."""
    return Resident(cluster, "meteo2")
