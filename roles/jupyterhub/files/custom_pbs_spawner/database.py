# SPDX-License-Identifier: BSD-3-Clause
"""The hub's database: commits that do not hold up the event loop, and lose nothing that counts.

JupyterHub commits many times for one start, in its event loop. With SQLite each of them waits
for the disk, and every request with it. Here a commit survives the end of the hub at once
(https://www.sqlite.org/pragma.html#pragma_synchronous: NORMAL in WAL mode), and what a job stands
on is brought to the disk by `on_disk`, in a thread, before the job is submitted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

LOOK = 10.0
"""Seconds between two looks at the size of the log."""
QUIET = 2.0
"""Seconds without a commit after which the hub is taken to have time."""
LOG_SIZE = 4 * 2**20
"""Bytes from which on it is brought into the database when the hub is quiet."""
LARGE_LOG = 32 * 2**20
"""Bytes from which on that is done in any case."""
LAST_RESORT = 16384
"""Pages (64 MiB) from which on a commit does it."""

_disks: dict[str, _Disk] = {}


def settle(url: str) -> None:
    """Bring what a killed hub left beside its SQLite database into the database itself.

    JupyterHub copies that file alone before it upgrades it.
    """
    address = make_url(url)
    path = address.database
    if address.get_backend_name() == "sqlite" and path and Path(path).exists():
        # What is wrong with the file, JupyterHub says when it opens it next.
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def commit_without_waiting(session: Session) -> None:
    """Set a SQLite database up; another one is left as it is."""
    if not _file(session):
        return
    session.execute(text("PRAGMA journal_mode = WAL"))
    session.commit()
    # Of the connection, not of the file: of those that are there as of those to come.
    engine = session.get_bind()
    assert isinstance(engine, Engine)
    event.listen(engine, "connect", _relax)
    engine.dispose()


def _file(session: Session) -> str | None:
    """The file of a SQLite database."""
    engine = session.get_bind()
    if not isinstance(engine, Engine) or engine.dialect.name != "sqlite":
        return None
    path = engine.url.database
    return None if path == ":memory:" else path


def _relax(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
    # A checkpoint waits for the disk: not in a commit, see keep_log_short. In a commit only where
    # the log has grown all the same: it begins anew when nothing was written during a checkpoint.
    connection.execute(f"PRAGMA wal_autocheckpoint = {LAST_RESORT}")
    # Whoever begins the log anew may wait long for a slow disk, and others for him.
    connection.execute("PRAGMA busy_timeout = 60000")
    # A log that begins anew is cut, so that its size says how much is new.
    connection.execute("PRAGMA journal_size_limit = 0")


async def keep_log_short(session: Session) -> None:
    """From now on, bring what the log holds into the database while others go on working."""
    path = _file(session)
    while path:
        await asyncio.sleep(LOOK)
        try:
            await asyncio.to_thread(_checkpoint, path)
        except (OSError, RuntimeError, sqlite3.Error):
            # Nothing is lost, the log grows: a full disk, or no thread to be had, is an
            # administrator's to see.
            log.exception("The log of the database %s cannot be shortened.", path)


def _checkpoint(path: str) -> None:
    """Passive: waits for nobody, and nobody for it. Then begin the log anew.

    A commit of that moment waits for the disk.
    """
    try:
        log_file = Path(f"{path}-wal").stat()
    except FileNotFoundError:
        return
    quiet = time.time() - log_file.st_mtime > QUIET
    if log_file.st_size > (LOG_SIZE if quiet else LARGE_LOG):
        with closing(sqlite3.connect(path)) as connection:
            _, frames, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if frames == done:
                # Who writes next begins the log anew, and waits for the disk to have its first
                # page. Not the hub's next commit, then: this writes what is there already.
                connection.execute("PRAGMA journal_size_limit = 0")
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                connection.execute(f"PRAGMA user_version = {version}")


async def on_disk(session: Session) -> None:
    """Wait until everything that was committed would survive a loss of power.

    Raises OSError when the disk does not take it.
    """
    path = _file(session)
    if path:
        await _disks.setdefault(path, _Disk(f"{path}-wal")).written()


class _Disk:
    """One file that grows; those who wait for it at the same time share one fsync."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._turn = asyncio.Lock()
        self._asked = 0
        self._written = 0

    async def written(self) -> None:
        self._asked += 1
        mine = self._asked
        async with self._turn:
            if self._written < mine:
                everybody = self._asked
                await asyncio.to_thread(self._sync)
                self._written = everybody

    def _sync(self) -> None:
        try:
            file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return  # all of it is in the database itself, which SQLite has written
        try:
            os.fsync(file)
        finally:
            os.close(file)
