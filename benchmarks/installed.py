# SPDX-License-Identifier: BSD-3-Clause
"""What a benchmark needs installed, once for each state of the locks."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.cluster import REPOSITORY

LOCK = REPOSITORY / "requirements" / "notebook.txt"
PROXY_LOCKS = [
    REPOSITORY / "molecule" / "rehearsal" / "conda" / "npm" / name
    for name in ("package.json", "package-lock.json")
]


def notebook_environment() -> Path:
    """An environment with JupyterLab as requirements/notebook.txt has it."""
    return _made_once(_cached("notebook", LOCK), _notebook_environment)


def proxy() -> Path:
    """A folder with configurable-http-proxy, for the Node.js of this machine."""
    return _made_once(_cached("proxy", *PROXY_LOCKS), _proxy)


def _cached(name: str, *locks: Path) -> Path:
    """The folder in the cache for what these locks describe."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ganymede"
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    return Path(os.environ.get("GANYMEDE_CACHE") or base) / "benchmarks" / f"{name}-{digest}"


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made by `make` unless that has come to its end before."""
    done = folder / ".complete"
    if not done.exists():
        print(f"{folder.name} is being installed …", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        done.touch()
    return folder


def _notebook_environment(folder: Path) -> None:
    """JupyterLab as requirements/notebook.txt has it, for the machine's own Python 3.11."""
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", folder], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "-qq",
         "--no-deps", "--require-hashes", "--requirement", LOCK], check=True,
    )  # fmt: skip


def _proxy(folder: Path) -> None:
    """configurable-http-proxy, with the Node.js of this machine."""
    for lock in PROXY_LOCKS:
        shutil.copy(lock, folder)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],  # noqa: S607
        cwd=folder, check=True,
    )  # fmt: skip
