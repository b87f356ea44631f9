# SPDX-License-Identifier: BSD-3-Clause
"""Amounts of memory and time, as administrators write them and as Torque prints them."""

from __future__ import annotations

import re

_UNITS = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}
_MEMORY = re.compile(r"([0-9]{1,15})(b|kb|mb|gb|tb)", re.IGNORECASE | re.ASCII)
_CLOCK = re.compile(r"([0-9]{1,5}):([0-5][0-9]):([0-5][0-9])", re.ASCII)


def parse_memory(text: str) -> int:
    """Bytes in an amount such as `800mb` or `32gb`.

    Torque would also take a bare number (bytes) and fractions are refused by it; neither is
    accepted here. Raises ValueError.
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory")
    return int(match[1]) * _UNITS[match[2].lower()]


def format_memory(amount: int) -> str:
    """Bytes in the largest unit that divides them, in the form that `qsub -l mem=` takes."""
    for unit in ("tb", "gb", "mb", "kb"):
        if amount and amount % _UNITS[unit] == 0:
            return f"{amount // _UNITS[unit]}{unit}"
    return f"{amount}b"


def parse_walltime(text: str) -> int:
    """Seconds in `HH:MM:SS`; hours may exceed 24. Raises ValueError."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time of the form HH:MM:SS")
    hours, minutes, seconds = (int(part) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def format_walltime(seconds: int) -> str:
    """Seconds as `HH:MM:SS`, the form that `qsub -l walltime=` takes."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest:02d}"
