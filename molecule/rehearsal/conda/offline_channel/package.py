# SPDX-License-Identifier: BSD-3-Clause
"""A conda package: a staged tree and its metadata, written as one `.conda` file.

Layout and field names: the conda package format v2 (index.json, paths.json, link.json below info/).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conda_package_handling.api import create

PLACEHOLDER = "/opt/environment_prefix_placeholder"
"""What stands in packaged text files for the prefix; the installer replaces it."""

COMPILE_TIMEOUT = 300
COMPRESSION_LEVEL = 1  # the channel lives on the machine that reads it


@dataclass
class Package:
    """One package, before it is written."""

    name: str
    version: str
    depends: list[str]
    tree: Path
    """Folder that holds the files as they will lie under the prefix."""
    build: str = "0"
    noarch: str | None = None
    """None (linux-64), "python" or "generic"."""
    license: str = ""
    entry_points: list[str] = field(default_factory=list)
    """Console scripts of a noarch python package, "name = module:function"."""
    extra_index: dict[str, Any] = field(default_factory=dict)
    interpreter: str | Path = sys.executable
    """Python of the version that the package is for; it makes the byte code."""

    @property
    def subdir(self) -> str:
        """Folder of the channel that the package belongs to."""
        return "noarch" if self.noarch else "linux-64"

    @property
    def file_name(self) -> str:
        """Name of the package's file in the channel."""
        return f"{self.name}-{self.version}-{self.build}.conda"


def path_entry(tree: Path, path: Path) -> dict[str, Any]:
    """The row of info/paths.json for one file."""
    relative = path.relative_to(tree).as_posix()
    if path.is_symlink():
        content = path.resolve().read_bytes() if path.resolve().is_file() else b""
        kind = "softlink"
    else:
        content = path.read_bytes()
        kind = "hardlink"
    entry: dict[str, Any] = {
        "_path": relative,
        "path_type": kind,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_in_bytes": len(content),
    }
    if kind == "hardlink" and PLACEHOLDER.encode() in content:
        if b"\0" in content:
            raise ValueError(
                f"{relative}: the prefix stands in a binary file, which needs a padded placeholder"
            )
        entry |= {"file_mode": "text", "prefix_placeholder": PLACEHOLDER}
    return entry


def files_of(tree: Path) -> list[Path]:
    """All files and links below `tree`, sorted."""
    found = []
    for folder, folders, names in os.walk(tree):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [Path(folder) / name for name in [*names, *links]]
    return sorted(found)


def write_info(package: Package) -> None:
    """Write the metadata below `tree`/info."""
    entries = [path_entry(package.tree, path) for path in files_of(package.tree)]
    index: dict[str, Any] = {
        "name": package.name,
        "version": package.version,
        "build": package.build,
        "build_number": 0,
        "depends": package.depends,
        "subdir": package.subdir,
        "license": package.license,
        **package.extra_index,
    }
    if package.noarch:
        index["noarch"] = package.noarch
    else:
        index |= {"arch": "x86_64", "platform": "linux"}
    documents: dict[str, Any] = {
        "index.json": index,
        "paths.json": {"paths": entries, "paths_version": 1},
    }
    if package.noarch == "python":
        documents["link.json"] = {
            "noarch": {"type": "python", "entry_points": package.entry_points},
            "package_metadata_version": 1,
        }
    info = package.tree / "info"
    info.mkdir()
    for name, document in documents.items():
        (info / name).write_text(json.dumps(document, indent=1, sort_keys=True))
    (info / "files").write_text("".join(f"{entry['_path']}\n" for entry in entries))


def compile_modules(package: Package) -> None:
    """Add byte code, so that a machine that makes an environment only has to link it.

    Byte code is not checked against the source's time, which no package keeps. Files that are no
    Python, such as templates, are passed over.
    """
    command = [
        package.interpreter,
        *("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
        package.tree,
    ]
    done = subprocess.run(command, capture_output=True, timeout=COMPILE_TIMEOUT, check=False)
    if done.returncode not in (0, 1):  # 1: a file is no Python
        done.check_returncode()


def write(package: Package, channel: Path) -> Path:
    """Write the package into the channel and return its path.

    Raises:
        ValueError: the prefix placeholder stands in a binary file.
    """
    compile_modules(package)
    write_info(package)
    folder = channel / package.subdir
    folder.mkdir(parents=True, exist_ok=True)
    names = [path.relative_to(package.tree).as_posix() for path in files_of(package.tree)]
    create(
        str(package.tree),
        names,
        package.file_name,
        str(folder),
        compression_level=COMPRESSION_LEVEL,
    )
    return folder / package.file_name
