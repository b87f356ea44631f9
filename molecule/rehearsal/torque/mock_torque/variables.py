# SPDX-License-Identifier: BSD-3-Clause
"""``qsub -v``: from the option to Variable_List, with TORQUE's faults, and back in the job."""

from __future__ import annotations

import re
from collections.abc import Mapping

SPECIAL = re.compile(r"([,\"'\\\n])")
QUOTES = re.compile(r"([\"'])")
# A literal value about as long as this one overruns a buffer of qsub when another item follows.
LITERAL_BUFFER = 2048


class InvalidSyntaxError(Exception):
    """qsub says ``invalid -v syntax`` and exits with 3."""


class OverrunError(Exception):
    """qsub dies: ``*** stack smashing detected ***``."""


def escape(value: str) -> str:
    """A value taken from the environment, as it stands in Variable_List."""
    return SPECIAL.sub(r"\\\1", value)


def expand(option: str, environment: Mapping[str, str], *, old: bool = False) -> list[str]:
    """Items ``NAME=value`` for the argument of ``-v``.

    In 6.1.3 an unset name becomes ``name=`` when it is the last one; otherwise it is empty and
    the first character of the following item is lost. 4.2.10 (``old``) only makes it empty.
    Raises InvalidSyntaxError and OverrunError.
    """
    items: list[str] = []
    rest: str | None = option
    while rest is not None:
        item, rest = _next_item(rest.lstrip(), environment, old=old)
        items.append(item)
    return items


def _next_item(text: str, environment: Mapping[str, str], *, old: bool) -> tuple[str, str | None]:
    match = re.search("[,=]", text)
    name = text[: match.start()] if match else text
    tail = text[match.end() :] if match else None
    if match and not name:
        raise InvalidSyntaxError
    if match and match.group() == "=":
        return _literal(name, tail or "", environment, old=old)
    if name in environment:
        return f"{name}={escape(environment[name])}", tail
    if old:
        return f"{name}=", tail
    if tail is None:
        return "name=", None
    return f"{name}=", tail[1:]


def _literal(
    name: str, text: str, environment: Mapping[str, str], *, old: bool
) -> tuple[str, str | None]:
    value, comma, rest = text.partition(",")
    if comma and len(value) > LITERAL_BUFFER:
        raise OverrunError
    if value:
        shown = QUOTES.sub(r"\\\1", value).replace("\n", ",")
        return f"{name}={shown}", rest if comma else None
    if name in environment:
        return f"{name}={escape(environment[name])}", rest if comma else None
    if old and comma:
        raise InvalidSyntaxError
    return f"{name}=", rest if comma else None


def split_list(text: str) -> dict[str, str]:
    """The variables of a Variable_List, as the mom gives them to the job: later ones win."""
    variables = {}
    for item in re.findall(r"(?:\\.|[^,\\])+", text, re.DOTALL):
        name, equals, value = item.partition("=")
        if equals and name and "\0" not in item:
            variables[name] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
    return variables
