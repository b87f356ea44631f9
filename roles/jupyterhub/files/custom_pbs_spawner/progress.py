# SPDX-License-Identifier: BSD-3-Clause
"""What the pages say of a server: how far its start is, and what is wrong with it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from custom_pbs_spawner import messages, metrics
from custom_pbs_spawner.scheduler import Job, JobState

if TYPE_CHECKING:
    from custom_pbs_spawner.spawner import CustomPBSSpawner


class Stages:
    """Measures the stages of a start: queue, start (of the server), connect (to it)."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._stage = "queue"

    def seen(self, *, host: bool, port: bool) -> None:
        """The job has a node; its server has reported a port."""
        if self._stage == "queue" and (host or port):
            self._next("start")
        if self._stage == "start" and port:
            self._next("connect")

    def end(self) -> None:
        """The server listens."""
        self._next("")

    def _next(self, stage: str) -> None:
        now = time.monotonic()
        metrics.START_STAGE.labels(self._stage).observe(now - self._begun)
        self._begun, self._stage = now, stage


def message(spawner: CustomPBSSpawner) -> tuple[int, str]:
    """How far a start is, in percent, and what to say about it."""
    # The phases live beside the spawner, which imports this module.
    phase, record = spawner.phase.value, spawner.record
    if record is None or not record.job_id:
        return 10, messages.text(spawner.language, "searching" if spawner.unknown else "submitting")
    text = partial(messages.text, spawner.language, job=record.job_id)
    job = spawner.queue_view.last_seen(record.job_id)
    if phase == "stopping":
        said = 90, _removing(spawner)
    elif phase == "running":
        said = 90, text("listening", host=record.host)
    elif spawner.unknown:
        said = 20, text("silent")
    elif job is not None and job.host:
        said = 60, text("starting", host=job.host)
    else:
        said = 30, _waiting(spawner, job)
    return said


def notice(spawner: CustomPBSSpawner) -> str:
    """What is wrong with a server that is not starting, empty when nothing is."""
    phase, record = spawner.phase.value, spawner.record
    if record is None:
        return ""
    text = partial(messages.text, spawner.language, job=record.job_id)
    if phase == "stopping":
        return _removing(spawner)
    if spawner.node_lost:
        return text("node_lost", host=record.host)
    return text("silent_running") if spawner.unknown and phase == "running" else ""


def _removing(spawner: CustomPBSSpawner) -> str:
    assert spawner.record is not None
    text = partial(messages.text, spawner.language, job=spawner.record.job_id)
    if spawner.unknown:
        return text("removing_silent")
    if spawner.stop_failure:
        return text("removing_fails", answer=spawner.stop_failure)
    return text("removing")


def _waiting(spawner: CustomPBSSpawner, job: Job | None) -> str:
    assert spawner.record is not None
    text = partial(messages.text, spawner.language, job=spawner.record.job_id)
    waited = _waited(spawner.language, time.time() - spawner.record.submitted)
    if job is not None and job.state is JobState.HELD:
        return text("held", waited=waited)
    sentence = text("queued", queue=spawner.req_queue, waited=waited)
    if job is not None and job.comment:
        return f"{sentence} {text('remark', comment=job.comment)}"
    return sentence


def _waited(language: str, seconds: float) -> str:
    """A waiting time in steps: each new text is one more line of the page's event log."""
    step = next((step for limit, step in ((60, 5), (600, 30)) if seconds < limit), 60)
    if seconds < step:
        return messages.text(language, "moment")
    return messages.duration(language, seconds // step * step)
