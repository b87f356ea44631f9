# SPDX-License-Identifier: BSD-3-Clause
"""What administrators read when a table is wrong, word by word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from custom_pbs_spawner.scheduler import Queue
from custom_pbs_spawner.tables import (
    TableError,
    kernel_problems,
    load_profiles,
    profile_problems,
)

FILE = "group_vars/all/profiles.yml"
ROW: dict[str, Any] = {
    "key": "tintel",
    "display_name": "tintel - 1 core",
    "queue": "tintel",
    "cores": 1,
    "memory": "800mb",
    "walltime": "24:00:00",
}
QUEUES = {
    "tintel": Queue("tintel", walltime=86400, memory=8 * 1024**3, cores=4),
    "long": Queue("long", walltime=604800),
}


def problems(**changes: Any) -> list[str]:
    return profile_problems([{**ROW, **changes}], file=FILE)


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("memory", "800mb", 800 * 1024**2),
        ("memory", "32GB", 32 * 1024**3),
        ("memory", "1048576kb", 1024**3),
        ("memory", "1tb", 1024**4),
        ("walltime", "24:00:00", 86400),
        ("walltime", "168:00:00", 604800),
        ("walltime", "0:30:00", 1800),
        # What YAML 1.1 makes of 24:00:00 and 1:00:00 without quotation marks.
        ("walltime", 86400, 86400),
        ("walltime", 3600, 3600),
        ("description", "áñ “fine”", "áñ “fine”"),
    ],
)
def test_accepted_forms(tmp_path: Path, field: str, value: object, kept: object) -> None:
    table = tmp_path / "profiles.json"
    table.write_text(json.dumps({"profiles": [{**ROW, field: value}]}))
    assert getattr(load_profiles(table)[0], field) == kept


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"gpus": 1},
            'field "gpus" is not known; write one of '
            "key, display_name, queue, cores, memory, walltime, description.",
        ),
        (
            {"memory": 800},
            "field \"memory\": '800' is not an amount of memory; "
            "write a whole number and a unit, such as 800mb or 32gb.",
        ),
        (
            {"memory": "1.5gb"},
            "field \"memory\": '1.5gb' is not an amount of memory; "
            "write a whole number and a unit, such as 800mb or 32gb.",
        ),
        (
            {"memory": "1mb"},
            "field \"memory\": '1mb' is not between 64mb and 64tb; "
            "write a whole number and a unit, such as 800mb or 32gb.",
        ),
        (
            {"walltime": "24h"},
            "field \"walltime\": '24h' is not a time of the form HH:MM:SS; "
            'write "HH:MM:SS" in quotation marks, such as "24:00:00".',
        ),
        (
            {"walltime": 24},
            'field "walltime": 24 is not between 00:01:00 and 8784:00:00; '
            'write "HH:MM:SS" in quotation marks, such as "24:00:00".',
        ),
        (
            {"cores": "4"},
            "field \"cores\": '4' is not accepted; "
            "write a whole number from 1 to 1024, without quotation marks.",
        ),
        (
            {"cores": True},
            'field "cores": True is not accepted; '
            "write a whole number from 1 to 1024, without quotation marks.",
        ),
        (
            {"cores": 0},
            'field "cores": 0 is not accepted; '
            "write a whole number from 1 to 1024, without quotation marks.",
        ),
        (
            {"display_name": "two\nlines"},
            'field "display_name": contains a line break or another control character; '
            "write one line of at most 100 characters.",
        ),
        (
            {"description": "hidden\u202e"},
            'field "description": contains a line break or another control character; '
            "write one line of at most 300 characters, or leave the field out.",
        ),
        (
            {"queue": "tintel\n#PBS -q urgent"},
            "field \"queue\": 'tintel\\n#PBS -q urgent' is not accepted; "
            "write the name of a queue as `qstat -Q` shows it.",
        ),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str) -> None:
    assert problems(**changes) == [f"{FILE}: row 1 (tintel), {sentence}"]


def test_key_that_is_not_printable_is_not_printed() -> None:
    assert problems(key="a\nb") == [
        f"{FILE}: row 1, field \"key\": 'a\\nb' is not accepted; "
        "write lower-case letters, digits, - and _ (at most 31 characters)."
    ]


def test_missing_field() -> None:
    row = {name: value for name, value in ROW.items() if name != "queue"}
    assert profile_problems([row], file=FILE) == [
        f'{FILE}: row 1 (tintel), field "queue" is missing; '
        "write the name of a queue as `qstat -Q` shows it."
    ]


def test_duplicate_and_reserved_keys() -> None:
    rows = [ROW, {**ROW, "key": "local"}, ROW]
    assert profile_problems(rows, file=FILE) == [
        f"{FILE}: row 3 (tintel), field \"key\": 'tintel' is already the key of row 1; "
        "write another one.",
        f"{FILE}: row 2 (local), field \"key\": 'local' is the server on the hub machine; "
        "write another key.",
    ]


@pytest.mark.parametrize("rows", [None, {}, "text", 5])
def test_table_that_is_no_list(rows: object) -> None:
    assert profile_problems(rows, file=FILE) == [
        f"{FILE}: jupyterhub_profiles is not a list; write one entry, beginning with -, a row."
    ]


def test_table_without_rows() -> None:
    assert profile_problems([], file=FILE) == [
        f"{FILE}: jupyterhub_profiles has no rows; write at least one."
    ]


def test_row_that_is_no_row() -> None:
    assert profile_problems([ROW, "long"], file=FILE) == [
        f"{FILE}: row 2 is not a set of fields; "
        "write key, display_name, queue, cores, memory, walltime."
    ]


def test_against_the_queues_of_the_server() -> None:
    rows = [
        {**ROW, "cores": 5, "memory": "32gb", "walltime": "24:00:01"},
        {**ROW, "key": "gone", "queue": "gone"},
        {**ROW, "key": "long", "queue": "long", "memory": "64tb", "walltime": "168:00:00"},
    ]
    assert profile_problems(rows, file=FILE, queues=QUEUES) == [
        f'{FILE}: row 1 (tintel), field "cores": 5 is above the limit of queue tintel; '
        "write at most 4.",
        f'{FILE}: row 1 (tintel), field "memory": 32gb is above the limit of queue tintel; '
        "write at most 8gb.",
        f'{FILE}: row 1 (tintel), field "walltime": 24:00:01 is above the limit of queue tintel; '
        "write at most 24:00:00.",
        f"{FILE}: row 2 (gone), field \"queue\": the server has no queue 'gone'; "
        "write one of long, tintel.",
    ]


def test_kernels() -> None:
    good = {"name": "jh-3.11", "display_name": "Python", "environment": "environments/a.yml"}
    assert kernel_problems([good], file="kernels.yml") == []
    assert kernel_problems([{**good, "environment": "/etc/passwd"}, good], file="kernels.yml") == [
        "kernels.yml: row 1 (jh-3.11), field \"environment\": '/etc/passwd' is not accepted; "
        "write environments/<file>.yml, relative to the repository.",
        "kernels.yml: row 2 (jh-3.11), field \"name\": 'jh-3.11' is already the name of row 1; "
        "write another one.",
    ]


def test_subclasses_of_the_built_in_types() -> None:
    """Ansible hands over values of types of its own."""

    class Text(str):
        __slots__ = ()

    class Number(int):
        pass

    assert problems(key=Text("a"), cores=Number(2), memory=Text("1gb"), walltime=Number(3600)) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"profiles": [], "more": 1}', "{"])
def test_file_that_is_no_table(tmp_path: Path, text: str) -> None:
    table = tmp_path / "profiles.json"
    table.write_text(text)
    with pytest.raises(TableError) as error:
        load_profiles(table)
    assert len(error.value.problems) == 1
    assert str(error.value).startswith(f"{table}: ")
