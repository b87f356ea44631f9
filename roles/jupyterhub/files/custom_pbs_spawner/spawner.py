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
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

from batchspawner import TorqueSpawner
from jinja2 import TemplateError
from jupyterhub import orm
from jupyterhub.spawner import SpawnException
from traitlets import Float, Unicode

from custom_pbs_spawner import (
    api,
    database,
    endings,
    job_log,
    messages,
    metrics,
    notebook,
    progress,
)
from custom_pbs_spawner.queue_view import FIRST_SIGHT, LONG_AGO, QueueView, Sight
from custom_pbs_spawner.record import MAX_PORT, MIN_PORT, JobRecord, token_digest
from custom_pbs_spawner.scheduler import (
    AlreadyEndingError,
    Job,
    NotPermittedError,
    RefusedError,
    Scheduler,
    SchedulerError,
    UnknownJobError,
    UnreachableError,
    hub_id,
    new_tag,
)
from custom_pbs_spawner.script import ScriptError, render
from custom_pbs_spawner.torque import Torque
from custom_pbs_spawner.units import parse_walltime

api.install()

PENDING_INTERVAL = 1.0
"""Seconds between two looks at the queue while a job is pending or stopping."""

PORT_CHECK_PAUSE = 0.1
PORT_CHECK_TIMEOUT = 2.0
_port_checks = asyncio.Semaphore(16)
"""At once: one answer of the queue may tell a hundred starts where their nodes are."""
MAX_STOP_PAUSE = 60.0
MAX_STARTS = 4
"""A job that was started more often than this is sent back by its node for ever."""

LOG_TIMEOUT = 5.0
"""Seconds for reading the log of a job."""
LAST_LINES = 4.0
"""Seconds in which the keeper of a job writes how it ended, where the queue does not tell."""
CLEANING = 10.0
"""Seconds in which the processes of a job that ended should be gone from its node."""


class Phase(Enum):
    """Where a server is in its life.

    GONE → SUBMITTED → QUEUED → STARTING → RUNNING → STOPPING → GONE. Beside each there is
    *unknown* (`CustomPBSSpawner.unknown`): the queue does not answer, and nothing changes.
    """

    GONE = "gone"
    SUBMITTED = "submitted"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


PENDING = frozenset({Phase.SUBMITTED, Phase.QUEUED, Phase.STARTING})


class StartError(SpawnException):
    """A server did not start; the text is for the researcher, `output` part of the job's log."""

    def __init__(self, text: str, *, reason: str, status: int = 500, output: str = "") -> None:
        super().__init__(text, reason=reason, status_code=status)
        # The pages show these two; without them they would show the class name.
        self.jupyterhub_message = text
        self.jupyterhub_html_message = page_text(text, output)


def page_text(text: str, output: str) -> str:
    """A sentence and a part of a job's log, as HTML."""
    log = f'<pre class="job-log text-start">{escape(output)}</pre>' if output else ""
    return f"{escape(text)}{log}"


