# SPDX-License-Identifier: BSD-3-Clause
"""Both class sets work on the bed: else a failure of theirs would say nothing about a row."""

from __future__ import annotations

import pytest

from tests.pitfalls.bed import Bed, reached


@pytest.mark.row("W1")
def test_a_server_starts_serves_and_stops(bed: Bed) -> None:
    ana = bed.researcher()
    number = ana.run({"profile": "himem4"})
    assert "-q himem" in bed.queue.script(number)
    assert f"/ganymede/user/{ana.name}/" in bed.routes()
    assert ana.stop().status_code in (202, 204)
    reached("the job is over", lambda: not ana.jobs())
    reached("the server is gone", lambda: not ana.model())


@pytest.mark.row("W1")
def test_a_running_server_outlives_the_hub(own_bed: Bed) -> None:
    own_bed.start()
    ana = own_bed.researcher()
    number = ana.run()
    own_bed.kill()
    own_bed.start()
    reached("the server is found again", ana.ready)
    assert ana.jobs() == [number]
