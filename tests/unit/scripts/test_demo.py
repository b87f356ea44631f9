# SPDX-License-Identifier: BSD-3-Clause
"""scripts/demo as a process, with a cluster that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[3] / "scripts" / "lib"
STATUS = """
import sys
import demo
demo.Cluster.status = lambda cluster: {"hosts": {}}
sys.argv = ["demo", "status"]
sys.exit(demo.main())
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_ends_it_quietly(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", STATUS],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(LIBRARY), "PYTHONUNBUFFERED": unbuffered},
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, "")
