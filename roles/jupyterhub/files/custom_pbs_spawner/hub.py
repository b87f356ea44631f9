# SPDX-License-Identifier: BSD-3-Clause
"""The hub: JupyterHub that finds its jobs again when it starts.

    python -m custom_pbs_spawner.hub --config=jupyterhub_config.py

JupyterHub's own start asks each server's address before it believes in the server, and stops it
otherwise. Here the stored record is believed until the queue says that the job is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.objects import Server
from jupyterhub.user import User
from jupyterhub.utils import url_escape_path, url_path_join
from sqlalchemy import update
from sqlalchemy.orm import selectinload

from custom_pbs_spawner import database, memory, metrics, turns
from custom_pbs_spawner.census import Census
from custom_pbs_spawner.menu import ProfileMenuSpawner
from custom_pbs_spawner.record import JobRecord
from custom_pbs_spawner.scheduler import hub_id
from custom_pbs_spawner.spawner import CustomPBSSpawner, Phase, StartError


class GanymedeHub(JupyterHub):
    """JupyterHub with a census of its jobs, and servers that survive it."""

    name = "jupyterhub"

    def init_db(self) -> None:
        database.settle(self.db_url)
        super().init_db()
        database.commit_without_waiting(self.db)

    def init_handlers(self) -> None:
        super().init_handlers()
        self.handlers: list[tuple[Any, ...]]
        self.handlers = turns.in_turn(self.handlers)

    async def init_spawners(self) -> int:
        """Adopt each server whose job is on record; leave the others to JupyterHub."""
        self._memory = asyncio.ensure_future(memory.keep_collections_short())
        self._log_keeper = asyncio.ensure_future(database.keep_log_short(self.db))
        await asyncio.sleep(0)
        rows = self._rows_with_record()
        with self._hidden(rows):
            others = asyncio.ensure_future(super().init_spawners())
            await asyncio.sleep(0)
        for row in rows:
            self._adopt(self.users[row.user], row)
        self.db.commit()
        self._begin_census()
        self._first_looks = asyncio.gather(*(self._look(row) for row in rows))
        return len(rows) + int(await others)

    def _rows_with_record(self) -> list[orm.Spawner]:
        """The servers with a job on record, with all that is asked of them in a few queries."""
        stored = self.db.query(orm.Spawner.id, orm.Spawner.state)
        numbers = [number for number, state in stored if _has_record(state)]
        everything = (
            selectinload(orm.Spawner.server),
            selectinload(orm.Spawner.user).selectinload(orm.User._orm_spawners),
        )
        query = self.db.query(orm.Spawner).filter(orm.Spawner.id.in_(numbers))
        return list(query.options(*everything))

    @contextmanager
    def _hidden(self, rows: list[orm.Spawner]) -> Iterator[None]:
        """Take the addresses away meanwhile: JupyterHub looks after servers that have one."""
        addresses = [{"id": row.id, "server_id": row.server_id} for row in rows if row.server_id]
        without = [{**address, "server_id": None} for address in addresses]
        if addresses:
            self.db.execute(update(orm.Spawner), without)
        yield
        if addresses:
            self.db.execute(update(orm.Spawner), addresses)

    def _adopt(self, user: User, row: orm.Spawner) -> None:
        """Take up a server where the record says it was: starting, running or stopping."""
        spawner: ProfileMenuSpawner = user.spawners[row.name]
        child = spawner.child_spawner
        if not isinstance(child, CustomPBSSpawner) or child.record is None:
            return
        if row.server is None:
            path = url_path_join(user.base_url, url_escape_path(row.name), "/")
            row.server = orm.Server(base_url=path)
            # Only the database fills in the other columns.
            self.db.flush()
        spawner.server = Server(orm_server=row.server)
        record = child.record
        if child.phase is Phase.STOPPING or user.name in self.authenticator.blocked_users:
            spawner._stop_future = asyncio.ensure_future(user.stop(spawner.name))
        elif child.phase is Phase.RUNNING:
            spawner.server.ip, spawner.server.port = record.host, record.port
            self._watch(user, spawner)
        else:
            spawner._spawn_pending = True
            spawner._spawn_future = asyncio.ensure_future(self._resume(user, spawner, child))
            spawner._spawn_future.add_done_callback(lambda future: _end_start(spawner, future))
        self.log.info("Server %s: job %s, %s.", spawner._log_name, record.job_id, child.phase.value)

    def _watch(self, user: User, spawner: ProfileMenuSpawner) -> None:
        """Have the server cleaned up when a poll says that its job is over."""

        async def stopped() -> None:
            await self.proxy.delete_user(user, spawner.name)
            await user.stop(spawner.name)

        spawner.add_poll_callback(stopped)
        spawner.start_polling()

    async def _look(self, row: orm.Spawner) -> None:
        """See at once, not at the next poll, which of the running servers have ended."""
        spawner = self.users[row.user].spawners[row.name]
        if spawner.ready:
            await spawner.poll_and_notify()

    async def _resume(
        self, user: User, spawner: ProfileMenuSpawner, child: CustomPBSSpawner
    ) -> None:
        """Go on with a start. What JupyterHub does around `start` is done here as well."""
        try:
            spawner.server.ip, spawner.server.port = await child.resume()
            self.db.commit()
            spawner._waiting_for_response = True
            await user._wait_up(spawner)
        except StartError as error:
            self.log.warning("Not starting %s: %s", spawner._log_name, error)
            await user.stop(spawner.name)
            raise
        self._watch(user, spawner)
        await self.proxy.add_user(user, spawner.name)

    # --- the census ----------------------------------------------------------------------

    def _begin_census(self) -> None:
        """Compare jobs and servers from now on."""
        spawner = CustomPBSSpawner(config=self.config)
        view = spawner.shared_view(self.tornado_settings)
        # Where the queue hides other people's jobs, anybody may have one from before.
        view.owners.update(user.name for user in self.db.query(orm.User))
        metrics.watch_age(lambda: view.age)
        census = Census(
            view, hub_id(self.hub.api_url), lambda: dict(self._claims()), spawner.overdue_after
        )
        self._census = asyncio.ensure_future(census.run(spawner.query_interval))

    def _claims(self) -> Iterator[tuple[str, JobRecord]]:
        """The tag and the record of each server that there is."""
        for user in self.users.values():
            for spawner in user.spawners.values():
                record = getattr(getattr(spawner, "child_spawner", None), "record", None)
                if isinstance(record, JobRecord) and record.tag:
                    yield record.tag, record


def _has_record(state: object) -> bool:
    child = state.get("child_state") if isinstance(state, dict) else None
    return JobRecord.from_state(child) is not None


def _end_start(spawner: ProfileMenuSpawner, future: asyncio.Future[None]) -> None:
    """As JupyterHub does after a start: only a failure is kept, for the pages."""
    if future.cancelled() or future.exception() is None:
        spawner._spawn_future = None
    spawner._spawn_pending = False


main = GanymedeHub.launch_instance

if __name__ == "__main__":
    main()
