# SPDX-License-Identifier: BSD-3-Clause
"""The filter that writes jupyterhub_config.py."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader


@pytest.fixture(scope="module")
def filters(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("roles/jupyterhub/filter_plugins/jupyterhub.py")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -7,
        1.5,
        "",
        "plain",
        'O\'Neill said "no"',
        'back\\slash "and" {{ braces }}',
        "line one\nline two\t\x00",
        "señora 🛰",
        [],
        ["a", 1, None, [True]],
        {"a": {"b": [1.0, "c"]}, 3: None},
        ["x" * 60] * 5,
    ],
)
def test_a_literal_reads_back_as_the_value(filters: ModuleType, value: object) -> None:
    assert ast.literal_eval(filters.python_literal(value)) == value


def test_values_read_from_yaml_lose_their_tags(filters: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "values.yml"
    file.write_text(
        "text: hello\nraw: !unsafe '{{ not a template }}'\nnumber: 3\nreal: 0.5\n"
        "truth: yes\nnothing: null\nlist: [a, {b: 1}]\n"
    )
    loaded: Any = DataLoader().load_from_file(str(file))
    assert type(loaded["text"]) is not str, (
        "the loader tags its values; else this test shows nothing"
    )
    assert ast.literal_eval(filters.python_literal(loaded)) == {
        "text": "hello",
        "raw": "{{ not a template }}",
        "number": 3,
        "real": 0.5,
        "truth": True,
        "nothing": None,
        "list": ["a", {"b": 1}],
    }


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, float("inf"), float("nan"), [print]])
def test_what_has_no_literal_is_refused(filters: ModuleType, value: object) -> None:
    with pytest.raises(AnsibleFilterError, match="has no Python literal"):
        filters.python_literal(value)


def test_a_text_cannot_leave_its_quotes(filters: ModuleType) -> None:
    hostile = "'); import os; os.system('true') #"
    tree = ast.parse(f"c.X.y = {filters.python_literal(hostile)}")
    assert len(tree.body) == 1
    assert isinstance(tree.body[0], ast.Assign)
    assert ast.literal_eval(tree.body[0].value) == hostile
