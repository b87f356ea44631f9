# SPDX-License-Identifier: BSD-3-Clause
"""A notebook server as a job of the researcher: submitted, watched and deleted."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

from batchspawner import TorqueSpawner
from jinja2 import TemplateError
from jupyterhub.spawner import SpawnException
from traitlets import Float, Unicode

from custom_pbs_spawner import api, messages
from custom_pbs_spawner.queue_view import LONG_AGO, QueueView, Sight
from custom_pbs_spawner.record import MAX_PORT, MIN_PORT, JobRecord, token_digest
from custom_pbs_spawner.scheduler import (
    AlreadyEndingError,
    Job,
    JobState,
    NotPermittedError,
    RefusedError,
    Scheduler,
    SchedulerError,
    UnknownJobError,
    UnreachableError,
)
from custom_pbs_spawner.script import ScriptError, render
from custom_pbs_spawner.torque import Torque

api.install()

PENDING_INTERVAL = 1.0
"""Seconds between two looks at the queue while a job is pending or stopping."""

PORT_CHECK_PAUSE = 0.1
PORT_CHECK_TIMEOUT = 2.0
MAX_STOP_PAUSE = 60.0

EXIT_DELETED = frozenset({271, 265})
"""256 + SIGTERM or SIGKILL: what Torque reports after `qdel`."""
EXIT_WALLTIME = -11


class Phase(Enum):
    """Where a server is in its life, as this hub drives it.

    IDLE → SUBMITTING → PENDING → RUNNING → STOPPING → IDLE. Whether a pending job is queued
    or has started is the queue's to say, and not kept here.
    """

    IDLE = "idle"
    SUBMITTING = "submitting"
    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"


class StartError(SpawnException):
    """The server did not start; the text is for the researcher."""

    def __init__(self, text: str, *, reason: str, status: int = 500) -> None:
        super().__init__(text, reason=reason, status_code=status)
        # The pages show these two; without them they would show the class name.
        self.jupyterhub_message = text
        self.jupyterhub_html_message = escape(text)


class CustomPBSSpawner(TorqueSpawner):
    """Runs each notebook server as a Torque job that belongs to its user.

    The profile's values arrive in batchspawner's own traits (`req_queue`, `req_nprocs`,
    `req_memory`, `req_runtime`); commands, states, the script and the record are ours.
    """

    torque_bin = Unicode("/usr/local/torque/bin", help="Directory of qsub, qstat and qdel.").tag(
        config=True
    )
    sudo_path = Unicode("/usr/bin/sudo", help="The sudo that runs qsub and qdel.").tag(config=True)
    batch_script_template = Unicode(help="Path of the batch script's Jinja template.").tag(
        config=True
    )
    notebook_environment = Unicode(
        help="Prefix of the environment that runs JupyterLab on the nodes."
    ).tag(config=True)
    jupyter_path = Unicode(help="JUPYTER_PATH of the server: where the kernels are.").tag(
        config=True
    )
    jupyter_config_path = Unicode(
        help="JUPYTER_CONFIG_PATH of the server: settings for everybody."
    ).tag(config=True)
    home_directory = Unicode("/home/{username}", help="Home of a user as the nodes see it.").tag(
        config=True
    )
    log_directory = Unicode(
        ".ganymede/logs", help="Where the jobs' logs are kept, below the home."
    ).tag(config=True)
    command_timeout = Float(
        30.0, help="Seconds after which a command of the queue is given up."
    ).tag(config=True)
    query_interval = Float(
        10.0, help="Seconds for which an answer of the queue serves all running servers."
    ).tag(config=True)
    stop_timeout = Float(
        86400.0,
        help="Seconds after which the hub no longer tries to delete a job that does not end.",
    ).tag(config=True)

    profile_key = Unicode(help="Key of the profile the job is made of, for the record.")

    language = "en"
    persist: Callable[[], None] | None = None
    """Set by a wrapper, whose state contains this one's."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.phase = Phase.IDLE
        self.record: JobRecord | None = None
        self._digest = ""
        self._submission: asyncio.Task[None] | None = None
        self._submitted = LONG_AGO
        self._reported = asyncio.Event()
        self._reported_port = 0

    # --- the queue -----------------------------------------------------------------------

    def make_scheduler(self) -> Scheduler:
        """The batch system; another one is another class behind the same interface."""
        return Torque(
            bin_directory=self.torque_bin, sudo=self.sudo_path, timeout=self.command_timeout
        )

    @property
    def queue_view(self) -> QueueView:
        """The one view that all spawners of this hub share."""
        settings = self.user.settings
        if "custom_pbs_queue_view" not in settings:
            settings["custom_pbs_queue_view"] = QueueView(self.make_scheduler())
        view: QueueView = settings["custom_pbs_queue_view"]
        return view

    async def _look(self, max_age: float, since: float = LONG_AGO) -> Sight:
        assert self.record is not None
        sight = await self.queue_view.look(
            self.record.job_id, max_age=max_age, since=since, submitted=self._submitted
        )
        if sight.job is not None:
            # Seen once, it is no longer too new to be in the queue.
            self._submitted = LONG_AGO
        return sight

    # --- state ---------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        return self.record.to_state() if self.record else {}

    def load_state(self, state: dict[str, Any]) -> None:
        self.record = JobRecord.from_state(state)
        if self.record is not None:
            self._digest = self.record.digest
            self.phase = Phase.RUNNING if self.record.port else Phase.PENDING

    def clear_state(self) -> None:
        super().clear_state()
        self.phase = Phase.IDLE
        self.record = None
        self._digest = ""
        self._submission = None
        self._submitted = LONG_AGO
        self._reported.clear()
        self._reported_port = 0

    def _store(self, record: JobRecord) -> None:
        """Write the record to the hub's database at once."""
        self.record = record
        if self.persist is not None:
            self.persist()
        else:
            self.orm_spawner.state = self.get_state()
            self.user.db.commit()

    # --- start ---------------------------------------------------------------------------

    async def start(self) -> tuple[str, int]:
        """Submit the job and wait until its server listens. Raises StartError."""
        self.ip, self.port = "0.0.0.0", 0  # noqa: S104 - the node is not known yet
        self.phase = Phase.SUBMITTING
        self._digest = token_digest(self.api_token)
        async with self._start_limit():
            script = await self._script()
            # When the start is cancelled, qsub goes on to its end: only then is the id known.
            self._submission = asyncio.ensure_future(self._submit(script))
            await asyncio.shield(self._submission)
            return await self._until_ready()

    @asynccontextmanager
    async def _start_limit(self) -> AsyncIterator[None]:
        """End a start shortly before the hub would, which has no words for the researcher."""
        limit = self.start_timeout - min(2.0, self.start_timeout / 10)
        try:
            async with asyncio.timeout(limit):
                yield
        except TimeoutError as error:
            waited = messages.duration(self.language, self.start_timeout)
            raise self._start_error(
                "too_long", reason="timeout", status=504, waited=waited
            ) from error

    async def _script(self) -> str:
        try:
            return await asyncio.to_thread(
                render, Path(self.batch_script_template), self.script_values(), self.get_env()
            )
        except (OSError, TemplateError, ScriptError) as error:
            self.phase = Phase.IDLE
            self.log.exception("The batch script cannot be rendered.")
            raise self._start_error("no_script", reason="script") from error

    def script_values(self) -> dict[str, object]:
        """The names a batch script template may use, beside `exports`."""
        return {
            "job_name": "jupyterhub-singleuser",
            "username": self.user.name,
            "queue": self.req_queue,
            "cores": self.req_nprocs,
            "memory": self.req_memory,
            "walltime": self.req_runtime,
            "home": str(self._home()),
            "log_directory": str(self._home() / self.log_directory),
            "notebook_environment": self.notebook_environment,
            "jupyter_path": self.jupyter_path,
            "jupyter_config_path": self.jupyter_config_path,
            "arguments": self.get_args(),
        }

    def _home(self) -> PurePosixPath:
        return PurePosixPath(self.home_directory.format(username=self.user.name))

    def log_path(self, job_id: str) -> str:
        """The log that the batch script of a job writes."""
        return str(self._home() / self.log_directory / f"{job_id}.log")

    async def _submit(self, script: str) -> None:
        try:
            job_id = await self.queue_view.scheduler.submit(self.user.name, script)
        except SchedulerError as error:
            self.phase = Phase.IDLE
            self.log.warning("No job was submitted for %s: %s", self._log_name, error)
            raise self._submit_error(error) from error
        # Nothing is awaited between the answer of qsub and the database.
        self._submitted = asyncio.get_running_loop().time()
        self.phase = Phase.PENDING
        self._store(JobRecord(job_id, self.profile_key, time.time(), self._digest))
        self.log.info("Submitted job %s for %s.", job_id, self._log_name)

    async def _until_ready(self) -> tuple[str, int]:
        """Wait for the node, the port and the server behind it, watching the queue."""
        assert self.record is not None
        loop = asyncio.get_running_loop()
        since = LONG_AGO
        while True:
            sight = await self._look(PENDING_INTERVAL, since)
            if sight.over:
                raise self._death(sight.job)
            if self._reported.is_set() and sight.known and sight.job and sight.job.host:
                address = sight.job.host, self._reported_port
                if await _listens(*address):
                    return self._ready(*address)
                await asyncio.sleep(PORT_CHECK_PAUSE)
            elif not self._reported.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._reported.wait(), PENDING_INTERVAL)
                    since = loop.time()
            else:
                await asyncio.sleep(PENDING_INTERVAL)

    def _ready(self, host: str, port: int) -> tuple[str, int]:
        assert self.record is not None
        self.phase = Phase.RUNNING
        self._store(replace(self.record, host=host, port=port, ready=time.time()))
        self.log.info(
            "Job %s of %s listens on %s:%d.", self.record.job_id, self.user.name, host, port
        )
        return host, port

    async def resume(self) -> tuple[str, int] | None:
        """Go on with a job that another hub process submitted; None when it does not start."""
        try:
            async with self._start_limit():
                return await self._until_ready()
        except StartError as error:
            self.log.warning("The pending job of %s was lost: %s", self._log_name, error)
            return None

    # --- the port ------------------------------------------------------------------------

    def owns_token(self, token: str) -> bool:
        """Whether this is the token that was given to this very server."""
        return bool(self._digest) and hmac.compare_digest(self._digest, token_digest(token))

    def report_port(self, port: int) -> bool:
        """Take the port of the starting server, once. False when it is not wanted (any more)."""
        if self.phase not in (Phase.SUBMITTING, Phase.PENDING) or self._reported.is_set():
            return False
        if not MIN_PORT <= port <= MAX_PORT:
            return False
        self._reported_port = port
        self._reported.set()
        return True

    # --- poll and stop -------------------------------------------------------------------

    async def poll(self) -> int | None:
        """None while the server runs, or may run; an exit status on the scheduler's word."""
        if self.phase is Phase.SUBMITTING:
            return None
        if self.record is None:
            return 0
        sight = await self._look(self.query_interval)
        if not sight.over:
            return None
        status = sight.job.exit_status if sight.job else None
        return 0 if status is None else status

    async def stop(self, now: bool = False) -> None:
        """Delete the job and wait until the queue confirms its end.

        A `qdel` that fails is repeated with growing pauses, for `stop_timeout` seconds at most.
        """
        if self._submission is not None:
            with suppress(StartError):
                await asyncio.shield(self._submission)
        if self.record is None:
            return
        self.phase = Phase.STOPPING
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.stop_timeout
        pause = PENDING_INTERVAL
        while not await self._delete() and not now and not await self._ended(pause):
            if loop.time() > deadline:
                self.log.error(
                    "Job %s of %s does not end and is given up; delete it by hand.",
                    self.record.job_id,
                    self.user.name,
                )
                return
            pause = min(2 * pause, MAX_STOP_PAUSE)

    async def _delete(self) -> bool:
        """Ask for the end of the job; True when the scheduler says that there is no such job."""
        assert self.record is not None
        try:
            await self.queue_view.scheduler.delete(self.user.name, self.record.job_id)
        except UnknownJobError:
            return True
        except AlreadyEndingError:
            return False
        except SchedulerError as error:
            self.log.warning("Job %s could not be deleted yet: %s", self.record.job_id, error)
        return False

    async def _ended(self, within: float) -> bool:
        """Whether the queue confirms the end of the job within some seconds."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            if (await self._look(PENDING_INTERVAL, since)).over:
                return True
            if loop.time() - since >= within:
                return False
            await asyncio.sleep(min(PENDING_INTERVAL, within))

    # --- what the researcher reads -------------------------------------------------------

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        """Events of the pending page: a message whenever it changes."""
        shown = ""
        while True:
            percent, message = self._progress_message()
            if message != shown and self.phase is not Phase.IDLE:
                shown = message
                yield {"progress": percent, "message": message}
            await asyncio.sleep(PENDING_INTERVAL)

    def _progress_message(self) -> tuple[int, str]:
        """How far the start is, in percent, and what to say about it."""
        if self.record is None:
            return 10, messages.text(self.language, "submitting")
        text = partial(messages.text, self.language, job=self.record.job_id)
        job = self.queue_view.last_seen(self.record.job_id)
        if self.phase is Phase.STOPPING:
            progress = 90, text("removing")
        elif self.phase is Phase.RUNNING:
            progress = 90, text("listening", host=self.record.host)
        elif self.queue_view.silent_since is not None:
            progress = 20, text("silent")
        elif job is not None and job.host:
            progress = 60, text("starting", host=job.host)
        else:
            progress = 30, self._waiting_message(job)
        return progress

    def _waiting_message(self, job: Job | None) -> str:
        assert self.record is not None
        text = partial(messages.text, self.language, job=self.record.job_id)
        waited = self._waited(time.time() - self.record.submitted)
        if job is not None and job.state is JobState.HELD:
            return text("held", waited=waited)
        sentence = text("queued", queue=self.req_queue, waited=waited)
        if job is not None and job.comment:
            return f"{sentence} {text('remark', comment=job.comment)}"
        return sentence

    def _waited(self, seconds: float) -> str:
        """A waiting time in steps: each new text is one more line of the page's event log."""
        step = next((step for limit, step in ((60, 5), (600, 30)) if seconds < limit), 60)
        if seconds < step:
            return messages.text(self.language, "moment")
        return messages.duration(self.language, seconds // step * step)

    def _start_error(
        self, key: str, *, reason: str, status: int = 500, **values: object
    ) -> StartError:
        return StartError(messages.text(self.language, key, **values), reason=reason, status=status)

    def _submit_error(self, error: SchedulerError) -> StartError:
        if isinstance(error, NotPermittedError):
            return self._start_error("not_permitted", reason="not_permitted")
        if isinstance(error, UnreachableError):
            return self._start_error("unreachable", reason="unreachable", status=503)
        if isinstance(error, RefusedError):
            return self._start_error("refused", reason="refused", status=400, answer=str(error))
        return self._start_error("unreadable", reason="unreadable")

    def _death(self, job: Job | None) -> StartError:
        """Why a job that ended did not become a notebook, and where to read more."""
        assert self.record is not None
        status = job.exit_status if job else None
        key = "ended" if status is None else "ended_status"
        if status in EXIT_DELETED:
            key = "ended_deleted"
        elif status == EXIT_WALLTIME:
            key = "ended_walltime"
        sentence = messages.text(self.language, key, job=self.record.job_id, status=status)
        log = messages.text(self.language, "log", log=self.log_path(self.record.job_id))
        return StartError(f"{sentence} {log}", reason="job_ended")


async def _listens(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), PORT_CHECK_TIMEOUT)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