class CustomPBSSpawner(TorqueSpawner):
    """Runs each notebook server as a Torque job that belongs to its user.

    The profile's values arrive in batchspawner's own traits (`req_queue`, `req_nprocs`,
    `req_memory`, `req_runtime`); commands, states, the script and the record are ours.
    """

    torque_bin = Unicode(
        "/usr/local/torque/bin", help="Directory of qsub, qstat, qdel and pbsnodes."
    ).tag(config=True)
    sudo_path = Unicode("/usr/bin/sudo", help="The sudo that runs commands as a researcher.").tag(
        config=True
    )
    log_reader = Unicode(
        help="The program that prints a job's log as its owner; none if empty."
    ).tag(config=True)
    batch_script_template = Unicode(help="Path of the batch script's Jinja template.").tag(
        config=True
    )
    keeper = Unicode(
        str(Path(__file__).parent.parent / "bin" / "keep_job.py"),
        help="Path, as the nodes see it, of the program that runs a server and cleans up after it.",
    ).tag(config=True)
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
    shutdown_timeout = Float(
        5.0, help="Seconds that a notebook server has to end by itself before its job is deleted."
    ).tag(config=True)
    overdue_after = Float(
        86400.0,
        help="Seconds after which the log and the metrics tell of a job that does not end.",
    ).tag(config=True)

    profile_key = Unicode(help="Key of the profile the job is made of, for the record.")

    language = "en"
    persist: Callable[[], None] | None = None
    """Set by a wrapper, whose state contains this one's."""
    asked_at: float | None = None
    """Set by a wrapper that works before it calls `start`: the event loop's time from which the
    hub counts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.phase = Phase.GONE
        self.unknown = False
        self.record: JobRecord | None = None
        self.ending: StartError | None = None
        """Why the job ended, once the queue has said that it did and nobody had asked for it."""
        self._forget()

    def _forget(self) -> None:
        self._digest = ""
        self._submission: asyncio.Task[None] | None = None
        self._submitted = LONG_AGO
        self._reported = asyncio.Event()
        self._reported_port = 0
        self.stop_failure = ""

    # --- the queue -----------------------------------------------------------------------

    def make_scheduler(self) -> Scheduler:
        """The batch system; another one is another class behind the same interface."""
        return Torque(
            bin_directory=self.torque_bin,
            sudo=self.sudo_path,
            timeout=self.command_timeout,
            watch=metrics.count_command,
        )

    @property
    def queue_view(self) -> QueueView:
        """The one view that all spawners of this hub share."""
        return self.shared_view(self.user.settings)

    def shared_view(self, settings: dict[str, Any]) -> QueueView:
        """The view in the hub's settings, made at the first call."""
        if "custom_pbs_queue_view" not in settings:
            settings["custom_pbs_queue_view"] = QueueView(
                self.make_scheduler(), node_interval=3 * self.query_interval
            )
        view: QueueView = settings["custom_pbs_queue_view"]
        return view

    async def _look(self, max_age: float, since: float = LONG_AGO) -> Sight:
        assert self.record is not None
        sight = await self.queue_view.look(
            self.record.job_id,
            owner=self.user.name,
            max_age=max_age,
            since=since,
            submitted=self._submitted,
        )
        self.unknown = not sight.known
        if sight.job is not None:
            # Seen once, it is no longer too new to be in the queue.
            self._submitted = LONG_AGO
            if self.phase in PENDING:
                self.phase = Phase.STARTING if sight.job.host else Phase.QUEUED
        return sight

    @property
    def node_lost(self) -> bool:
        """Whether the scheduler no longer hears of the node of the job."""
        job = self.queue_view.last_seen(self.record.job_id) if self.record else None
        host = (job.host if job else "") or (self.record.host if self.record else "")
        return bool(host) and not self.queue_view.node_answers(host)

    # --- state ---------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        return self.record.to_state() if self.record else {}

    def load_state(self, state: dict[str, Any]) -> None:
        self.record = JobRecord.from_state(state)
        if self.record is not None:
            self._digest = self.record.digest
            self.phase = Phase.RUNNING if self.record.port else Phase.SUBMITTED
            if self.record.stopping:
                self.phase = Phase.STOPPING
            if self.record.reported:
                self._reported_port = self.record.reported
                self._reported.set()

    def clear_state(self) -> None:
        super().clear_state()
        self.phase = Phase.GONE
        self.unknown = False
        self.record = None
        self._forget()

    def _store(self, record: JobRecord | None) -> None:
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
        self.phase = Phase.SUBMITTED
        self.ending = None
        self._digest = token_digest(self.api_token)
        async with self._start_limit():
            tag = new_tag(hub_id(self.hub.api_url))
            script = await self._script(tag)
            # The tag is written down before qsub runs: a crash in between loses no job.
            self._store(JobRecord("", self.profile_key, time.time(), self._digest, tag))
            # When the start is cancelled, qsub goes on to its end: only then is the id known.
            self._submission = asyncio.ensure_future(self._submit(script))
            await asyncio.shield(self._submission)
            return await self._until_ready()

    @asynccontextmanager
    async def _start_limit(self) -> AsyncIterator[None]:
        """End a start shortly before the hub would, which has no words for the researcher."""
        begun = asyncio.get_running_loop().time() if self.asked_at is None else self.asked_at
        limit = self.start_timeout - min(2.0, self.start_timeout / 10)
        try:
            async with asyncio.timeout_at(begun + limit):
                yield
        except TimeoutError as error:
            metrics.FAULTS.labels("start_timeout").inc()
            waited = messages.duration(self.language, self.start_timeout)
            raise self._start_error(
                "too_long", reason="timeout", status=504, waited=waited
            ) from error

    async def _script(self, tag: str) -> str:
        try:
            return await asyncio.to_thread(
                render, Path(self.batch_script_template), self.script_values(tag), self.get_env()
            )
        except (OSError, TemplateError, ScriptError) as error:
            self.phase = Phase.GONE
            self.log.exception("The batch script cannot be rendered.")
            raise self._start_error("no_script", reason="script") from error

    def script_values(self, tag: str) -> dict[str, object]:
        """The names a batch script template may use, beside `exports`."""
        return {
            "job_name": "jupyterhub-singleuser",
            "tag": tag,
            "keeper": self.keeper,
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
        assert self.record is not None
        begun = time.monotonic()
        await database.on_disk(self.user.db)
        try:
            job_id = await self.queue_view.scheduler.submit(self.user.name, script)
        except (RefusedError, NotPermittedError) as error:
            self._store(None)
            self.phase = Phase.GONE
            self.log.warning("No job was submitted for %s: %s", self._log_name, error)
            raise self._submit_error(error) from error
        except SchedulerError as error:
            self.log.warning("Nobody knows if %s has a job: %s", self._log_name, error)
            found = await self.find_by_tag()
            if found is None:
                # A job that turns up later has no owner then, and the census deletes it.
                self._store(None)
                self.phase = Phase.GONE
                raise self._submit_error(error) from error
            job_id = found.id
        else:
            metrics.START_STAGE.labels("submit").observe(time.monotonic() - begun)
        # Nothing is awaited between the answer of qsub and the database.
        self._submitted = asyncio.get_running_loop().time()
        self._store(replace(self.record, job_id=job_id))
        self.log.info("Submitted job %s for %s.", job_id, self._log_name)

    async def find_by_tag(self) -> Job | None:
        """The job of a submission whose answer was lost; None when there is none for a while.

        Looks until the queue has answered for FIRST_SIGHT seconds, once when it does not answer.
        """
        assert self.record is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FIRST_SIGHT
        since = loop.time()
        self.queue_view.owners.add(self.user.name)
        while True:
            table = await self.queue_view.table(max_age=PENDING_INTERVAL, since=since)
            if table is None:
                return None
            for job in table.values():
                if job.tag == self.record.tag and job.owner == self.user.name:
                    metrics.ORPHANS_FOUND.inc()
                    metrics.ORPHANS_ADOPTED.inc()
                    self.log.warning("Job %s of %s is found again.", job.id, self._log_name)
                    return job
            if loop.time() > deadline:
                return None
            await asyncio.sleep(PENDING_INTERVAL)

    async def _until_ready(self) -> tuple[str, int]:
        """Wait for the node, the port and the server behind it, watching the queue."""
        stages = progress.Stages()
        while True:
            sight = await self._look(PENDING_INTERVAL)
            await self._check_pending(sight)
            host = sight.job.host if sight.known and sight.job else ""
            stages.seen(host=bool(host), port=self._reported.is_set())
            if host and self._reported.is_set():
                if await _listens(host, self._reported_port):
                    stages.end()
                    address = self._ready(host, self._reported_port)
                    await database.on_disk(self.user.db)
                    return address
                await asyncio.sleep(PORT_CHECK_PAUSE)
            elif self._reported.is_set():
                # The queue's table is older than the job's report.
                await asyncio.sleep(PORT_CHECK_PAUSE)
                await self._look(2 * PORT_CHECK_PAUSE)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._reported.wait(), PENDING_INTERVAL)

    async def _check_pending(self, sight: Sight) -> None:
        """Raise StartError when what the queue says leaves no hope."""
        assert self.record is not None
        if sight.over:
            raise await self.explain(sight.job)
        if sight.known and sight.job is not None and sight.job.starts > MAX_STARTS:
            metrics.FAULTS.labels("flipping").inc()
            raise self._start_error("flipping", reason="flipping", job=self.record.job_id)
        if sight.known and self.node_lost:
            metrics.FAULTS.labels("node_lost").inc()
            raise self._start_error(
                "ended_node_lost",
                reason="node_lost",
                job=self.record.job_id,
                host=sight.job.host if sight.job else self.record.host,
            )

    def _ready(self, host: str, port: int) -> tuple[str, int]:
        assert self.record is not None
        self.phase = Phase.RUNNING
        self._store(replace(self.record, host=host, port=port, ready=time.time()))
        self.log.info(
            "Job %s of %s listens on %s:%d.", self.record.job_id, self.user.name, host, port
        )
        return host, port

    async def resume(self) -> tuple[str, int]:
        """Go on with a start that another hub process began. Raises StartError."""
        assert self.record is not None
        async with self._start_limit():
            while not self.record.job_id:
                job = await self.find_by_tag()
                if job is not None:
                    self._store(replace(self.record, job_id=job.id))
                elif self.queue_view.silent_since is None:
                    self._store(None)
                    raise self._start_error("interrupted", reason="interrupted", status=503)
                else:
                    self.unknown = True
                    await asyncio.sleep(PENDING_INTERVAL)
            return await self._until_ready()

    # --- the port ------------------------------------------------------------------------

    def owns_token(self, token: str) -> bool:
        """Whether this is the token that was given to this very server."""
        return bool(self._digest) and hmac.compare_digest(self._digest, token_digest(token))

    def report_port(self, port: int) -> bool:
        """Take the port of the starting server, once. False when it is not wanted (any more).

        The same port again is no news: a hub that was killed may have kept it, and not answered.
        """
        if self.phase not in PENDING or self.record is None or not MIN_PORT <= port <= MAX_PORT:
            return False
        if self._reported.is_set():
            return port == self._reported_port
        # The job tells it once: a hub that is killed now must find it again.
        self._store(replace(self.record, reported=port))
        self._reported_port = port
        self._reported.set()
        return True

    # --- poll ----------------------------------------------------------------------------

    async def poll(self) -> int | None:
        """None while the server runs, or may run; an exit status on the scheduler's word."""
        if self.record is None:
            return None if self.phase is Phase.SUBMITTED else 0
        if not self.record.job_id:
            return None
        sight = await self._look(self.query_interval)
        if not sight.over:
            return None
        if self.phase is Phase.RUNNING:
            await self.explain(sight.job)
        status = sight.job.exit_status if sight.job else None
        return 0 if status is None else status

    async def explain(self, job: Job | None) -> StartError:
        """Why the job ended, with the end of its log; found out once."""
        assert self.record is not None
        if self.ending is None:
            log = await self._read_last_lines(job)
            key, values = endings.reason(
                status=job.exit_status if job else None,
                log=log,
                record=self.record,
                walltime=self._walltime(),
                node_lost=self.node_lost,
                now=time.time(),
            )
            metrics.FAULTS.labels(key).inc()
            path = messages.text(self.language, "log", log=self.log_path(self.record.job_id))
            self.ending = StartError(
                f"{messages.text(self.language, key, **values)} {path}",
                reason=key,
                output=log.text,
            )
        return self.ending

    def _walltime(self) -> float | None:
        try:
            return parse_walltime(self.req_runtime)
        except ValueError:
            # A server of before the restart whose profile is gone.
            return None

    async def _read_last_lines(self, job: Job | None) -> job_log.JobLog:
        """The log of a job that has ended; its keeper writes the last lines a little later."""
        deadline = time.monotonic() + LAST_LINES
        while True:
            log = await self._read_log()
            told = log.ending is not None or (job is not None and job.exit_status is not None)
            if told or not log.text or time.monotonic() > deadline:
                return log
            await asyncio.sleep(PENDING_INTERVAL / 2)

    async def _read_log(self) -> job_log.JobLog:
        assert self.record is not None
        if not self.log_reader:
            return job_log.JobLog("", None)
        return await job_log.read(
            self.user.name,
            self.record.job_id,
            sudo=self.sudo_path,
            reader=self.log_reader,
            timeout=LOG_TIMEOUT,
        )

    # --- stop ----------------------------------------------------------------------------

    async def stop(self, now: bool = False) -> None:
        """End the job and wait until the queue confirms it and its node is clean.

        A `qdel` that fails is repeated with growing pauses. On a node that does not answer
        nothing can be ended: the stop returns, and the census deletes the job later.
        """
        if self._submission is not None:
            with suppress(StartError):
                await asyncio.shield(self._submission)
        if self.record is None or not self.record.job_id:
            return
        listens = self.phase is Phase.RUNNING and not now and not self.node_lost
        self.phase = Phase.STOPPING
        self._store(replace(self.record, stopping=self.record.stopping or time.time()))
        over = listens and await self._shut_down_notebook()
        if over or await self._delete_until_over(patient=not now):
            metrics.overdue.discard(self.record.job_id)
            await self._until_clean()

    async def _shut_down_notebook(self) -> bool:
        """Ask the server to end by itself, for `qdel` gives its kernels no time; whether it did."""
        assert self.record is not None
        scope = f"access:servers!server={self.user.name}/{self.name}"
        token = self.user.new_api_token(note="stop", scopes=[scope], expires_in=60)
        url = f"http://{self.record.host}:{self.record.port}{self.server.base_url}"
        try:
            asked = await notebook.shut_down(url, token, self.shutdown_timeout)
            return asked and await self._ended(self.shutdown_timeout)
        finally:
            self.user.db.delete(orm.APIToken.find(self.user.db, token))
            self.user.db.commit()

    async def _delete_until_over(self, *, patient: bool) -> bool:
        """Delete the job until the queue confirms its end; False when its node is lost."""
        assert self.record is not None
        pause = PENDING_INTERVAL
        while not await self._delete() and patient and not await self._ended(pause):
            if self.node_lost:
                self.log.warning("Job %s is left to its node.", self.record.job_id)
                return False
            overdue = time.time() - self.record.stopping
            if overdue > self.overdue_after:
                metrics.overdue.add(self.record.job_id)
                self.log.error(
                    "Job %s of %s should have ended %.0f s ago, and does not: %s",
                    self.record.job_id,
                    self.user.name,
                    overdue,
                    self.stop_failure or "the queue confirms nothing",
                )
            pause = min(2 * pause, MAX_STOP_PAUSE)
        return True

    async def _delete(self) -> bool:
        """Ask for the end of the job; True when the scheduler says that there is no such job."""
        assert self.record is not None
        try:
            await self.queue_view.scheduler.delete(self.user.name, self.record.job_id)
        except UnknownJobError:
            return True
        except AlreadyEndingError:
            self.stop_failure = ""
        except SchedulerError as error:
            self.stop_failure = str(error)
            metrics.FAULTS.labels("delete").inc()
            self.log.warning("Job %s could not be deleted yet: %s", self.record.job_id, error)
        else:
            self.stop_failure = ""
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

    async def _until_clean(self) -> None:
        """Wait until the job's log says that none of its processes is left on the node."""
        assert self.record is not None
        if not self.log_reader or not (self.record.host or self._reported.is_set()):
            return
        deadline = asyncio.get_running_loop().time() + CLEANING
        while asyncio.get_running_loop().time() < deadline:
            ending = (await self._read_log()).ending
            if ending is not None and ending.nothing_left:
                return
            await asyncio.sleep(PENDING_INTERVAL / 2)
        metrics.FAULTS.labels("not_clean").inc()
        self.log.warning("Job %s has not said that its node is clean.", self.record.job_id)

    # --- what the researcher reads -------------------------------------------------------

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        """Events of the pending page: a message whenever it changes."""
        shown = ""
        while True:
            percent, message = progress.message(self)
            if message != shown and self.phase is not Phase.GONE:
                shown = message
                yield {"progress": percent, "message": message}
            await asyncio.sleep(PENDING_INTERVAL)

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


async def _listens(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    async with _port_checks:
        try:
            connection = asyncio.open_connection(host, port)
            _, writer = await asyncio.wait_for(connection, PORT_CHECK_TIMEOUT)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return True
