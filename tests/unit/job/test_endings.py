# SPDX-License-Identifier: BSD-3-Clause
"""One sentence on why a job ended, from what Torque, the keeper and the log say."""

from __future__ import annotations

from typing import Literal

import pytest
from custom_pbs_spawner import endings, messages
from custom_pbs_spawner.job_log import Ending, JobLog
from custom_pbs_spawner.record import JobRecord

NOW = 100_000.0
HOUR = 3600.0


def keeper(kind: Literal["status", "signal", "outside"], value: int = 0, ran: float = 60) -> Ending:
    return Ending(kind, value, NOW - 1, nothing_left=True, ran=ran)


def why(  # noqa: PLR0913
    status: int | None,
    ending: Ending | None = None,
    text: str = "",
    *,
    walltime: float | None = HOUR,
    ready: float = NOW - 60,
    node_lost: bool = False,
) -> str:
    """The key alone; that each has a sentence is checked on the way."""
    record = JobRecord("17.encina", "tintel", NOW - 70, "", host="node01", ready=ready)
    key, values = endings.reason(
        status=status,
        log=JobLog(text, ending),
        record=record,
        walltime=walltime,
        node_lost=node_lost,
        now=NOW,
    )
    for language in messages.LANGUAGES:
        sentence = messages.text(language, key, **values)
        assert ("node01" if key == "ended_node_lost" else "17.encina") in sentence
        assert all(str(value) in sentence for value in values.values())
    return key


@pytest.mark.parametrize(
    ("status", "ending", "key"),
    [
        # Torque and the keeper agree
        (0, keeper("status", 0), "ended"),
        (7, keeper("status", 7), "ended_status"),
        (137, keeper("signal", 9), "ended_signal"),
        (271, keeper("outside"), "ended_deleted"),
        (265, keeper("outside"), "ended_deleted"),
        (-11, keeper("outside", ran=HOUR), "ended_walltime"),
        # the keeper's lines are missing
        (0, None, "ended"),
        (7, None, "ended_status"),
        (137, None, "ended_signal"),
        (267, None, "ended_signal"),
        (271, None, "ended_deleted"),
        (-11, None, "ended_walltime"),
        (-2, None, "ended_status"),
        # Torque says nothing (keep_completed 0)
        (None, keeper("status", 0), "ended"),
        (None, keeper("status", 7), "ended_status"),
        (None, keeper("signal", 9), "ended_signal"),
        (None, keeper("signal", 15), "ended_deleted"),
        (None, keeper("outside"), "ended_deleted"),
        (None, keeper("outside", ran=HOUR - 2), "ended_walltime"),
        (None, keeper("signal", 15, ran=HOUR + 2), "ended_walltime"),
        (None, keeper("status", 1, ran=HOUR + 2), "ended_status"),
        (None, None, "ended"),
        # Torque's 0 after a restart of the node's daemon is not true
        (0, keeper("status", 7), "ended_status"),
        (0, keeper("signal", 11), "ended_signal"),
        (0, keeper("outside"), "ended_deleted"),
        (0, keeper("outside", ran=HOUR + 30), "ended_walltime"),
    ],
)
def test_reason(status: int | None, ending: Ending | None, key: str) -> None:
    assert why(status, ending) == key


def test_values_are_the_servers_own() -> None:
    def values(status: int | None, ending: Ending | None) -> dict[str, object]:
        return endings.reason(
            status=status, log=JobLog("", ending), record=JobRecord("1.e", "", 0, ""),
            walltime=None, node_lost=False, now=NOW,
        )[1]  # fmt: skip

    assert values(0, keeper("status", 7)) == {"job": "1.e", "status": 7}
    assert values(139, None) == {"job": "1.e", "signal": 11}
    assert values(267, None) == {"job": "1.e", "signal": 11}
    assert values(1, None) == {"job": "1.e", "status": 1}


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("There is no notebook environment on node01: /software/x", "ended_no_environment"),
        ("OSError: [Errno 28] No space left on device: '/x'", "ended_home_full"),
        ("OSError: [Errno 122] Disk quota exceeded", "ended_home_full"),
        ("MemoryError", "ended_memory"),
        ("bash: fork: Cannot allocate memory", "ended_memory"),
        ('Exception in thread "main" java.lang.OutOfMemoryError: Java heap space', "ended_memory"),
        ("numpy.core._exceptions._ArrayMemoryError", "ended_status"),
    ],
)
def test_words_in_the_log_explain_a_failure(line: str, key: str) -> None:
    text = f"2026-11-23 10:00:00 job 17.encina on node01\n{line}\nmore\n"
    assert why(1, keeper("status", 1), text) == key
    assert why(1, None, text) == key
    assert why(None, keeper("status", 1), text) == key


def test_words_in_the_log_do_not_explain_what_was_no_failure() -> None:
    text = "MemoryError\nNo space left on device\n"
    assert why(0, keeper("status", 0), text) == "ended"
    assert why(271, keeper("outside"), text) == "ended_deleted"
    assert why(-11, keeper("outside", ran=HOUR), text) == "ended_walltime"


def test_time_used_up_without_any_witness() -> None:
    assert why(None, ready=NOW - HOUR - 1) == "ended_walltime"
    assert why(None, ready=0.0) == "ended"
    assert why(None, ready=NOW - HOUR - 1, walltime=None) == "ended"


def test_lost_node_comes_first() -> None:
    assert why(None, node_lost=True) == "ended_node_lost"
