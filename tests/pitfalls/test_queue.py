# SPDX-License-Identifier: BSD-3-Clause
"""R1, R4-R6, R10, R11, T7, T9: a queue that is silent, odd or hangs loses nobody's notebook."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.pitfalls.bed import Bed, Researcher, prepared, reached, stays

UNREACHABLE = "fail 111 qstat: cannot connect to server encina (errno=111) Connection refused"
SILENCE = [UNREACHABLE, "print", "print <Data><Job><Job_Id>1.enc", "fail 1 Segmentation fault"]


def queries(bed: Bed) -> int:
    return len(bed.queue.calls("qstat"))


def met(bed: Bed) -> None:
    """Wait until the hub has asked the queue: a fault that it has not met proves nothing."""
    before = queries(bed)
    prepared("the hub asks the queue", lambda: queries(bed) > before, 15)


# --- R1: unknown is not gone ---------------------------------------------------------------


@pytest.mark.row("R1")
@pytest.mark.parametrize("fault", SILENCE)
def test_a_running_server_outlives_bad_answers(bed: Bed, fault: str) -> None:
    ana = bed.researcher()
    number = ana.run()
    bed.queue.knob("qstat", fault)
    met(bed)
    stays("the server is there", ana.ready, 3)
    assert f"/ganymede/user/{ana.name}/" in bed.routes()
    bed.queue.reset()
    stays("nor is it lost afterwards", ana.ready, 2)
    assert ana.jobs() == [number]


# --- R4: the same for a start --------------------------------------------------------------


@pytest.mark.row("R4")
@pytest.mark.parametrize("fault", SILENCE)
def test_a_start_outlives_bad_answers(bed: Bed, fault: str) -> None:
    ana = bed.researcher()
    number = ana.queue_one()
    bed.queue.knob("qstat", fault)
    met(bed)
    stays("the start goes on", lambda: ana.model().get("pending") == "spawn", 2)
    bed.queue.reset()
    bed.queue.start(number)
    reached("its server is ready", ana.ready, 15)
    assert ana.jobs() == [number], "and there is no second job"


@pytest.mark.row("R4")
def test_the_waiting_page_says_that_the_queue_is_silent(bed: Bed) -> None:
    ana = bed.researcher()
    ana.queue_one()
    bed.queue.knob("qstat", UNREACHABLE)
    met(bed)
    messages = [event["message"] for event in ana.events(until="does not answer", seconds=5)]
    assert "queue does not answer" in " ".join(messages)


# --- R5, A2: a stop means that the job is over -----------------------------------------------


@pytest.mark.row("R5")
@pytest.mark.parametrize(
    "fault", ["fail 111 qdel: cannot connect to server encina", "fail 15 qdel: Invalid credential"]
)
def test_a_stop_is_not_over_before_the_job_is(bed: Bed, fault: str) -> None:
    ana = bed.researcher()
    number = ana.run()
    bed.queue.knob("qdel", fault)
    ana.stop()
    stays("the server of a job that runs is shown", lambda: ana.model() or not ana.jobs(), 3)
    assert ana.model()["pending"] == "stop", "and as stopping"
    bed.queue.reset()
    reached("the stop is repeated", lambda: number not in ana.jobs(), 20)
    reached("then it is over", lambda: not ana.model())


@pytest.mark.row("R5")
def test_a_stop_outlives_the_hub(own_bed: Bed) -> None:
    own_bed.start()
    ana = own_bed.researcher()
    ana.run()
    own_bed.queue.knob("qdel", "fail 111 qdel: cannot connect to server encina")
    ana.stop()
    own_bed.kill()
    own_bed.queue.reset()
    own_bed.start()
    reached("the job is deleted by the next hub", lambda: not ana.jobs(), 20)


@pytest.mark.row("A2")
def test_a_start_that_is_cancelled_leaves_no_job(bed: Bed) -> None:
    """Also when the queue is being asked, or is being given the job, in that moment."""
    ana = bed.researcher()
    ana.queue_one()
    ana.stop()
    reached("the job is over", lambda: not ana.jobs(), 15)


@pytest.mark.row("A2")
def test_a_start_that_is_cancelled_during_qsub_leaves_no_job(bed: Bed) -> None:
    ana = bed.researcher()
    bed.queue.knob("schedule", "hold")
    bed.queue.knob("qsub", "slow 2")
    ana.start()
    prepared("qsub runs", lambda: len(bed.queue.calls("qsub")))
    ana.stop()
    stays("no job is left, or it is taken away", lambda: True, 3)
    reached("no job is left", lambda: not ana.jobs(), 15)


# --- R6: every state has a meaning ---------------------------------------------------------


@pytest.mark.row("R6")
@pytest.mark.parametrize("state", ["E", "S", "W", "T"])
def test_no_state_but_completed_ends_a_server(bed: Bed, state: str) -> None:
    ana = bed.researcher()
    number = ana.run()
    bed.queue.change(number, state=state)
    met(bed)
    stays("the server is there", ana.ready, 2)


@pytest.mark.row("R6")
@pytest.mark.parametrize("state", ["W", "T", "H"])
def test_no_state_of_waiting_ends_a_start(bed: Bed, state: str) -> None:
    ana = bed.researcher()
    number = ana.queue_one()
    bed.queue.change(number, state=state)
    met(bed)
    stays("the start goes on", lambda: ana.model().get("pending") == "spawn", 2)


# --- R10, T9: commands end -----------------------------------------------------------------


@pytest.mark.row("R10")
def test_a_query_that_hangs_delays_no_stop(bed: Bed) -> None:
    ana = bed.researcher()
    ana.run()
    bed.queue.knob("qstat", "hang")
    met(bed)
    # The answer itself may wait for the queue's word.
    with suppress(requests.Timeout):
        ana.api("DELETE", "/server", seconds=3)
    reached("the job is over", lambda: not ana.jobs(), 12)


@pytest.mark.row("R10")
def test_a_command_that_hangs_is_killed(bed: Bed) -> None:
    ana = bed.researcher()
    ana.run()
    bed.queue.knob("qstat", "hang")
    met(bed)
    first = set(prepared("it hangs", lambda: bed.commands("qstat")))
    reached("it is killed", lambda: not first & set(bed.commands("qstat")), 8)


@pytest.mark.row("R10")
def test_a_submission_that_hangs_ends_the_start(bed: Bed) -> None:
    ana = bed.researcher()
    bed.queue.knob("qsub", "hang")
    ana.start()
    # What may have been submitted is looked for in the queue first.
    assert "queue" in ana.failure(seconds=25)


@pytest.mark.row("T9")
def test_no_command_waits_in_another_s_way(bed: Bed) -> None:
    """A query is lost in a server that hangs; when it answers again, the start goes on."""
    ana = bed.researcher()
    bed.queue.knob("qstat", "hang")
    ana.start()
    (number,) = prepared("a job is submitted", ana.jobs)
    before = queries(bed)
    prepared(
        "a query for it hangs",
        lambda: (
            queries(bed) > before
            or f"{number}.encina" in {call["argv"][-1] for call in bed.queue.calls("qstat")}
        ),
    )
    begun = time.monotonic()
    assert requests.get(f"{bed.url}/health", timeout=5).ok
    assert time.monotonic() - begun < 2
    bed.queue.reset()
    reached("the server is ready", ana.ready, 20)


# --- R11: hosts are read by a parser -------------------------------------------------------


@pytest.mark.row("R11")
def test_an_odd_host_does_not_stop_the_hub(own_bed: Bed) -> None:
    own_bed.start()
    ana = own_bed.researcher()
    number = ana.queue_one()
    own_bed.queue.change(number, state="R", exec_host="a" * 40 + "!/0")
    try:
        met(own_bed)
        for _ in range(20):
            assert _answers(own_bed), "the hub answers nobody"
            time.sleep(0.1)
    finally:
        own_bed.kill(signal.SIGKILL)


def _answers(bed: Bed) -> bool:
    try:
        return requests.get(f"{bed.url}/health", timeout=2).ok
    except requests.RequestException:
        return False


@pytest.mark.row("R11")
@pytest.mark.parametrize("host", ["localhost/0-3", "localhost/0+localhost/1"])
def test_the_usual_forms_of_a_host_are_read(bed: Bed, host: str) -> None:
    ana = bed.researcher()
    number = ana.queue_one()
    bed.queue.start(number)
    bed.queue.change(number, exec_host=host)
    reached("the server is ready", ana.ready, 15)


# --- T7: what the queue prints is data -----------------------------------------------------


def _started_with(bed: Bed, answer: str) -> Researcher:
    ana = bed.researcher()
    bed.queue.knob("qsub", f"print {answer}")
    ana.start()
    return ana


@pytest.mark.row("T7")
@pytest.mark.parametrize("form", ["17.encina; touch {}", "$(touch {})", "17.encina\ntouch {}"])
def test_an_id_is_checked_before_it_is_used(bed: Bed, tmp_path: Path, form: str) -> None:
    marker = tmp_path / "ran"
    ana = _started_with(bed, form.format(marker))
    stays("the answer of qsub is not run", lambda: not marker.exists(), 3)
    assert not ana.ready()


@pytest.mark.row("T7")
@pytest.mark.parametrize("answer", ["tintel", "", "0x11", "17.encina 18.encina"])
def test_what_is_no_id_ends_the_start(bed: Bed, answer: str) -> None:
    """A queue's name or an empty id would be answered with everybody's jobs."""
    bed.researcher().run()
    ana = _started_with(bed, answer)
    ana.failure(seconds=25)
    asked = [call["argv"][1:] for call in bed.queue.calls("qstat")]
    assert ["-x", answer] not in asked


@pytest.mark.row("T7")
def test_one_unreadable_job_hides_no_other(bed: Bed) -> None:
    eva = bed.researcher()
    broken = eva.queue_one()
    bed.queue.change(broken, comment="\x01\x08 & <")
    bed.queue.reset()
    ana = bed.researcher()
    number = ana.run()
    met(bed)
    assert ana.ready()
    bed.queue.kill(number)
    reached("the end of a job is seen beside it", lambda: not ana.model())
