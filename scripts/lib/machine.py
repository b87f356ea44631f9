# SPDX-License-Identifier: BSD-3-Clause
"""This machine: its folders, its commands, and the stages of a longer piece of work."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHES = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
DOCKER = shutil.which("docker") or "docker"


class PlainError(Exception):
    """A sentence for the person at the keyboard: what is wrong and what to do."""


def cache() -> Path:
    """The folder that keeps what is built once; the same as ganymede_cache in paths.sh."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("GANYMEDE_CACHE") or home / "ganymede")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def only_one(name: str) -> Iterator[int]:
    """Hold the lock `name` of this user's cache; yields its descriptor, which holds it as well.

    Raises:
        PlainError: another process holds it.
    """
    with (cache() / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PlainError(
                f"Another scripts/{name} is at work here: wait until it has ended."
            ) from error
        yield lock.fileno()


def output(command: Sequence[str | Path], timeout: float = 60) -> str:
    """Standard output of a short command; `timeout` in seconds.

    Raises:
        PlainError: it failed, with the last line of what it said.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, cwd=REPOSITORY
        )
    except subprocess.TimeoutExpired as error:
        raise PlainError(f"'{command[0]}' did not answer within {timeout:.0f} s.") from error
    if done.returncode:
        raise PlainError(_last_line(done.stderr) or f"'{command[0]}' failed.")
    return done.stdout.strip()


def follow(
    command: Sequence[str | Path],
    log: Path,
    environment: dict[str, str],
    timeout: float,
    on_line: Callable[[str], None] = lambda line: None,
) -> int:
    """Run a long command with everything it says in `log`; its exit status.

    `on_line` sees each line as it comes. After `timeout` seconds, and at an interrupt, the command
    ends with all its children.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as out,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=REPOSITORY,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        alarm = threading.Timer(timeout, _end, [process])
        alarm.start()
        try:
            for line in process.stdout:
                out.write(line)
                out.flush()
                on_line(line.rstrip("\n"))
            return process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            alarm.cancel()


def _end(process: subprocess.Popen[str]) -> None:
    """End a command and its children: first asked, then forced."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)


def interrupt_on_termination() -> None:
    """Let a SIGTERM, and the end of the terminal, clean up as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Whoever started it with nohup wants it to go on.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    return _last_line(log.read_text(errors="replace")) if log.exists() else ""


def fingerprint(paths: Iterable[str], *more: str) -> str:
    """A hash over files and folders of the repository (names, modes, contents) and over `more`."""
    digest = hashlib.sha256("\0".join(more).encode())
    for path in sorted(paths):
        root = REPOSITORY / path
        for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if file.is_file() and not CACHES.intersection(file.parts):
                digest.update(f"\0{file.relative_to(REPOSITORY)}\0{file.stat().st_mode}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


class Stages:
    """Stages that are announced, timed, and not done again while their stamp holds."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._start = time.monotonic()

    def _stamps(self) -> dict[str, str]:
        if not self._record.exists():
            return {}
        stamps: dict[str, str] = json.loads(self._record.read_text())
        return stamps

    def do(self, title: str, stamp: str | None, action: Callable[[], None]) -> None:
        """Announce `title` and call `action`, unless it was done for this `stamp` before.

        Without a stamp it is called every time: the action knows itself what is done.
        """
        line = f"  {title:<28} "
        if stamp is not None and self._stamps().get(title) == stamp:
            print(f"{line}as it is")
            return
        start = time.monotonic()
        print(line, end="", flush=True)
        try:
            action()
        except BaseException:
            clear()
            print(line if sys.stdout.isatty() else "")
            raise
        if stamp is not None:
            self._keep(title, stamp)
        clear()
        print(f"{line if sys.stdout.isatty() else ''}{duration(time.monotonic() - start)}")

    def _keep(self, title: str, stamp: str) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = self._record.with_suffix(".new")
        unfinished.write_text(json.dumps(self._stamps() | {title: stamp}, indent=1))
        unfinished.replace(self._record)

    def elapsed(self) -> str:
        """The time since the first stage, for people."""
        return duration(time.monotonic() - self._start)


def duration(seconds: float) -> str:
    """Seconds as people write them: `7 s`, `3 min 5 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def say(line: str) -> None:
    """Show progress: on a terminal a line that the next one replaces, else nothing."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        sys.stdout.write(f"\r\033[K{line[:width]}")
        sys.stdout.flush()


def clear() -> None:
    """Take the progress line away."""
    say("")


def require_space(gigabytes: float, what: str) -> None:
    """Stop when the cache or Docker has less than `gigabytes` free.

    Raises:
        PlainError: there is not enough space.
    """
    docker = Path(output([DOCKER, "info", "--format", "{{.DockerRootDir}}"]))
    for folder, remedy in (
        (cache(), "make room there, or name another folder in GANYMEDE_CACHE"),
        (docker, "make room there, for instance with 'docker system prune'"),
    ):
        free = shutil.disk_usage(_existing(folder)).free / 1e9
        if free < gigabytes:
            raise PlainError(
                f"{what} needs {gigabytes:g} GB and {folder} has {free:.1f} GB free: {remedy}."
            )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that this user can see."""
    while not os.access(folder, os.F_OK):
        folder = folder.parent
    return folder
