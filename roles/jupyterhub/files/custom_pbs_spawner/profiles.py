# SPDX-License-Identifier: BSD-3-Clause
"""The model of one row of the profile table: the only definition of what a profile is."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from custom_pbs_spawner.units import (
    format_memory,
    format_walltime,
    parse_memory,
    parse_walltime,
)

LOCAL_PROFILE = "local"
"""Key of the server on the hub machine; no row of the table may take it."""

MIN_MEMORY, MAX_MEMORY = parse_memory("64mb"), parse_memory("64tb")
MIN_WALLTIME, MAX_WALLTIME = 60, 366 * 24 * 3600
MAX_CORES = 1024


def _one_line(text: str) -> str:
    if any(unicodedata.category(character).startswith("C") for character in text):
        raise ValueError("contains a line break or another control character")
    if text != text.strip():
        raise ValueError("begins or ends with a blank")
    return text


def parse_amount(value: Any) -> int:
    """Bytes in an amount of memory between the bounds of a table. Raises ValueError."""
    amount = parse_memory(str(value))
    if not MIN_MEMORY <= amount <= MAX_MEMORY:
        raise ValueError(
            f"{value!r} is not between {format_memory(MIN_MEMORY)} and {format_memory(MAX_MEMORY)}"
        )
    return amount


def _walltime(value: Any) -> int:
    # YAML 1.1 reads an unquoted 24:00:00 as the integer 86400.
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    else:
        seconds = parse_walltime(str(value))
    if not MIN_WALLTIME <= seconds <= MAX_WALLTIME:
        raise ValueError(
            f"{value!r} is not between {format_walltime(MIN_WALLTIME)} "
            f"and {format_walltime(MAX_WALLTIME)}"
        )
    return seconds


OneLine = Annotated[str, AfterValidator(_one_line)]


class Profile(BaseModel):
    """A kind of job that researchers may choose. Amounts are bytes and seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: Annotated[str, Field(pattern=r"\A[a-z0-9][a-z0-9_-]{0,30}\z")]
    display_name: Annotated[OneLine, Field(min_length=1, max_length=100)]
    queue: Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\z")]
    cores: Annotated[int, Field(ge=1, le=MAX_CORES)]
    memory: Annotated[int, BeforeValidator(parse_amount)]
    walltime: Annotated[int, BeforeValidator(_walltime)]
    description: Annotated[OneLine, Field(max_length=300)] = ""

    @property
    def memory_text(self) -> str:
        """Memory as Torque takes it, for example `800mb`."""
        return format_memory(self.memory)

    @property
    def walltime_text(self) -> str:
        """Walltime as Torque takes it, for example `24:00:00`."""
        return format_walltime(self.walltime)
