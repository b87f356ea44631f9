# SPDX-License-Identifier: BSD-3-Clause
"""R7, R8, T10-T12: the end of a job is seen at once, and its owner is told why."""

from __future__ import annotations

import re
import time

import pytest

from tests.pitfalls.bed import Bed, Researcher, prepared, reached, stays


def page_of(ana: Researcher, server: str = "") -> str:
    """What a browser shows at the address of her server, which is not running."""
    session = ana.bed.login(ana.name)
    path = f"{ana.name}/{server}/" if server else f"{ana.name}/"
    return session.get(f"{ana.bed.url}/user/{path}", timeout=10).text


# --- R7: before the notebook -----------------------------------------------------------------


@pytest.mark.row("R7")
def test_a_job_that_dies_before_its_port_is_seen_at_once(bed: Bed) -> None:
    ana = bed.researcher()
    number = ana.queue_one()
    bed.queue.change(number, state="R")
    # Every class set has seen it running and waits for its port now.
    prepared("the hub asks", lambda: len(bed.queue.calls("qstat")))
    time.sleep(2)
    bed.queue.change(number, state="C", exit_status=3)
    assert "exit status 3" in ana.failure(seconds=6)


@pytest.mark.row("R7")
def test_the_page_shows_the_end_of_the_job_s_own_output(bed: Bed) -> None:
    ana = bed.researcher()
    (ana.home() / "die").write_text("sleep 1.5; echo 'no <luck> today'; exit 3")
    ana.start()
    text = ana.failure(seconds=12)
    assert "no &lt;luck&gt; today" in text
    assert "<luck>" not in text


@pytest.mark.row("R7")
def test_the_output_that_is_shown_is_bounded(bed: Bed) -> None:
    ana = bed.researcher()
    noise = "i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done"
    (ana.home() / "die").write_text(f"sleep 1; {noise}; echo the-last-line; exit 3")
    ana.start()
    text = ana.failure(seconds=15)
    assert "the-last-line" in text
    assert len(text) < 32_000


# --- R8: while it runs -----------------------------------------------------------------------


@pytest.mark.row("R8")
@pytest.mark.parametrize(
    ("status", "words"),
    [(-11, r"used up|time"), (271, r"deleted"), (7, r"exit status 7|status 7")],
    ids=["walltime", "deleted", "status"],
)
def test_the_reason_of_an_end_is_given(bed: Bed, status: int, words: str) -> None:
    ana = bed.researcher()
    number = ana.run()
    before = page_of(bed.researcher())
    bed.queue.change(number, state="C", exit_status=status)
    reached("the end is seen", lambda: not ana.model())
    bed.queue.kill(number)
    after = page_of(ana)
    assert f"{number}.encina" in after, "the page speaks of this job"
    assert f"{number}.encina" not in before
    told = next(line for line in after.splitlines() if f"{number}.encina" in line)
    assert re.search(words, told), told


@pytest.mark.row("R8")
def test_the_reason_is_its_owner_s_to_read(bed: Bed) -> None:
    ana, eva = bed.researcher(), bed.researcher()
    number = ana.run()
    bed.queue.change(number, state="C", exit_status=-11)
    reached("the end is seen", lambda: not ana.model())
    bed.queue.kill(number)
    assert f"{number}.encina" in page_of(ana)
    session = bed.login(eva.name)
    other = session.get(f"{bed.url}/user/{ana.name}/", timeout=10).text
    assert f"{number}.encina" not in other


@pytest.mark.row("T10")
def test_the_end_of_the_time_is_the_queue_s_to_say(bed: Bed) -> None:
    """It kills up to a minute late: until then the server is there, then that is the reason."""
    ana = bed.researcher()
    number = ana.run()
    bed.queue.change(number, start_time=int(time.time()) - 24 * 3600 - 50)
    stays("it has not said so yet", ana.ready, 2)
    bed.queue.change(number, state="C", exit_status=-11)
    reached("the end is seen", lambda: not ana.model())
    bed.queue.kill(number)
    page = page_of(ana)
    assert any(f"{number}.encina" in line and "time" in line for line in page.splitlines())


# --- T11: memory -----------------------------------------------------------------------------


@pytest.mark.row("T11")
@pytest.mark.parametrize(
    "line",
    [
        "MemoryError",
        "OSError: [Errno 12] Cannot allocate memory",
        "java.lang.OutOfMemoryError: Java heap space",
    ],
)
def test_a_limit_of_memory_is_said_as_such(bed: Bed, line: str) -> None:
    """Nothing is killed at that limit: the job ends with a status that says nothing."""
    ana = bed.researcher()
    (ana.home() / "die").write_text(f"sleep 1.5; echo '{line}'; exit 1")
    ana.start()
    assert "memory" in ana.failure(seconds=12).split("<pre")[0].lower()


# --- T12: a node that sends the job back -----------------------------------------------------


@pytest.mark.row("T12")
def test_a_job_that_no_node_keeps_is_given_up(bed: Bed) -> None:
    ana = bed.researcher()
    number = ana.queue_one()

    def deleted() -> bool:
        return any(call["argv"][-1] == f"{number}.encina" for call in bed.queue.calls("qdel"))

    for starts in range(1, 25):
        for state in ("R", "Q"):
            bed.queue.change(number, state=state, start_count=starts)
            time.sleep(0.6)
        if deleted():
            break
    assert deleted(), "the start goes on for ever"
    bed.queue.change(number, state="C", exit_status=271)
    assert re.search("account|node", ana.failure(seconds=10))
