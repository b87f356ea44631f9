# SPDX-License-Identifier: BSD-3-Clause
"""A tiny channel of packages that need no interpreter, and the stand-in over it."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rattler
from rattler.index.index import index_fs

REPOSITORY = Path(__file__).resolve().parents[3]
REHEARSAL = REPOSITORY / "molecule" / "rehearsal" / "conda"
sys.path.insert(0, str(REHEARSAL))

from offline_channel.package import PLACEHOLDER, Package, write  # noqa: E402 - the line above

from tests.unit.conda.environments import Demo  # noqa: E402

TOOL = f"""#!/bin/sh
# lives in {PLACEHOLDER}
echo tool VERSION
"""
STATUS = "#!/bin/sh\nexit 3\n"

Micromamba = Callable[..., subprocess.CompletedProcess[str]]


def make_package(work: Path, channel: Path, name: str, version: str, script: str) -> None:
    """Write a package that holds one command, named like the package."""
    tree = work / f"{name}-{version}"
    (tree / "bin").mkdir(parents=True)
    command = tree / "bin" / name
    command.write_text(script.replace("VERSION", version))
    command.chmod(0o755)
    write(Package(name, version, [], tree, noarch="generic"), channel)


@pytest.fixture(scope="session")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel: `tool` 1.0 and 2.0, `large` (4 MB), `failing` (ends with 3) and `spoilt`.

    The bytes of `spoilt` are not those that the channel names.
    """
    work = tmp_path_factory.mktemp("packages")
    channel = tmp_path_factory.mktemp("channel")
    for folder in ("noarch", "linux-64"):
        (channel / folder).mkdir()
    for version in ("1.0", "2.0"):
        make_package(work, channel, "tool", version, TOOL)
    make_package(work, channel, "failing", "1.0", STATUS)
    make_package(work, channel, "large", "1.0", TOOL + "# " + secrets.token_hex(2 * 10**6))
    make_package(work, channel, "spoilt", "1.0", TOOL)
    asyncio.run(index_fs(channel, write_zst=False, write_shards=False))
    with (channel / "noarch" / "spoilt-1.0-0.conda").open("ab") as package:
        package.write(b"more")
    return channel


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in as the builder installs it, with this environment's rattler."""
    text = (REHEARSAL / "stand_in" / "micromamba.py").read_text()
    libraries = str(Path(rattler.__file__).parents[1])
    program = tmp_path_factory.mktemp("bin") / "micromamba"
    program.write_text(text.replace("/opt/mirror/current/lib", libraries))
    program.chmod(0o755)
    return program


@pytest.fixture
def micromamba(stand_in: Path, tmp_path: Path) -> Micromamba:
    """Run the stand-in with a package cache of the test's own."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [stand_in, *arguments],
            env={"PATH": "/usr/bin:/bin", "MAMBA_ROOT_PREFIX": str(tmp_path / "root")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def demo(tmp_path: Path, channel: Path, stand_in: Path) -> Demo:
    """An environment that has no version yet."""
    return Demo(tmp_path, channel, stand_in)


@pytest.fixture
def served(demo: Demo) -> Demo:
    """The same with tool 1.0 in service."""
    demo.serve("tool=1.0")
    return demo
