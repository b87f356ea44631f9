# SPDX-License-Identifier: BSD-3-Clause
"""The versions of a conda environment on disk, which of them is in service, and which one was.

    <root>/<name>/<name>-<hash>/                            one version
    <root>/<name>/<name>-<hash>/specification-<hash>.json   its mark: written last, it is complete
    <root>/<name>/current                                   link to the version in service
    <root>/<name>/history.json                              the switches of that link

Runs on the managed host, so it keeps to the standard library and to what Python 3.8 knows.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

FORWARD, ROLLBACK = "forward", "rollback"
BUSY_INTERVAL = 0.5


class VersionError(Exception):
    """Something about an environment's versions is wrong; a sentence for the administrator."""


class BusyError(VersionError):
    """Another run is at work in the environment's folder."""


class Journal:
    """A file on the host's own disk that says who works in a folder of the shared file system.

    It is locked while a run builds or removes there. When it is not empty and not locked, that run
    was killed and may have left something: nobody has to look into the folder to know.
    """

    def __init__(self, state: Path, folder: Path) -> None:
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self.folder = folder
        self.file = state / "builds" / (folder.name + "-" + digest)

    def is_open(self) -> bool:
        """Whether a run is at work, or one was killed."""
        try:
            return self.file.stat().st_size > 0
        except FileNotFoundError:
            return False

    def is_locked(self) -> bool:
        """Whether a run is at work. Writes nothing."""
        try:
            with self.file.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextlib.contextmanager
    def held(self, patience: float) -> Iterator[int]:
        """Be the only one at work; waits for another run for `patience` seconds.

        Gives the number of the file that is locked: a command that inherits it goes on holding the
        lock when this run is killed, so nobody tidies up under its hands.

        What ends with a VersionError has cleaned up behind itself. After anything else the journal
        stays open and the next run looks.

        Raises:
            BusyError: the other run did not end.
        """
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.file.open("a+") as file:
            deadline = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise BusyError(self._sentence(file)) from None
                    time.sleep(BUSY_INTERVAL)
            file.write(f"{os.getpid()} {self.folder}\n")
            file.flush()
            try:
                yield file.fileno()
            except VersionError:
                file.truncate(0)
                raise
            else:
                file.truncate(0)
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _sentence(self, file: IO[str]) -> str:
        file.seek(0)
        number = (file.read().split() or ["unknown"])[0]
        return (
            f"Another run (process {number}), or a command that a killed one has started, is at "
            f"work in {self.folder}: wait until it has ended, or end it."
        )


