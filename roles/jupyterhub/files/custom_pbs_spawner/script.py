# SPDX-License-Identifier: BSD-3-Clause
"""The batch script: a Jinja template of its own, which a site can replace."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_DIRECTIVE = re.compile(r"[A-Za-z0-9/][A-Za-z0-9/._:=$@+-]*", re.ASCII)


class ScriptError(ValueError):
    """A value cannot be put into the script."""


def quote(value: object) -> str:
    """One word for bash, on one line whatever the value holds.

    Values with control characters take the form `$'...'`, so that none of them can begin a
    line of the script (and a line may be a `#PBS` directive). Raises ScriptError for a NUL,
    which no environment can hold.
    """
    text = str(value)
    if "\0" in text:
        raise ScriptError("a value for the job contains a NUL character")
    if not _UNPRINTABLE.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", escaped) + "'"


def directive(value: object) -> str:
    """A value of a `#PBS` line, where nothing is quoted. Raises ScriptError if it needs to be."""
    text = str(value)
    if not _DIRECTIVE.fullmatch(text):
        raise ScriptError(f"{text!r} cannot stand in a #PBS line")
    return text


def render(template: Path, values: Mapping[str, object], exports: Mapping[str, str]) -> str:
    """Render the batch script.

    `exports` are the variables of the job, `values` everything else the template may name.
    Raises OSError, jinja2.TemplateError, ScriptError.
    """
    bad = [name for name in exports if not _NAME.fullmatch(name)]
    if bad:
        raise ScriptError(f"{bad[0]!r} is not the name of a variable")
    compiled = _compile(template, template.stat().st_mtime_ns)
    return compiled.render(**values, exports=dict(exports))


@lru_cache(maxsize=2)
def _compile(template: Path, _changed: int) -> Template:
    """The template, read again when the file changes."""
    environment = Environment(  # noqa: S701 - a shell script: quote() is its escape
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    environment.filters.update(quote=quote, directive=directive)
    return environment.from_string(template.read_text(encoding="utf-8"))
