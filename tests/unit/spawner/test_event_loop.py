# SPDX-License-Identifier: BSD-3-Clause
"""What keeps the hub's event loop free: turns, commits beside it, short garbage collections."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from custom_pbs_spawner import database, memory
from custom_pbs_spawner.turns import Stage, Turnstile
from jupyterhub import orm
from sqlalchemy import text
from sqlalchemy.orm import Session


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let something run, from before the block until its end."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --- turns -----------------------------------------------------------------------------------


async def _iterations(counter: list[int]) -> None:
    while True:
        counter[0] += 1
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_the_furthest_start_is_first_and_nobody_shares_a_turn() -> None:
    turnstile, counter = Turnstile(), [0]
    counting = asyncio.ensure_future(_iterations(counter))
    taken: list[tuple[Stage, int]] = []

    async def work(stage: Stage) -> None:
        await turnstile.take(stage)
        taken.append((stage, counter[0]))

    asked = [Stage.REQUEST] * 5 + [Stage.TOKEN] * 5 + [Stage.READY] * 5
    await asyncio.gather(*(work(stage) for stage in asked))
    counting.cancel()
    assert [stage for stage, _ in taken] == sorted(asked)
    moments = [moment for _, moment in taken]
    assert all(later > earlier for earlier, later in itertools.pairwise(moments))


@pytest.mark.asyncio
async def test_who_gives_up_takes_no_turn() -> None:
    turnstile = Turnstile()
    first, gone, last = (asyncio.ensure_future(turnstile.take(Stage.TOKEN)) for _ in range(3))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(asyncio.gather(first, last), 5)
    assert gone.cancelled()
    await asyncio.wait_for(turnstile.take(Stage.REQUEST), 5)


# --- the database ----------------------------------------------------------------------------


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A database as JupyterHub opens it, set up as our hub does."""
    session: Session = orm.new_session_factory(f"sqlite:///{tmp_path}/hub.sqlite")()
    database.commit_without_waiting(session)
    yield session
    session.close()


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were brought to the disk by the hub itself."""
    files: list[str] = []
    fsync = os.fsync

    def counted(file: int) -> None:
        fsync(file)
        files.append(Path(f"/proc/self/fd/{file}").readlink().name)

    monkeypatch.setattr(os, "fsync", counted)
    return files


def test_no_connection_waits_for_the_disk(session: Session) -> None:
    normal = 1
    for _ in range(2):
        assert session.execute(text("PRAGMA synchronous")).scalar() == normal
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        session.get_bind().dispose()  # type: ignore[union-attr]
        session.close()


def test_a_commit_survives_the_hub(session: Session, tmp_path: Path) -> None:
    session.add(orm.User(name="ana"))
    session.commit()
    copy = tmp_path / "as-after-a-crash"
    copy.mkdir()
    for file in tmp_path.glob("hub.sqlite*"):
        (copy / file.name).write_bytes(file.read_bytes())
    other: Session = orm.new_session_factory(f"sqlite:///{copy}/hub.sqlite")()
    assert [user.name for user in other.query(orm.User)] == ["ana"]


def test_what_a_killed_hub_left_is_in_the_file_alone(session: Session, tmp_path: Path) -> None:
    session.add(orm.User(name="ana"))
    session.commit()
    left = tmp_path / "left-by-kill-9"
    left.mkdir()
    for file in tmp_path.glob("hub.sqlite*"):
        (left / file.name).write_bytes(file.read_bytes())
    database.settle(f"sqlite:///{left}/hub.sqlite")
    (tmp_path / "copy.sqlite").write_bytes((left / "hub.sqlite").read_bytes())
    copy: Session = orm.new_session_factory(f"sqlite:///{tmp_path}/copy.sqlite")()
    assert [user.name for user in copy.query(orm.User)] == ["ana"]


def test_a_database_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    database.settle(f"sqlite:///{tmp_path}/hub.sqlite")
    database.settle("sqlite:///:memory:")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_those_who_wait_at_once_share_an_fsync(session: Session, syncs: list[str]) -> None:
    session.add(orm.User(name="ana"))
    session.commit()
    await asyncio.gather(*(database.on_disk(session) for _ in range(20)))
    assert syncs in (["hub.sqlite-wal"], ["hub.sqlite-wal"] * 2)
    # What was committed after that is not on the disk yet.
    before = len(syncs)
    await database.on_disk(session)
    assert len(syncs) == before + 1


@pytest.mark.asyncio
async def test_a_disk_that_fails_is_told(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    session.add(orm.User(name="ana"))
    session.commit()
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        await database.on_disk(session)


@pytest.mark.asyncio
async def test_a_database_in_memory_is_left_alone(syncs: list[str]) -> None:
    session: Session = orm.new_session_factory("sqlite:///:memory:")()
    session.add(orm.User(name="ana"))
    session.commit()
    database.commit_without_waiting(session)
    await database.on_disk(session)
    assert [user.name for user in session.query(orm.User)] == ["ana"]
    assert syncs == []


def _write(session: Session, megabytes: int) -> None:
    """Commit, piece by piece, more than fits into the log."""
    table = "(content BLOB)"
    session.execute(text(f"CREATE TABLE IF NOT EXISTS filling {table}"))
    for _ in range(4 * megabytes):
        session.execute(text("INSERT INTO filling VALUES (randomblob(262144))"))
        session.commit()


async def _shortened(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the log short until it was brought into the database once."""
    checkpoint, ended = database._checkpoint, threading.Event()

    def told(path: str) -> None:
        checkpoint(path)
        ended.set()

    monkeypatch.setattr(database, "LOOK", 0.01)
    monkeypatch.setattr(database, "QUIET", 0)
    monkeypatch.setattr(database, "_checkpoint", told)
    async with _beside(database.keep_log_short(session)):
        assert await asyncio.to_thread(ended.wait, 10)