class Environment:
    """One environment: its versions, the link, and the history of the link."""

    def __init__(self, root: str, name: str) -> None:
        self.name = name
        self.folder = Path(root) / name
        self.link = self.folder / "current"
        self.history_file = self.folder / "history.json"

    def serves(self, digest: str) -> bool:
        """Whether a complete version of this specification is in service: one stat, no more."""
        try:
            os.stat(f"{self.link}/{mark_name(digest)}")  # noqa: PTH116 - exactly this call
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def in_service(self) -> str:
        """Name of the version that the link points at, or "" when there is none."""
        try:
            return os.readlink(self.link)  # noqa: PTH115 - the text of the link
        except FileNotFoundError:
            return ""

    def directories(self) -> list[str]:
        """Names of what looks like versions, complete or not."""
        if not self.folder.is_dir():
            return []
        with os.scandir(self.folder) as entries:
            return sorted(item.name for item in entries if item.is_dir(follow_symlinks=False))

    def marks(self, version: str) -> list[Path]:
        """The marks of a version, the oldest first: one for each specification that it meets."""
        found = list((self.folder / version).glob(mark_name("*")))
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def versions(self) -> list[str]:
        """Names of the complete versions, the oldest first."""
        complete = [(self.built(name), name) for name in self.directories() if self.marks(name)]
        return [name for _, name in sorted(complete)]

    def built(self, version: str) -> float:
        """When a complete version got its first mark, in seconds since the epoch."""
        return self.marks(version)[0].stat().st_mtime

    def find(self, digest: str) -> str:
        """Name of the complete version that meets a specification, or ""."""
        usual = f"{self.name}-{digest}"
        for version in [usual, *self.directories()]:
            if (self.folder / version / mark_name(digest)).is_file():
                return version
        return ""

    def debris(self) -> list[Path]:
        """What killed runs left behind: directories without a mark that are not in service."""
        serving = self.in_service()
        return [
            self.folder / name
            for name in self.directories()
            if name != serving and not self.marks(name)
        ]

    def document(self, version: str) -> dict[str, Any]:
        """The specification that a version was made of, or adopted for last, and its packages."""
        marks = self.marks(version) if version else []
        document: dict[str, Any] = json.loads(marks[-1].read_text()) if marks else {}
        return document

    def write_mark(self, version: str, digest: str, document: dict[str, Any]) -> None:
        """Say that a version is complete and meets a specification."""
        replace(self.folder / version / mark_name(digest), document)

    def history(self) -> list[dict[str, Any]]:
        """The switches that took place, the oldest first: `time`, `from`, `to` and `kind`.

        Raises:
            VersionError: the file cannot be read.
        """
        try:
            entries: list[dict[str, Any]] = json.loads(self.history_file.read_text())
            # Written before the link is switched: a run killed in between has an entry too many.
            serving = self.in_service()
            while entries and entries[-1]["to"] != serving:
                entries.pop()
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as problem:
            raise VersionError(
                f"{self.history_file} cannot be read ({problem}). Move it away; what was in "
                "service before is forgotten then."
            ) from problem
        return entries

    def switch(self, version: str, kind: str) -> None:
        """Put a complete version into service by one rename.

        Raises:
            VersionError: the version is not complete, or the history cannot be read.
        """
        if not self.marks(version):
            raise VersionError(f"{self.folder / version} is not there any more.")
        entry = {"time": int(time.time()), "from": self.in_service(), "to": version, "kind": kind}
        replace(self.history_file, [*self.history(), entry])
        unfinished = self.folder / ".current.new"
        with contextlib.suppress(FileNotFoundError):
            unfinished.unlink()
        unfinished.symlink_to(version)
        unfinished.replace(self.link)

    def predecessors(self) -> list[str]:
        """The complete versions to go back to, the nearest first.

        A step back takes its step forward off the list: two steps back lead to the version before
        the previous one, not to and fro.
        """
        steps: list[str] = []
        for entry in self.history():
            if entry["kind"] == ROLLBACK:
                while steps and steps.pop() != entry["to"]:
                    pass
            elif entry["from"]:
                steps.append(entry["from"])
        serving = self.in_service()
        nearest = dict.fromkeys(reversed(steps))
        return [name for name in nearest if name != serving and self.marks(name)]

    def left_service(self, version: str) -> float:
        """When a version was taken out of service last, in seconds since the epoch.

        0: it never was in service. What is older than the history may have been until that began.
        """
        history = self.history()
        times = [entry["time"] for entry in history if entry["from"] == version]
        if not times and history and self.built(version) < history[0]["time"]:
            times = [history[0]["time"]]
        return float(max(times, default=0))

    def remove(self, version: str) -> None:
        """Remove a version. It counts as debris from the first moment on."""
        for mark in self.marks(version):
            mark.unlink()
        shutil.rmtree(str(self.folder / version))


def mark_name(digest: str) -> str:
    """Name of the file that marks a version as complete."""
    return f"specification-{digest}.json"


def replace(path: Path, document: object) -> None:
    """Write a JSON file that everybody may read: the whole of it or nothing."""
    unfinished = path.with_name(path.name + ".new")
    try:
        with unfinished.open("w") as file:
            file.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.chmod(0o644)
        unfinished.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def installed(micromamba: str, prefix: Path, timeout: int = 120) -> list[dict[str, str]]:
    """The conda packages in a prefix: name, version, build, url, sha256.

    Raises:
        VersionError: micromamba does not answer within `timeout` seconds, or makes no sense.
    """
    command = [micromamba, "list", "--no-rc", "--no-pip", "--json", "-p", str(prefix)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=True,
        )
        answer = json.loads(done.stdout.decode())
        # An object since 2.9, a list before.
        rows = answer["packages"] if isinstance(answer, dict) else answer
        return [
            {
                "name": row["name"],
                "version": row["version"],
                "build": row["build_string"],
                "url": row["url"],
                "sha256": row.get("sha256") or "",
            }
            for row in rows
        ]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as problem:
        raise VersionError(f"micromamba cannot list {prefix}: {problem}") from problem


def readable(document: dict[str, Any]) -> list[str]:
    """A specification for people, one line each, without the hashes of wheels."""
    lines = []
    for part in ("channels", "conda", "explicit", "python"):
        for item in document.get(part, []):
            lines.append(f"{part}: {item.split(' --hash')[0]}")
    return lines


def megabytes(size: int) -> str:
    """A size in bytes for people."""
    return f"{size / 1e6:.0f} MB"


def difference(link: Path, before: list[str], after: list[str]) -> dict[str, str]:
    """What `--diff` shows of a switch."""
    return {
        "before_header": str(link),
        "after_header": str(link),
        "before": "".join(line + "\n" for line in before),
        "after": "".join(line + "\n" for line in after),
    }
