# SPDX-License-Identifier: BSD-3-Clause
"""The Python environment of the control node, from the hashed locks in requirements/."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

from machine import REPOSITORY, PlainError, cache, fingerprint, follow


def folder() -> Path:
    """Where the environment is; one for each release of Python."""
    return cache() / f"venv-{sys.version_info.major}.{sys.version_info.minor}"


def stamp(lock: str) -> str:
    """What the environment depends on."""
    return fingerprint([f"requirements/{lock}.txt"], sys.version, str(folder()))


def is_ready(lock: str) -> bool:
    """Whether the environment holds what `lock` names (control or development)."""
    mark = folder() / f".{lock}"
    return mark.exists() and mark.read_text() == stamp(lock)


def install(lock: str) -> None:
    """Make the environment hold what `lock` names. The development lock includes the control lock.

    Raises:
        PlainError: the packages cannot be had, or Python cannot make an environment.
    """
    if is_ready(lock):
        return
    python = folder() / "bin" / "python"
    # An environment whose Python was taken away by an upgrade starts afresh.
    if not _works(python):
        venv.create(folder(), with_pip=True, clear=True)
    log = cache() / "log" / f"pip-{lock}.log"
    pip = [str(python), "-m", "pip", "install", "--require-hashes", "--disable-pip-version-check"]
    locked = str(REPOSITORY / "requirements" / f"{lock}.txt")
    if follow([*pip, "--requirement", locked], log, dict(os.environ), timeout=1800):
        raise PlainError(
            "The Python packages could not be installed: check the network, or name your site's"
            f" index in PIP_INDEX_URL (pip's words are in {log})."
        )
    (folder() / f".{lock}").write_text(stamp(lock))


def _works(python: Path) -> bool:
    if not python.exists():
        return False
    done = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    return done.returncode == 0


def variables(**more: str) -> dict[str, str]:
    """The process environment for Ansible and the tests."""
    return {
        **os.environ,
        "PATH": f"{folder() / 'bin'}:{os.environ['PATH']}",
        "GANYMEDE_CACHE": str(cache()),
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_HOME": str(cache() / "ansible"),
        "LC_ALL": "C.UTF-8",  # Ansible wants UTF-8; a bare machine has no locale at all
        **more,
    }
