# SPDX-License-Identifier: BSD-3-Clause
"""Command line of the builder: standard library only, until the tools are installed.

The mirror is built in a work folder, renamed to its hash when it is complete, and then put into
service by one link.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LOCKS = ("requirements/hub.txt", "requirements/notebook.txt")
INSTALL_TIMEOUT = 600
KEPT_MIRRORS = 2


def inputs(repository: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of every file that decides what the mirror holds."""
    for path in sorted(HERE.rglob("*")):
        name = path.relative_to(HERE).as_posix()
        hidden = name.startswith(".") or "/." in name  # caches of linters
        if path.is_file() and path.suffix not in {".md", ".pyc"} and not hidden:
            yield name, path
    for lock in LOCKS:
        yield lock, repository / lock


def mirror_hash(repository: Path, mounted_at: Path) -> str:
    """Twelve hexadecimal digits over the inputs and the place where the mirror will be seen."""
    digest = hashlib.sha256(f"{mounted_at}\n".encode())
    for name, path in inputs(repository):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


@contextmanager
def only_one(output: Path) -> Iterator[None]:
    """Hold the mirror's lock: a second builder waits for the first and then finds its work."""
    with (output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def switch(output: Path, name: str) -> None:
    """Point `current` at the mirror `name` in one step."""
    link = output / "current"
    if link.is_symlink() and os.readlink(link) == name:  # noqa: PTH115 - the text, not a path
        return
    fresh = output / ".current"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    fresh.replace(link)


def remove_old(output: Path, name: str) -> None:
    """Keep the mirror in service and the one before it."""
    mirrors = [path for path in output.iterdir() if path.is_dir() and not path.name.startswith(".")]
    others = [path for path in mirrors if path.name not in {name, "current"}]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT_MIRRORS - 1 :]:
        shutil.rmtree(path)


def environment(output: Path) -> dict[str, str]:
    """The caller's environment, with caches beside the mirror and one CA bundle for all clients."""
    bundle = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    downloads = output / ".downloads"
    return {
        "PIP_CERT": bundle,
        "NODE_EXTRA_CA_CERTS": bundle,
        **os.environ,
        "PIP_CACHE_DIR": str(downloads / "pip"),
        "npm_config_cache": str(downloads / "npm"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def build(repository: Path, output: Path, work: Path, mounted_at: Path) -> None:
    """Install the tools into `work`, then let them fill `work`/mirror."""
    python = work / "tools" / "bin" / "python"
    env = environment(output)
    subprocess.run(
        [sys.executable, "-m", "venv", work / "tools"], check=True, timeout=INSTALL_TIMEOUT
    )
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--require-hashes",
            "--no-deps",
            "--no-compile",
            "--only-binary",
            ":all:",
            "--requirement",
            HERE / "tools.txt",
        ],
        check=True,
        env=env,
        timeout=INSTALL_TIMEOUT,
    )
    subprocess.run(
        [python, "-m", "offline_channel.assemble", HERE, repository, work, mounted_at],
        check=True,
        env=env,
        timeout=3 * INSTALL_TIMEOUT,
    )


def main() -> None:
    """Build what is not there yet and put it into service."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--repository", type=Path, required=True, help="the repository; only read")
    parser.add_argument("--output", type=Path, required=True, help="the mirror's folder")
    parser.add_argument(
        "--mounted-at",
        type=Path,
        default=Path("/opt/mirror"),
        help="where the users of the mirror will see it",
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    name = mirror_hash(arguments.repository, arguments.mounted_at)
    os.umask(0o022)
    with only_one(output):
        work = output / ".work"
        if work.exists():
            shutil.rmtree(work)
        if not (output / name).is_dir():
            work.mkdir()
            try:
                build(arguments.repository.resolve(), output, work, arguments.mounted_at / name)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
                shutil.rmtree(work)
                sys.exit(f"offline channel: not built, the mirror is as it was: {problem}")
            (work / "mirror").rename(output / name)
            shutil.rmtree(work)
        switch(output, name)
        remove_old(output, name)
    print(f"offline channel {name} in {output}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
