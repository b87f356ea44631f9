# SPDX-License-Identifier: BSD-3-Clause
"""What the hub counts beside JupyterHub's own figures; `/metrics` prints both.

The objects live in prometheus_client's default registry, which JupyterHub shows to whoever has
the scope `read:metrics`. Names follow https://prometheus.io/docs/practices/naming/: seconds,
`_total` for what only grows. Labels take few values: commands, kinds, profiles; never a name of
a user or the number of a job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from prometheus_client import Counter, Gauge, Histogram

from custom_pbs_spawner.scheduler import SchedulerError

COMMANDS = ("qstat", "qsub", "qdel", "pbsnodes")
STAGES = ("submit", "queue", "start", "connect")

QUEUE_QUERIES = Counter(
    "ganymede_queue_queries_total", "Commands of the queue that were run.", ["command"]
)
QUEUE_FAILURES = Counter(
    "ganymede_queue_failures_total",
    "Commands of the queue that failed, by the kind of failure.",
    ["command", "kind"],
)
QUEUE_VIEW_AGE = Gauge(
    "ganymede_queue_view_age_seconds",
    "Age of the table of jobs that the hub works with; NaN before the first.",
)
JOBS = Gauge("ganymede_jobs", "Jobs of this hub, by state and profile.", ["state", "profile"])
START_STAGE = Histogram(
    "ganymede_start_stage_seconds",
    "Time that the stages of a start took: submit (qsub), queue (until the job runs), start "
    "(until its server reports its port), connect (until the port answers).",
    ["stage"],
    # From a click without a queue to a night in it.
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200),
)
FAULTS = Counter("ganymede_faults_total", "Faults that the hub met, by kind.", ["kind"])
ORPHANS_FOUND = Counter(
    "ganymede_orphans_found_total", "Jobs of this hub in the queue that no server claimed."
)
ORPHANS_ADOPTED = Counter(
    "ganymede_orphans_adopted_total", "Jobs without a server that were given back to theirs."
)
ORPHANS_DELETED = Counter(
    "ganymede_orphans_deleted_total", "Jobs without a server that were deleted."
)
STOPS_OVERDUE = Gauge("ganymede_stops_overdue", "Stops that have failed for more than a day.")
overdue: set[str] = set()
"""The ids of the jobs that should have ended long ago and did not."""
STOPS_OVERDUE.set_function(lambda: len(overdue))

# A series that is there before its first event can be told from one that is missing.
for _command in COMMANDS:
    QUEUE_QUERIES.labels(_command)
for _stage in STAGES:
    START_STAGE.labels(_stage)
QUEUE_VIEW_AGE.set(math.nan)


def count_command(command: str, error: SchedulerError | None) -> None:
    """Count a command of the queue that was run, and how it failed if it did."""
    QUEUE_QUERIES.labels(command).inc()
    if error is not None:
        kind = type(error).__name__.removesuffix("Error").lower()
        QUEUE_FAILURES.labels(command, kind).inc()


def watch_age(age: Callable[[], float]) -> None:
    """Let each look at the metrics ask `age` for the age of the queue's table, in seconds.

    It is called in the event loop; it must neither wait nor raise.
    """
    QUEUE_VIEW_AGE.set_function(age)


def set_jobs(counts: Mapping[tuple[str, str], int]) -> None:
    """Show how many jobs there are for each (state, profile); what is not named is 0."""
    known = {(labels["state"], labels["profile"]) for labels in _labels_of(JOBS)}
    for state, profile in known | set(counts):
        JOBS.labels(state, profile).set(counts.get((state, profile), 0))


def _labels_of(gauge: Gauge) -> list[dict[str, str]]:
    return [sample.labels for metric in gauge.collect() for sample in metric.samples]
