# SPDX-License-Identifier: BSD-3-Clause
"""The rows of docs/pitfalls.md, and what a run found of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "pitfalls.md"
_ROW = re.compile(r"^\| ([A-Z]\d+) \|.*\| (fails|passes)\b[^|]*\|$", re.MULTILINE)
# The worst that a test of a row had to say counts for the row.
_WORST = ("broken", "fails", "passes")


def documented() -> dict[str, str]:
    """What the document says of each row on the stock classes: fails, or passes."""
    return dict(_ROW.findall(DOCUMENT.read_text()))


def verdicts(config: pytest.Config) -> dict[str, str]:
    """What this run found of each row: broken, fails, or passes."""
    reporter: pytest.TerminalReporter = config.pluginmanager.getplugin("terminalreporter")
    found: dict[str, str] = {}
    for report in (*reporter.getreports("passed"), *_failed(reporter)):
        for name, value in report.user_properties:
            if name == "row":
                row, verdict = value
                found[row] = min(found.get(row, "passes"), verdict, key=_WORST.index)
    return dict(sorted(found.items(), key=lambda pair: (pair[0][0], int(pair[0][1:]))))


def _failed(reporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    return [*reporter.getreports("failed"), *reporter.getreports("error")]
