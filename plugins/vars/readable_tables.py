# SPDX-License-Identifier: BSD-3-Clause
"""Say which file of group_vars or host_vars is not YAML, and in which line.

Ansible reads these files before the first task, and of a mistake in one of them tells neither file
nor line. This plugin gives no variables; it reads the same files a moment earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.vars import BaseVarsPlugin

DOCUMENTATION = """
name: readable_tables
short_description: name file and line of a table that is not YAML
description: Gives no variables.
"""
REPOSITORY = Path(__file__).resolve().parents[2]
ENDINGS = {".yml", ".yaml", ".json"}


class VarsModule(BaseVarsPlugin):
    """The plugin; see the module's text."""

    # Loaded where ansible.cfg says so, before host_group_vars.
    REQUIRES_ENABLED = True

    def get_vars(
        self, loader: DataLoader, path: str, entities: Sequence[object], cache: bool = True
    ) -> dict[str, Any]:
        """No variables. Raises AnsibleParserError."""
        super().get_vars(loader, path, entities)
        check(loader, Path(path))
        return {}


@lru_cache
def check(loader: DataLoader, folder: Path) -> None:
    """Read all tables beside an inventory or a playbook. Raises AnsibleParserError."""
    for kind in ("group_vars", "host_vars"):
        for file in sorted(_files(folder / kind)):
            try:
                loader.load_from_file(str(file), cache="none")
            except AnsibleParserError as error:
                raise AnsibleParserError(_sentence(file, error)) from error


def _files(folder: Path) -> list[Path]:
    """The tables below a folder; links are followed, as Ansible follows them."""
    found = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            found += _files(entry)
        elif entry.suffix in ENDINGS:
            found.append(entry)
    return found


def _sentence(file: Path, error: AnsibleParserError) -> str:
    line = getattr(error.obj, "line_num", None)
    file = file.resolve()
    shown = file.relative_to(REPOSITORY) if file.is_relative_to(REPOSITORY) else file
    where = f"{shown}, line {line}" if line else str(shown)
    return f"{where}: this cannot be read as YAML: {error.message} Nothing was changed on any host."
