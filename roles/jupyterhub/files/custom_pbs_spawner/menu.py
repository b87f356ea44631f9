# SPDX-License-Identifier: BSD-3-Clause
"""The menu of profiles: what a researcher may choose, and nothing beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner
from sudospawner import SudoSpawner
from traitlets import Any as AnyTrait
from traitlets import Bool, Enum, Type, Unicode, default, directional_link
from wrapspawner import ProfilesSpawner

from custom_pbs_spawner import messages, progress, turns
from custom_pbs_spawner.form import menu_html
from custom_pbs_spawner.kernels import Kernel
from custom_pbs_spawner.profiles import LOCAL_PROFILE, Profile
from custom_pbs_spawner.queue_view import QueueView
from custom_pbs_spawner.scheduler import hub_id
from custom_pbs_spawner.spawner import CustomPBSSpawner, Phase, StartError
from custom_pbs_spawner.tables import TableError, load_kernels, load_profiles
from custom_pbs_spawner.turns import Stage

# A child's address is its own business, what the researcher sent ends here, `db` is deprecated.
_NOT_LINKED = {"config", "parent", "log", "db", "ip", "port", "user_options"}
_LINKED = {name for name in Spawner.class_trait_names() if name[0] != "_"} - _NOT_LINKED

CANCEL_PAUSE = 3.0
"""Seconds after which JupyterHub should have stopped a server whose start it cancelled."""

MAX_ENDINGS = 1000
"""How many ends of servers the hub remembers for its pages."""


@lru_cache(maxsize=2)
def _load(path: str, _changed: int) -> dict[str, Profile]:
    return {profile.key: profile for profile in load_profiles(Path(path))}


@lru_cache(maxsize=2)
def _load_kernels(path: str, _changed: int) -> list[Kernel]:
    return load_kernels(Path(path))


class ProfileMenuSpawner(ProfilesSpawner):
    """Shows the table of profiles and starts the spawner that the chosen one asks for.

    wrapspawner delegates start, stop and poll to a child spawner. What is overridden here
    deals with the choice (checked, in `start`), the state (names a job, never a
    configuration) and the making of the child.
    """

    profiles_file = Unicode(help='The table, as JSON: {"profiles": [rows]}.').tag(config=True)
    kernels_file = Unicode(
        "", help='The kernels, as JSON: {"kernels": [rows]}; empty: the menu tells nothing of them.'
    ).tag(config=True)
    local_server = Bool(False, help="Offer a server on the hub machine as well.").tag(config=True)
    local_server_name = Unicode(
        "Small server on the hub machine", help="How the menu shows that server."
    ).tag(config=True)
    default_language = Enum(
        messages.LANGUAGES, "en", help="Language where the browser asks for none of ours."
    ).tag(config=True)

    child_spawner: Spawner | None
    # wrapspawner's own default is a process of the hub's account.
    child_class = Type(CustomPBSSpawner, Spawner)
    # Anything may have been stored once; it must not raise when its owner logs in.
    user_options = AnyTrait()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._links: list[directional_link] = []
        self._child_made = asyncio.Event()
        self._stopping: asyncio.Future[None] | None = None

    # --- JupyterHub's bookkeeping --------------------------------------------------------

    @property
    def _stop_future(self) -> asyncio.Future[None] | None:
        """The stop under way. JupyterHub 6.1.1 sets it for some stops and asks for it at all."""
        if self._stopping is None and self._stop_pending:
            return asyncio.ensure_future(self._until_stopped())
        return self._stopping

    @_stop_future.setter
    def _stop_future(self, future: asyncio.Future[None] | None) -> None:
        self._stopping = future

    async def _until_stopped(self) -> None:
        while self._stop_pending:  # noqa: ASYNC110 - JupyterHub keeps no event for it
            await asyncio.sleep(1)

    @default("user_options")
    def _no_options(self) -> dict[str, str]:
        return {}

    @default("default_url")
    def _jupyterlab(self) -> str:
        return "/lab"

    @default("apply_user_options")
    def _apply_nothing(self) -> Any:
        # start() reads the options; without this JupyterHub would log them as unhandled.
        return lambda _spawner, _options: None

    # --- the table and the choice --------------------------------------------------------

    def table(self) -> Mapping[str, Profile]:
        """The profiles by key, read again when the file changes. Raises TableError."""
        try:
            changed = Path(self.profiles_file).stat().st_mtime_ns
        except OSError as error:
            raise TableError([f"{self.profiles_file} cannot be read: {error}."]) from error
        return _load(self.profiles_file, changed)

    def kernels(self) -> list[Kernel]:
        """The table of kernels, read again when the file changes; none where it cannot be used."""
        if not self.kernels_file:
            return []
        try:
            changed = Path(self.kernels_file).stat().st_mtime_ns
            return _load_kernels(self.kernels_file, changed)
        except (OSError, TableError):
            self.log.exception("The table of kernels cannot be used; the menu tells nothing of it.")
            return []

    def offered(self) -> list[str]:
        """The keys that may be chosen. Raises StartError when the table cannot be used."""
        try:
            keys = list(self.table())
        except TableError as error:
            self.log.exception("The profile table cannot be used.")
            raise self._refusal("no_table", status=503) from error
        return [*keys, LOCAL_PROFILE] if self.local_server else keys

    def check_choice(self, options: object) -> str:
        """The key in `{"profile": key}`; anything else raises StartError (HTTP 400).

        Where there is only one profile it need not be named.
        """
        offered = self.offered()
        names = ", ".join(offered)
        if options == {} and len(offered) == 1:
            return offered[0]
        if options == {}:
            raise self._refusal("no_profile", profiles=names)
        if not isinstance(options, dict) or set(options) != {"profile"}:
            raise self._refusal("only_profile", profiles=names)
        key = options["profile"]
        if not isinstance(key, str):
            raise self._refusal("only_profile", profiles=names)
        if key not in offered:
            raise self._refusal("unknown_profile", profile=repr(key)[:60], profiles=names)
        return key

    def _refusal(self, message: str, *, status: int = 400, **values: str) -> StartError:
        text = messages.text(self.language(), message, **values)
        return StartError(text, reason="profile", status=status)

    def language(self) -> str:
        """The language of the browser that asked, as far as it is known."""
        request = getattr(self.handler, "request", None)
        accepted = request.headers.get("Accept-Language", "") if request else ""
        return messages.choose_language(accepted, self.default_language)

    # --- the form ------------------------------------------------------------------------

    async def get_options_form(self) -> str:
        offered = self.offered()
        last = self.user_options.get("profile") if isinstance(self.user_options, dict) else None
        return menu_html(
            list(self.table().values()),
            kernels=self.kernels(),
            local_name=self.local_server_name if self.local_server else None,
            language=self.language(),
            selected=last if last in offered else offered[0],
        )

    def options_from_form(self, formdata: Mapping[str, list[str]]) -> dict[str, str]:
        """Read the form and the query of a URL; refuses before anything is stored."""
        fields = {name: values for name, values in formdata.items() if name != "_xsrf"}
        options = {name: values[0] for name, values in fields.items() if len(values) == 1}
        return {"profile": self.check_choice(options if len(options) == len(fields) else None)}

    # --- start ---------------------------------------------------------------------------

    def start(self) -> Awaitable[tuple[str, int]]:
        """Check the choice, whichever way it came, and start its spawner.

        Not a coroutine: the hub reads `start_timeout`, which the child may set, right after
        this call.
        """
        try:
            key = self.check_choice(self.user_options)
        except StartError:
            # JupyterHub stored the options before it called; a later start must not find them.
            self.user_options = self.orm_spawner.user_options = {}
            self.user.db.commit()
            raise
        self.child_profile = key
        self.select_profile(key)
        child = self.construct_child()
        child.language = self.language()
        if isinstance(child, CustomPBSSpawner):
            self.check_limit(child.queue_view)
            child.asked_at = asyncio.get_running_loop().time()
            # Counts for the limit from here on, not only when its coroutine first runs.
            child.phase = Phase.SUBMITTED
        self.endings.pop(self._ending_key, None)
        return self._started(child)

    async def _started(self, child: Spawner) -> tuple[str, int]:
        await self.turn(Stage.SUBMIT)
        if isinstance(child, CustomPBSSpawner) and child.queue_view.age == float("inf"):
            # Right after the start of the hub: nobody knows yet what is in the queue.
            await child.queue_view.table(max_age=0)
            self.check_limit(child.queue_view)
        try:
            address: tuple[str, int] = await child.start()
        except asyncio.CancelledError:
            self._cleanup = asyncio.ensure_future(self._clean_up())
            raise
        await self.turn(Stage.READY)
        return address

    async def _clean_up(self) -> None:
        """Stop what a cancelled start has left behind.

        JupyterHub cancels a start that is to be stopped, waits a second, and then stops the
        server. When the start has not ended by then it gives up, and the server would look as
        if it ran, for ever and without a job. A later start has another row of its own.
        """
        row = self.orm_spawner.server
        await asyncio.sleep(CANCEL_PAUSE)
        if row is not None and self.orm_spawner.server is row and not self.pending:
            self.log.warning("The start of %s was cancelled; it is cleaned up.", self._log_name)
            await self.user.stop(self.name)

    # --- turns ---------------------------------------------------------------------------

    @default("server_token_scopes")
    def _scopes_in_turn(self) -> Any:
        # JupyterHub calls this between the first two parts of its own work for a start.
        return lambda _spawner: self.turn(Stage.TOKEN)

    async def run_auth_state_hook(self, auth_state: object) -> None:
        await self.turn(Stage.HOOKS)
        await super().run_auth_state_hook(auth_state)

    async def turn(self, stage: Stage) -> list[str]:
        """Wait for this start's turn. Returns no scopes: those of the role `server` hold."""
        # What is not committed before an await, the end of any request rolls back.
        self.user.db.commit()
        await turns.shared(self.user.settings).take(stage)
        return []

    def check_limit(self, view: QueueView) -> None:
        """Refuse a start beyond the limit of jobs. Raises StartError (HTTP 429).

        What counts is jobs: those of her servers, and those in the queue whose server was lost.
        JupyterHub counts names of servers. On a node that does not answer nothing can be stopped,
        so its jobs do not count.
        """
        named = self.user.settings.get("named_server_limit_per_user", 0)
        if not isinstance(named, int) or named <= 0:
            return
        others = [
            spawner.child_spawner
            for spawner in self.user.spawners.values()
            if spawner is not self and isinstance(spawner.child_spawner, CustomPBSSpawner)
        ]
        active = [child for child in others if child.phase is not Phase.GONE]
        claimed = {child.record.tag for child in active if child.record}
        lost = [
            job
            for job in view.last_table()
            if job.owner == self.user.name
            and job.tag.startswith(f"{hub_id(self.hub.api_url)}-")
            and job.tag not in claimed
            and not job.over
            and view.node_answers(job.host)
        ]
        count = len([child for child in active if not child.node_lost]) + len(lost)
        if count > named:
            raise self._refusal("too_many", status=429, count=str(count), limit=str(named + 1))

    def select_profile(self, profile: str) -> None:
        """Choose the child's class, and its configuration where the table has the profile.

        A running server whose profile is gone needs none. The dictionary is new each time.
        """
        self.child_class = SudoSpawner if profile == LOCAL_PROFILE else CustomPBSSpawner
        self.child_config = {}
        try:
            row = self.table().get(profile)
        except TableError:
            self.log.exception("The profile table cannot be used.")
            return
        if row is not None:
            self.child_config = {
                "profile_key": row.key,
                "req_queue": row.queue,
                "req_nprocs": str(row.cores),
                "req_memory": row.memory_text,
                "req_runtime": row.walltime_text,
                "mem_limit": row.memory,
                "cpu_limit": float(row.cores),
            }

    def construct_child(self) -> Spawner:
        """Make the child spawner.

        wrapspawner 1.0.1 gives it a server without its database row, takes the deprecated
        database session, lets the wrapper's defaults overwrite what is configured for the
        child's class, and never removes its links.
        """
        if self.child_spawner is None:
            child = self.child_class(
                user=self.user,
                orm_spawner=self.orm_spawner,
                hub=self.hub,
                authenticator=self.authenticator,
                oauth_client_id=self.oauth_client_id,
                config=self.config,
                **self.child_config,
            )
            child.persist = self.persist
            common = _LINKED & set(self.trait_names()) - set(self.child_config)
            configured = _configured_for(child)
            for name in sorted(common & configured):
                # The hub reads these (timeouts, intervals, hooks) of the wrapper.
                setattr(self, name, getattr(child, name))
            for name in sorted(common - configured):
                self._links.append(directional_link((self, name), (child, name)))
            if self.child_state:
                child.load_state(self.child_state)
            self.child_spawner = child
            self._child_made.set()
        return self.child_spawner

    async def progress(self) -> AsyncIterator[dict[str, object]]:
        # The page may ask before start() has made the child.
        await self._child_made.wait()
        if self.child_spawner is not None:
            async for event in self.child_spawner.progress():
                yield event

    # --- state ---------------------------------------------------------------------------

    def persist(self) -> None:
        """Write the state to the hub's database at once."""
        self.orm_spawner.state = self.get_state()
        self.user.db.commit()

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        state.pop("child_conf", None)
        return state

    def load_state(self, state: object) -> None:
        """Take the profile's key and the child's state; what does not fit is dropped."""
        stored = state if isinstance(state, dict) else {}
        profile, child_state = stored.get("profile"), stored.get("child_state")
        if not isinstance(child_state, dict) or not child_state:
            return
        self.child_profile = profile if isinstance(profile, str) else ""
        self.select_profile(self.child_profile)
        self.child_state = child_state
        self.construct_child()

    def clear_state(self) -> None:
        for link in self._links:
            link.unlink()
        self._links.clear()
        self._child_made.clear()
        super().clear_state()

    # --- what the pages show -------------------------------------------------------------

    @property
    def notice(self) -> str:
        """What is wrong with this server beside its start, in one sentence; empty if nothing is."""
        child = self.child_spawner
        return progress.notice(child) if isinstance(child, CustomPBSSpawner) else ""

    @property
    def endings(self) -> dict[tuple[str, str], StartError]:
        """Why servers ended that nobody had stopped, by user and name, until their next start."""
        known: dict[tuple[str, str], StartError] = self.user.settings.setdefault(
            "ganymede_endings", {}
        )
        return known

    @property
    def _ending_key(self) -> tuple[str, str]:
        return self.user.name, self.name

    @property
    def ending_html(self) -> str:
        """Why this server ended, as HTML; empty while it runs and after a stop."""
        ending = self.endings.get(self._ending_key)
        return ending.jupyterhub_html_message if ending else ""

    async def poll(self) -> int | None:
        status: int | None = await super().poll()
        child = self.child_spawner
        if status is not None and isinstance(child, CustomPBSSpawner) and child.ending:
            if len(self.endings) >= MAX_ENDINGS:
                self.endings.pop(next(iter(self.endings)))
            self.endings[self._ending_key] = child.ending
        return status


def _configured_for(child: Spawner) -> set[str]:
    """The traits that the configuration sets for the child's own class, or one between."""
    sections = set(type(child).section_names()) - set(Spawner.section_names())
    return {name for section in sections for name in child.config.get(section, {})}
