# SPDX-License-Identifier: BSD-3-Clause
"""The table of kernels: what is accepted, what administrators read, what researchers read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from custom_pbs_spawner.form import menu_html
from custom_pbs_spawner.profiles import Profile
from custom_pbs_spawner.tables import (
    TableError,
    good_kernels,
    good_profiles,
    kernel_problems,
    kernel_warnings,
    load_kernels,
)

FILE = "group_vars/all/kernels.yml"
START = {"name": "k", "display_name": "K"}
COMMAND = {"command": ["R", "--args", "{connection_file}"], "language": "R"}
ROW: dict[str, Any] = {**START, "environment": "environments/k.yml"}
PROFILES = [
    {"key": "tintel", "display_name": "T", "queue": "tintel", "cores": 1, "memory": "800mb"},
    {"key": "long", "display_name": "L", "queue": "long", "cores": 1, "memory": "7gb"},
]


def profiles() -> list[Profile]:
    return good_profiles([{**row, "walltime": "1:00:00"} for row in PROFILES])


def problems(row: dict[str, Any]) -> list[str]:
    return kernel_problems([row], file=FILE, profiles=profiles())


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        {**START, "environment": "environments/site/k.yml"},
        {**START, "lock": "environments/k.lock"},
        {**START, "prefix": "/software/conda/envs/k"},
        {**START, "prefix": "/opt/R/4.3", "language": "R", "modules": ["gcc/12", "R/4.3"]},
        {**START, **COMMAND},
        {**START, **COMMAND, "modules": ["R/4.3"], "memory": "2gb", "profiles": ["long", "local"]},
    ],
)
def test_accepted_rows(row: dict[str, Any]) -> None:
    assert problems(row) == []


SOURCE = "write environments/<file>.yml, relative to the repository"
WORDS = 'write a list of words, such as [R, -e, "IRkernel::main()", "{connection_file}"]'
LANGUAGE = "write the language as notebooks name it, such as python, R or julia"
MODULES = "write a list of names as `module avail` shows them, such as [R/4.3]"
PREFIX = "write the absolute path of an environment that exists, such as /opt/R/4.3"
KEYS = "write a list of keys of jupyterhub_profiles, or leave the field out"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            START,
            f'field "environment" is missing; {SOURCE}, '
            "or one of lock, prefix, command in its place.",
        ),
        (
            {**ROW, "prefix": "/opt/R"},
            'field "prefix": the kernel has its environment already; write one of the two.',
        ),
        (
            {**ROW, "python": "3.11"},
            'field "python" is not known; write one of name, display_name, environment, lock, '
            "prefix, command, modules, language, profiles, memory.",
        ),
        (
            {**ROW, "environment": "/etc/passwd"},
            f"field \"environment\": '/etc/passwd' is not accepted; {SOURCE}.",
        ),
        (
            {**ROW, "environment": "environments/../group_vars/a.yml"},
            f"field \"environment\": 'environments/../group_vars/a.yml' is not accepted; {SOURCE}.",
        ),
        (
            {**START, "lock": "environments/k.yml"},
            "field \"lock\": 'environments/k.yml' is not accepted; "
            "write environments/<file>.lock, relative to the repository.",
        ),
        (
            {**START, "prefix": "envs/k"},
            f"field \"prefix\": 'envs/k' is not an absolute path; {PREFIX}.",
        ),
        (
            {**START, "prefix": "/opt/../root"},
            f"field \"prefix\": '/opt/../root' is not an absolute path; {PREFIX}.",
        ),
        (
            {**START, "prefix": "/opt/julia", "language": "julia"},
            "field \"language\": 'julia' is not known in a prefix; "
            "write python or R, or a command in place of the prefix.",
        ),
        (
            {**START, **COMMAND, "command": "R --args {connection_file}"},
            f"field \"command\": 'R --args {{connection_file}}' is not accepted; {WORDS}.",
        ),
        (
            {**START, **COMMAND, "command": ["R", "--args"]},
            f'field "command": no word after the first has {{connection_file}}; {WORDS}.',
        ),
        (
            {**START, **COMMAND, "command": ["R", 3, "{connection_file}"]},
            f'field "command": 3 is not accepted; {WORDS}.',
        ),
        (
            {**START, **COMMAND, "command": ["R", "a\nb", "{connection_file}"]},
            f'field "command": contains a line break or another control character; {WORDS}.',
        ),
        (
            {**START, "command": COMMAND["command"]},
            f'field "language" is missing; {LANGUAGE}.',
        ),
        (
            {**ROW, "language": "python"},
            'field "language" is not for environment, whose packages say it; take it out.',
        ),
        ({**ROW, "modules": ["R"]}, 'field "modules" is not for environment; take it out.'),
        (
            {**START, **COMMAND, "modules": ["R; rm -rf"]},
            f"field \"modules\": 'R; rm -rf' is not accepted; {MODULES}.",
        ),
        (
            {**START, **COMMAND, "modules": ["-f"]},
            f"field \"modules\": '-f' is not accepted; {MODULES}.",
        ),
        (
            {**START, **COMMAND, "modules": ["R", "R"]},
            f'field "modules": one is named twice; {MODULES}.',
        ),
        ({**ROW, "profiles": []}, f'field "profiles": [] is not accepted; {KEYS}.'),
        (
            {**ROW, "profiles": ["long", "huge"]},
            "field \"profiles\": there is no profile 'huge'; write one of tintel, long, local.",
        ),
        (
            {**ROW, "profiles": ["tintel", "long"], "memory": "2gb"},
            'field "profiles": tintel has 800mb, less than "memory" asks for; '
            "take it out, or write less memory.",
        ),
        (
            {**ROW, "memory": 2},
            "field \"memory\": '2' is not an amount of memory; "
            "write a whole number and a unit, such as 800mb or 32gb.",
        ),
        (
            {**ROW, "name": "a/b"},
            "field \"name\": 'a/b' is not accepted; "
            "write letters, digits, ., - and _ (at most 64 characters).",
        ),
    ],
)
def test_sentences(row: dict[str, Any], sentence: str) -> None:
    (found,) = problems(row)
    assert found == f"{FILE}: row 1 ({row['name']}), {sentence}"


def test_names_that_jupyter_takes_for_the_same_are_refused() -> None:
    """Jupyter knows kernels by lower-case names."""
    assert kernel_problems([ROW, {**ROW, "name": "K"}], file=FILE) == [
        f"{FILE}: row 2 (K), field \"name\": 'K' is already the name of row 1; write another one."
    ]


def test_a_kernel_that_fits_no_profile_is_a_warning() -> None:
    rows = [{**ROW, "memory": "7gb"}, {**ROW, "name": "big", "memory": "64gb"}]
    assert kernel_problems(rows, file=FILE, profiles=profiles()) == []
    assert list(kernel_warnings(rows, file=FILE, profiles=profiles())) == [
        f'{FILE}: row 2 (big), field "memory": no profile has 64gb; the largest has 7gb.'
    ]


def test_only_good_rows_are_handed_on() -> None:
    rows = [{**START, "prefix": "x"}, ROW, {**START, "name": "m", **COMMAND, "prefix": "/opt"}]
    assert list(good_kernels(rows)) == [2]


def test_the_hubs_file(tmp_path: Path) -> None:
    table = tmp_path / "kernels.json"
    table.write_text(json.dumps({"kernels": [{**ROW, "memory": "2gb"}]}))
    (kernel,) = load_kernels(table)
    assert kernel.memory == 2 * 1024**3
    table.write_text('{"kernels": []}')
    assert load_kernels(table) == []
    for text in ("{", "[]", '{"profiles": []}', '{"kernels": [{}]}'):
        table.write_text(text)
        with pytest.raises(TableError, match=str(table)):
            load_kernels(table)


def menu(language: str, *rows: dict[str, Any]) -> dict[str, list[str]]:
    """What the menu says of kernels, by the key of the profile."""
    html = menu_html(
        profiles(),
        kernels=list(good_kernels(list(rows)).values()),
        local_name="here",
        language=language,
        selected="long",
    )
    cards = html.split('name="profile" value="')[1:]
    return {
        card.split('"')[0]: [
            part.split("<")[0] for part in card.split('<span class="profile-kernels">')[1:]
        ]
        for card in cards
    }


def test_the_menu_says_which_profile_is_too_small_for_which_kernel() -> None:
    heavy = {**ROW, "display_name": "R <climate4R>", "memory": "3gb"}
    kept = {**ROW, "name": "kept", "display_name": "Kept", "profiles": ["long"]}
    small = "Too small for the kernel R &lt;climate4R&gt;: it needs 3 GB of memory."
    assert menu("en", heavy, kept, {**ROW, "name": "free"}) == {
        "tintel": [small, "Not meant for the kernel Kept."],
        "long": [],
        "local": ["Not meant for the kernel Kept."],
    }
    assert menu("es", heavy)["tintel"] == [
        "Demasiado pequeño para el núcleo de cuaderno R &lt;climate4R&gt;: "
        "necesita 3 GB de memoria."
    ]
