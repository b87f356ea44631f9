# SPDX-License-Identifier: BSD-3-Clause
"""Every row is documented, and has a test; every test has a row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.pitfalls.rows import DOCUMENT, documented

ROWS = (
    [f"S{n}" for n in range(1, 14)]
    + [f"R{n}" for n in range(1, 12)]
    + [f"T{n}" for n in range(1, 13)]
)
FOLDER = Path(__file__).parent


def rows_of(path: Path) -> dict[str, set[str]]:
    """The rows of each test in a file."""
    functions = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
    return {
        function.name: {
            decorator.args[0].value
            for decorator in function.decorator_list
            if isinstance(decorator, ast.Call)
            and ast.unparse(decorator.func) == "pytest.mark.row"
            and isinstance(decorator.args[0], ast.Constant)
            and isinstance(decorator.args[0].value, str)
        }
        for function in functions
        if function.name.startswith("test_")
    }


def marked() -> dict[str, set[str]]:
    """The rows that the tests of each file are about."""
    return {
        str(path.relative_to(FOLDER)): set().union(*rows_of(path).values())
        for path in FOLDER.rglob("test_*.py")
        if path != Path(__file__)
    }


def test_every_row_is_documented_with_a_verdict() -> None:
    assert set(ROWS) <= set(documented())


def test_every_documented_row_has_tests_where_the_document_says() -> None:
    files = marked()
    for line in DOCUMENT.read_text().splitlines():
        match = re.match(r"\| ([A-Z]\d+) \|", line)
        if match:
            named = re.findall(r"`([\w/]*test_\w+\.py)`", line)
            assert named, line
            for file in named:
                assert match[1] in files[file], f"{file} has no test of {match[1]}"


def test_every_test_is_about_a_documented_row() -> None:
    for file, rows in marked().items():
        assert rows <= set(documented()), file


def test_every_test_has_a_row() -> None:
    for path in FOLDER.rglob("test_*.py"):
        if path != Path(__file__):
            assert [name for name, rows in rows_of(path).items() if len(rows) != 1] == []
