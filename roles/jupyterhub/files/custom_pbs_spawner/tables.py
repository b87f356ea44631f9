# SPDX-License-Identifier: BSD-3-Clause
"""Checks of the tables that an administrator writes, in sentences she can act on.

Used on the control node before anything is touched, and by the hub when it loads the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from custom_pbs_spawner.kernels import CONNECTION_FILE, SOURCES, Kernel
from custom_pbs_spawner.profiles import LOCAL_PROFILE, MAX_CORES, Profile
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
    "lock": "write environments/<file>.lock, relative to the repository",
    "prefix": "write the absolute path of an environment that exists, such as /opt/R/4.3",
    "command": f'write a list of words, such as [R, -e, "IRkernel::main()", "{CONNECTION_FILE}"]',
    "modules": "write a list of names as `module avail` shows them, such as [R/4.3]",
    "language": "write the language as notebooks name it, such as python, R or julia",
    "profiles": "write a list of keys of jupyterhub_profiles, or leave the field out",
}


class TableError(ValueError):
    """A table that cannot be used; `problems` has one sentence for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


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


def kernel_problems(
    rows: object, *, file: str, profiles: Sequence[Profile] | None = None
) -> list[str]:
    """Say what is wrong with a kernel table, one sentence for each problem.

    With `profiles` each row is also held against the profiles that it names.
    """
    kernels, problems = _check_rows(rows, Kernel, file=file, table="kernels_table", key="name")
    for number, kernel in kernels.items():
        where = f"{file}: row {number} ({kernel.name})"
        problems.extend(f"{where}, {text}" for text in _kernel_problems(kernel, profiles))
    return problems


def kernel_warnings(rows: object, *, file: str, profiles: Sequence[Profile]) -> Iterator[str]:
    """Say which kernels have no profile that is large enough for them."""
    for number, kernel in good_kernels(rows).items():
        if profiles and all(kernel.too_small(profile) for profile in profiles):
            most = max(profiles, key=lambda profile: profile.memory)
            yield (
                f'{file}: row {number} ({kernel.name}), field "memory": no profile has '
                f"{format_memory(kernel.memory or 0)}; the largest has {most.memory_text}."
            )


def good_kernels(rows: object) -> dict[int, Kernel]:
    """The rows of a kernel table that can be used, by their number from 1."""
    kernels, _ = _check_rows(rows, Kernel, file="", table="", key="name")
    return {number: row for number, row in kernels.items() if not [*_kernel_problems(row, None)]}


def good_profiles(rows: object) -> list[Profile]:
    """The rows of a profile table that can be used."""
    return list(_check_profiles(rows, "", None)[0].values())


def load_kernels(path: Path) -> list[Kernel]:
    """Read `{"kernels": [rows]}`, the file that the hub is given. Raises TableError."""
    rows = _load(path, "kernels")
    if rows == []:
        return []
    problems = kernel_problems(rows, file=str(path))
    if problems:
        raise TableError(problems)
    return list(good_kernels(rows).values())


def load_profiles(path: Path) -> list[Profile]:
    """Read `{"profiles": [rows]}`, the file that the hub is given. Raises TableError."""
    profiles, problems = _check_profiles(_load(path, "profiles"), str(path), None)
    if problems:
        raise TableError(problems)
    return list(profiles.values())


def _load(path: Path, key: str) -> object:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError([f"{path}: the table of {key} cannot be read: {error}."]) from error
    if not isinstance(content, dict) or set(content) != {key}:
        raise TableError([f'{path}: write an object with the one key "{key}".'])
    return content[key]


def _kernel_problems(kernel: Kernel, profiles: Sequence[Profile] | None) -> Iterator[str]:
    sources = kernel.sources
    if not sources:
        yield (
            f'field "environment" is missing; {_HINTS["environment"]}, '
            f"or one of {', '.join(SOURCES[1:])} in its place."
        )
        return
    if len(sources) > 1:
        yield (
            f'field "{sources[1]}": the kernel has its {sources[0]} already; write one of the two.'
        )
        return
    if kernel.modules and sources[0] not in {"prefix", "command"}:
        yield f'field "modules" is not for {sources[0]}; take it out.'
    if kernel.language and sources[0] in {"environment", "lock"}:
        yield f'field "language" is not for {sources[0]}, whose packages say it; take it out.'
    if sources[0] == "command" and kernel.language is None:
        yield f'field "language" is missing; {_HINTS["language"]}.'
    if sources[0] == "prefix" and kernel.language not in {None, "python", "R"}:
        yield (
            f'field "language": {kernel.language!r} is not known in a prefix; '
            "write python or R, or a command in place of the prefix."
        )
    if profiles:
        yield from _fitting_problems(kernel, profiles)


def _fitting_problems(kernel: Kernel, profiles: Sequence[Profile]) -> Iterator[str]:
    by_key = {profile.key: profile for profile in profiles}
    unknown = [key for key in kernel.profiles or [] if key not in {*by_key, LOCAL_PROFILE}]
    for key in unknown:
        yield (
            f'field "profiles": there is no profile {key!r}; '
            f"write one of {', '.join(by_key)}, {LOCAL_PROFILE}."
        )
    small = [
        key for key in kernel.profiles or [] if key in by_key and kernel.too_small(by_key[key])
    ]
    for key in small:
        yield (
            f'field "profiles": {key} has {by_key[key].memory_text}, less than "memory" asks for; '
            "take it out, or write less memory."
        )


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
        # Jupyter knows kernels by lower-case names.
        first = seen.setdefault(name.lower(), number) if isinstance(name, str) else number
        if first != number:
            problems.append(
                f'{where}, field "{key}": {name!r} is already the {key} of row {first}; '
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
    return [_plain(item) for item in value] if isinstance(value, list) else value


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
