# SPDX-License-Identifier: BSD-3-Clause
"""Filters of the role: values as Python source, and the files that make up a directory."""

from __future__ import annotations

import hashlib
import pprint
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

LINE_LENGTH = 100


def python_literal(value: object) -> str:
    """Write a value as a Python literal, for an assignment in jupyterhub_config.py.

    Takes what YAML yields: text, numbers, truth values, null, and lists and mappings of these.
    Raises AnsibleFilterError for anything else, an undefined variable included.
    """
    return pprint.pformat(_plain(value), width=LINE_LENGTH, sort_dicts=False)


def _plain(value: object) -> object:
    """The built-in form of a value: Ansible hands over tagged subclasses of the built-in types."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and isfinite(value):
        return float(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    raise AnsibleFilterError(
        f"{value!r} ({type(value).__name__}) has no Python literal; "
        "write text, a number, true, false, null, a list or a mapping."
    )


def tree_checksums(root: str, folders: Sequence[str]) -> dict[str, str]:
    """SHA-1 of each file below some folders of the control node, by path relative to `root`.

    Compiled Python files are left out: they are not part of what a role installs.
    Raises AnsibleFilterError for a folder that does not exist.
    """
    top = Path(root)
    for folder in folders:
        if not (top / folder).is_dir():
            raise AnsibleFilterError(f"{top / folder} is not a directory.")
    files = [path for folder in folders for path in (top / folder).rglob("*") if path.is_file()]
    return {
        path.relative_to(top).as_posix(): hashlib.sha1(
            path.read_bytes(), usedforsecurity=False
        ).hexdigest()
        for path in sorted(files)
        if "__pycache__" not in path.parts
    }


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"python_literal": python_literal, "tree_checksums": tree_checksums}
