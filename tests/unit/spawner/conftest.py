# SPDX-License-Identifier: BSD-3-Clause
"""A small queue, and a real hub in front of it where one is asked for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.spawner.hub_process import Hub
from tests.unit.spawner.small_torque import SmallTorque


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SmallTorque]:
    torque = SmallTorque(tmp_path / "torque")
    yield torque
    torque.end_all()


@pytest.fixture
def own_hub(tmp_path: Path, queue: SmallTorque) -> Iterator[Hub]:
    """A hub of this test alone, which configures and starts it."""
    root = tmp_path / "hub"
    root.mkdir()
    hub = Hub(root, queue)
    yield hub
    hub.kill(signal.SIGTERM)


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    hub = Hub(root, SmallTorque(root / "torque"))
    hub.start()
    yield hub
    hub.kill(signal.SIGTERM)
    hub.queue.end_all()


@pytest.fixture
def hub(shared_hub: Hub) -> Hub:
    """A running hub that several tests use, each with users of its own."""
    shared_hub.queue.reset()
    return shared_hub
