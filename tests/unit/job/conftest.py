# SPDX-License-Identifier: BSD-3-Clause
"""Jobs: alone with their keeper, or in a real session of the mock Torque."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.job.processes import KeptJob
from tests.unit.torque.conftest import _folder, installed, own_system, shared_system, system

__all__ = ["installed", "own_system", "shared_system", "system"]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[KeptJob]:
    """A job of this user that is not in any queue."""
    kept = KeptJob(tmp_path)
    yield kept
    kept.kill_everything()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account of this machine can reach."""
    with _folder() as root:
        root.chmod(0o755)
        yield root