@pytest.mark.asyncio
async def test_the_log_is_shortened_beside_the_commits(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, log = tmp_path / "hub.sqlite", tmp_path / "hub.sqlite-wal"
    megabyte = 2**20
    _write(session, 8)
    assert file.stat().st_size < megabyte, "no commit has waited for a checkpoint"
    assert log.stat().st_size > 8 * megabyte
    await _shortened(session, monkeypatch)
    assert file.stat().st_size > 8 * megabyte
    assert log.stat().st_size < megabyte, "the next commit need not begin it anew"
    _write(session, 1)
    assert log.stat().st_size < 2 * megabyte, "it begins anew, and its size says what is new"


@pytest.mark.parametrize(
    ("megabytes", "seconds", "shortened"),
    [(8, 0, False), (8, 3, True), (2, 3, False), (36, 0, True)],
)
def test_the_log_is_shortened_when_the_hub_is_quiet_or_the_log_is_large(
    session: Session, tmp_path: Path, megabytes: int, seconds: float, shortened: bool
) -> None:
    _write(session, megabytes)
    log = tmp_path / "hub.sqlite-wal"
    written = time.time() - seconds
    os.utime(log, (written, written))
    database._checkpoint(str(tmp_path / "hub.sqlite"))
    assert ((tmp_path / "hub.sqlite").stat().st_size > megabytes * 2**20) is shortened


@pytest.mark.asyncio
async def test_a_log_that_cannot_be_shortened_is_told_and_tried_again(
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _write(session, 8)
    checkpoint = database._checkpoint
    failures = [sqlite3.OperationalError("disk I/O error"), RuntimeError("can't start new thread")]

    def failing(path: str) -> None:
        if failures:
            raise failures.pop()
        checkpoint(path)

    monkeypatch.setattr(database, "_checkpoint", failing)
    await _shortened(session, monkeypatch)
    assert (tmp_path / "hub.sqlite").stat().st_size > 8 * 2**20
    assert caplog.text.count("cannot be shortened") == 2
    assert "disk I/O error" in caplog.text


def test_a_log_that_is_never_shortened_has_an_end(session: Session, tmp_path: Path) -> None:
    _write(session, 72)
    assert (tmp_path / "hub.sqlite").stat().st_size > 60 * 2**20


# --- garbage ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_set_aside() -> Iterator[None]:
    """Leave the other tests of this process their garbage."""
    yield
    gc.unfreeze()


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.asyncio
async def test_what_survives_is_set_aside_and_found_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "DAY", 0.2)
    async with _beside(memory.keep_collections_short()):
        cycle = Cycle()
        end = weakref.ref(cycle)
        before = gc.get_freeze_count()
        gc.collect()
        assert gc.get_freeze_count() > before
        del cycle
        gc.collect()
        assert end() is not None, "set aside: a full collection does not look at it"
        async with asyncio.timeout(10):
            while end() is not None:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.05)


@pytest.mark.asyncio
async def test_a_full_collection_is_made_before_much_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "LOOK", 0.05)
    async with _beside(memory.keep_collections_short()):
        before = gc.get_freeze_count()
        kept: list[list[int]] = [[number] for number in range(40_000)]
        middle = gc.get_count()[memory.FULL]
        assert middle >= memory.YOUNG, "Python itself would leave it at that"
        await asyncio.sleep(0.5)
        assert gc.get_count()[memory.FULL] < memory.YOUNG
        assert gc.get_freeze_count() - before > len(kept)
