# SPDX-License-Identifier: BSD-3-Clause
"""Job identifiers on the command line: ``12``, ``12.encina``, ``12.encina@server``."""

from __future__ import annotations

import re

_ID = re.compile(r"(\d{1,12}(?:\[\d*\])?)(?:\.([\w.-]+))?(?:@([\w.-]+))?", re.ASCII)


class IllegalError(Exception):
    """``illegally formed job identifier``."""


def job_id(text: str, server: str) -> str:
    """The full id, with the default server's name where none is given; raises IllegalError."""
    match = _ID.fullmatch(text)
    if not match:
        raise IllegalError(text)
    number, name, _ = match.groups()
    return f"{number}.{name or server}"
