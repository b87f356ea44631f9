# SPDX-License-Identifier: BSD-3-Clause
"""Systems for the tests, with four cores on node01 and two on node02."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import System, install, running_system

NODES = {"node01": "np=4 mem=64gb", "node02": "np=2 mem=32gb"}


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # A short path: the address of a unix socket has at most 107 characters.
    root = Path(tempfile.mkdtemp(prefix="mt-"))
    try:
        yield root
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    """The installed programs."""
    if os.geteuid() != 0:
        pytest.skip("the mock Torque starts jobs as their owners: run as root")
    with _folder() as root:
        install(root)
        yield root


@pytest.fixture(scope="module")
def shared_system(installed: Path) -> Iterator[System]:
    """One system for the tests of a module."""
    with _folder() as root, running_system(root, installed, NODES) as running:
        yield running


@pytest.fixture
def system(shared_system: System) -> Iterator[System]:
    """The module's system, without any job before and after the test."""
    yield shared_system
    shared_system.clear()


@pytest.fixture
def own_system(installed: Path) -> Iterator[System]:
    """For a test that stops daemons or changes settings."""
    with _folder() as root, running_system(root, installed, NODES) as running:
        yield running
