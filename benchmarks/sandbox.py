# SPDX-License-Identifier: BSD-3-Clause
"""A corner of this machine for one run: mounts, processes and a network of its own.

What is started inside ends with the run, whatever it does; the network is a loopback and nothing
else, so that every default port is free; accounts and host names are files mounted over the
machine's, which never change. Linux namespaces do it: unshare(1) of util-linux, as root.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSIDE = "GANYMEDE_BENCHMARK_ROOT"
HUB_ACCOUNT = "rhea"
FIRST_UID = 60000
HOSTS = "127.0.0.1 localhost encina node01\n"


def run(module: str, arguments: list[str], timeout: float) -> int:
    """Run `module` inside a sandbox, at most `timeout` seconds; its exit status.

    The module calls `prepare` first. Raises SystemExit where no sandbox can be made.
    """
    if os.geteuid() != 0:
        raise SystemExit("Run it as root: it makes namespaces, and jobs run as their owners.")
    with folder() as root:
        done = subprocess.run(
            ["/usr/bin/unshare", "--mount", "--pid", "--fork", "--mount-proc", "--net",
             "--kill-child", sys.executable, "-m", module, *arguments],
            env={**os.environ, INSIDE: str(root)}, check=False, timeout=timeout,
        )  # fmt: skip
    return done.returncode


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards.

    Its path is short: the address of a unix socket has at most 107 characters.
    """
    with tempfile.TemporaryDirectory(prefix="gb-") as path:
        yield Path(path)


def prepare(*used: Path) -> Path:
    """Set the sandbox up around this process; the folder of this run.

    Every account reaches this Python, this repository, and the folders that are `used`.
    """
    root = Path(os.environ[INSIDE])
    _be_init()
    root.chmod(0o755)  # users must reach homes and sockets
    subprocess.run(["/sbin/ip", "link", "set", "lo", "up"], check=True)
    here = Path(__file__).parents[1]
    _let_everybody_reach(root, {Path(sys.base_prefix), Path(sys.prefix), here, *used})
    (root / "homes").mkdir()
    _mount_over(root, "hosts", HOSTS)
    add_accounts(root, [HUB_ACCOUNT])
    return root


def _be_init() -> None:
    """Let a child go on; the first process only buries orphans, and its end is everybody's."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _let_everybody_reach(root: Path, paths: set[Path]) -> None:
    """Show these folders to everybody where one above them is closed, as root's home is."""
    closed: dict[Path, set[Path]] = {}
    for path in paths:
        above = [folder for folder in path.parents if not folder.stat().st_mode & 0o001]
        if above:
            closed.setdefault(above[-1], set()).add(path)
    for top, wanted in closed.items():
        behind = root / f"behind{str(top).replace('/', '-')}"
        behind.mkdir()
        _mount("--bind", top, behind)
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", top)
        for path in wanted:
            path.mkdir(parents=True, exist_ok=True)
            _mount("--bind", behind / path.relative_to(top), path)


def add_accounts(root: Path, names: list[str]) -> None:
    """Give these names accounts, groups and homes of their own, besides the machine's."""
    passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
    uid = FIRST_UID + len(list((root / "homes").iterdir()))
    for number, name in enumerate(names, uid):
        home = root / "homes" / name
        home.mkdir(mode=0o700)
        os.chown(home, number, number)
        passwd += f"{name}:x:{number}:{number}::{home}:/bin/bash\n"
        group += f"{name}:x:{number}:\n"
    _mount_over(root, "passwd", passwd)
    _mount_over(root, "group", group)


def _mount_over(root: Path, name: str, content: str) -> None:
    """Show `content` as /etc/NAME, in here only."""
    path = root / f"etc-{name}-{len(list(root.iterdir()))}"
    path.write_text(content)
    _mount("--bind", path, f"/etc/{name}")


def _mount(*words: object) -> None:
    subprocess.run(["/bin/mount", *map(str, words)], check=True)
