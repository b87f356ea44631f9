# SPDX-License-Identifier: BSD-3-Clause
"""Values of ``-l``: what the server accepts, how it shows them, how it compares them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mock_torque import errors
from mock_torque.errors import PbsError

TIMES = {"walltime", "cput", "pcput"}
SIZES = {"mem", "vmem", "pmem", "pvmem", "file"}
INTEGERS = {"ncpus", "procs", "nodect", "nice"}
STRINGS = {"nodes", "neednodes", "select", "arch", "host", "opsys", "software", "feature", "other"}

UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
WORD_BYTES = 8
MAXIMUM_SECONDS_DIGITS = 18

_TIME = re.compile(r"\d+(:\d+){0,3}")
_SIZE = re.compile(r"(-?\d+)([kmgtp]?)([bw]?)", re.IGNORECASE)
_INTEGER = re.compile(r"-?\d+")


def seconds(text: str) -> int:
    """Seconds of ``[[dd:]hh:]mm:ss`` or of a number; raises ValueError."""
    if not _TIME.fullmatch(text) or len(text) > MAXIMUM_SECONDS_DIGITS:
        raise ValueError(text)
    total = 0
    for factor, part in zip((1, 60, 3600, 86400), reversed(text.split(":")), strict=False):
        total += factor * int(part)
    return total


def time_text(total: int) -> str:
    """``hh:mm:ss`` with as many digits for the hours as it takes."""
    return f"{total // 3600:02d}:{total % 3600 // 60:02d}:{total % 60:02d}"


def size_bytes(text: str) -> int:
    """Bytes of ``100mb``, ``8gb``, ``10`` ...; raises ValueError."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(text)
    number, unit, word = match.groups()
    factor = WORD_BYTES if word.lower() == "w" else 1
    return int(number) * factor * (1 << 10 * UNITS[unit.lower()])


def _size_text(text: str) -> str:
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(text)
    number, unit, word = match.groups()
    return f"{int(number)}{unit.lower()}{(word or 'b').lower()}"


def normalise(name: str, text: str) -> str:
    """The value as the server stores it.

    Raises PbsError for an unknown resource (189) and for a malformed value (168; a malformed
    ppn or a node count of 0 is 27).
    """
    try:
        if name in TIMES:
            return time_text(seconds(text))
        if name in SIZES:
            return _size_text(text)
        if name in INTEGERS:
            return str(_integer(text))
        if name == "nodes":
            node_requests(text)
            return text
    except ValueError:
        raise PbsError(errors.BAD_VALUE, what=f"Resource_List.{name}") from None
    if name in STRINGS:
        return text
    raise PbsError(errors.UNKNOWN_RESOURCE, what=f"Resource_List.{name}")


def amount(name: str, text: str) -> int | None:
    """A number by which two values of the resource compare, None where they do not."""
    if name in TIMES:
        return seconds(text)
    if name in SIZES:
        return size_bytes(text)
    if name in INTEGERS:
        return int(text)
    return None


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(text)


@dataclass(frozen=True)
class NodeRequest:
    """One ``+`` part of ``-l nodes``: ``count`` nodes, or the node called ``name``."""

    count: int
    name: str | None
    ppn: int
    properties: tuple[str, ...]


def node_requests(text: str) -> list[NodeRequest]:
    """Parse ``-l nodes``; raises ValueError (168) or PbsError (27)."""
    return [_node_request(part) for part in text.split("+")]


def _node_request(text: str) -> NodeRequest:
    head, *rest = text.split(":")
    if head.startswith("-") or re.fullmatch(r"\d+\D.*", head):
        raise ValueError(text)
    ppn = 1
    properties = []
    for part in rest:
        if part.startswith("ppn="):
            ppn = _positive(part.removeprefix("ppn="))
        else:
            properties.append(part)
    if head.isdigit():
        return NodeRequest(_positive(head), None, ppn, tuple(properties))
    # A word is a node's name or, as in TORQUE, a property of any node.
    return NodeRequest(1, head, ppn, tuple(properties))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise PbsError(errors.BAD_SYNTAX, msg="Invalid Syntax")
    return int(text)
