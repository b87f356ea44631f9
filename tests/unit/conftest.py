# SPDX-License-Identifier: BSD-3-Clause
"""Which tests may run beside each other (pytest --dist=loadgroup)."""

from __future__ import annotations

import pytest

# At its end a test of the mock Torque kills whatever its test accounts still run.
ONE_AFTER_ANOTHER = "tests/unit/torque/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of one file share what they start; those of the mock Torque share accounts."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        group = ONE_AFTER_ANOTHER if file.startswith(ONE_AFTER_ANOTHER) else file
        item.add_marker(pytest.mark.xdist_group(group))
