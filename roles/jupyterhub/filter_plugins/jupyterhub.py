# SPDX-License-Identifier: BSD-3-Clause
"""Filter of the role: values as Python source."""

from __future__ import annotations

import pprint
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
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


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"python_literal": python_literal}
