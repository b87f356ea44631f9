# SPDX-License-Identifier: BSD-3-Clause
"""Checks of the tables that an administrator writes, in sentences she can act on.

Used on the control node before anything is touched, and by the hub when it loads the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from custom_pbs_spawner.profiles import LOCAL_PROFILE, MAX_CORES, OneLine, Profile
from custom_pbs_spawner.scheduler import Queue
from custom_pbs_spawner.units import format_memory, format_walltime

MAX_PROFILES = 100

Row = TypeVar("Row", bound=BaseModel)

_HINTS = {
    "key": "write lower-case letters, digits, - and _ (at most 31 characters)",
    "display_name": "write one line of at most 100 characters",
    "queue": "write the name of a queue as `qstat -Q` shows it",
    "cores": f"write a whole number from 1 to {MAX_CORES}, without quotation marks",
    "memory": "write a whole number and a unit, such as 800mb or 32gb",
    "walltime": 'write "HH:MM:SS" in quotation marks, such as "24:00:00"',
    "description": "write one line of at most 300 characters, or leave the field out",
    "name": "write letters, digits, ., - and _ (at most 64 characters)",
    "environment": "write environments/<file>.yml, relative to the repository",
}


class TableError(ValueError):
    """A table that cannot be used; `problems` has one sentence for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class Kernel(BaseModel):
    """One row of the kernel table."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    display_name: Annotated[OneLine, Field(min_length=1, max_length=100)]
    environment: Annotated[
        str, Field(pattern=r"\Aenvironments/(?:[A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*\.yml\z")
    ]


def profile_problems(
    rows: object,
    *,
    file: str,
    queues: Mapping[str, Queue] | None = None,
    node_cores: int | None = None,
) -> list[str]:
    """Say what is wrong with a profile table, one sentence for each problem.

    `file` is the name the sentences use. With `queues` (see `torque.parse_queues`) each row is
    also held against the queue it names, with `node_cores` against the largest node.
    """
    profiles, problems = _check_profiles(rows, file, queues)
    for number, profile in profiles.items():
        if node_cores is not None and profile.cores > node_cores:
            problems.append(
                f'{file}: row {number} ({profile.key}), field "cores": no node has '
                f"{profile.cores}; write at most {node_cores}."
            )
    return problems


def kernel_problems(rows: object, *, file: str) -> list[str]:
    """Say what is wrong with a kernel table, one sentence for each problem."""
    _, problems = _check_rows(rows, Kernel, file=file, table="kernels_table", key="name")
    return problems


def load_profiles(path: Path) -> list[Profile]:
    """Read `{"profiles": [rows]}`, the file that the hub is given. Raises TableError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError([f"{path}: the profile table cannot be read: {error}."]) from error
    if not isinstance(content, dict) or set(content) != {"profiles"}:
        raise TableError([f'{path}: write an object with the one key "profiles".'])
    profiles, problems = _check_profiles(content["profiles"], str(path), None)
    if problems:
        raise TableError(problems)
    return list(profiles.values())


def _check_profiles(
    rows: object, file: str, queues: Mapping[str, Queue] | None
) -> tuple[dict[int, Profile], list[str]]:
    profiles, problems = _check_rows(rows, Profile, file=file, table="jupyterhub_profiles")
    for number, profile in profiles.items():
        where = f"{file}: row {number} ({profile.key})"
        if profile.key == LOCAL_PROFILE:
            problems.append(
                f'{where}, field "key": {LOCAL_PROFILE!r} is the server on the hub machine; '
                "write another key."
            )
        if queues is not None:
            problems.extend(f"{where}, {text}" for text in _queue_problems(profile, queues))
    return profiles, problems


def _check_rows(
    rows: object, model: type[Row], *, file: str, table: str, key: str = "key"
) -> tuple[dict[int, Row], list[str]]:
    """The good rows by their number from 1, and a sentence for each problem of the others."""
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        return {}, [f"{file}: {table} is not a list; write one entry, beginning with -, a row."]
    if not rows:
        return {}, [f"{file}: {table} has no rows; write at least one."]
    if len(rows) > MAX_PROFILES:
        return {}, [f"{file}: {table} has {len(rows)} rows; write at most {MAX_PROFILES}."]
    good: dict[int, Row] = {}
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            problems.append(
                f"{file}: row {number} is not a set of fields; write {', '.join(_required(model))}."
            )
            continue
        plain = {str(field): _plain(value) for field, value in row.items()}
        name = plain.get(key)
        where = f"{file}: row {number}" + (f" ({name})" if _printable(name) else "")
        try:
            good[number] = model.model_validate(plain)
        except ValidationError as error:
            problems.extend(f"{where}, {text}" for text in _sentences(error, model))
        if isinstance(name, str) and seen.setdefault(name, number) != number:
            problems.append(
                f'{where}, field "{key}": {name!r} is already the {key} of row {seen[name]}; '
                "write another one."
            )
    return good, problems


def _printable(name: object) -> bool:
    return isinstance(name, str) and bool(name) and name.isprintable()


def _plain(value: Any) -> Any:
    """The built-in type of a value: Ansible hands over subclasses of str and int."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def _sentences(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        field = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            yield f'field "{field}" is not known; write one of {known}.'
        elif problem["type"] == "missing":
            yield f'field "{field}" is missing; {_HINTS[field]}.'
        elif problem["type"] == "value_error":
            yield f'field "{field}": {problem["ctx"]["error"]}; {_HINTS[field]}.'
        else:
            shown = repr(problem["input"])[:80]
            yield f'field "{field}": {shown} is not accepted; {_HINTS[field]}.'


def _queue_problems(profile: Profile, queues: Mapping[str, Queue]) -> Iterator[str]:
    queue = queues.get(profile.queue)
    if queue is None:
        yield (
            f'field "queue": the server has no queue {profile.queue!r}; '
            f"write one of {', '.join(sorted(queues))}."
        )
        return
    limits = (
        ("cores", profile.cores, queue.cores, str),
        ("memory", profile.memory, queue.memory, format_memory),
        ("walltime", profile.walltime, queue.walltime, format_walltime),
    )
    for field, value, limit, text in limits:
        if limit is not None and value > limit:
            yield (
                f'field "{field}": {text(value)} is above the limit of queue {queue.name}; '
                f"write at most {text(limit)}."
            )
