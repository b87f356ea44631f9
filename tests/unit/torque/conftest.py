# SPDX-License-Identifier: BSD-3-Clause
"""Systems for the tests: one for each module, with four cores on node01 and two on node02."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import System, running_system

NODES = {"node01": "np=4 mem=64gb", "node02": "np=2 mem=32gb"}


def _root() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("the mock Torque starts jobs as their owners: run as root")
    # A short path: the address of a unix socket has at most 107 characters.
    root = Path(tempfile.mkdtemp(prefix="mt-"))
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Shared by the tests of a module, which leave no job running."""
    for root in _root():
        with running_system(root, NODES) as running:
            yield running


@pytest.fixture
def own_system() -> Iterator[System]:
    """For a test that stops daemons or changes settings."""
    for root in _root():
        with running_system(root, NODES) as running:
            yield running
