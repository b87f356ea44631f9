# SPDX-License-Identifier: BSD-3-Clause
"""From the table of kernels to environments and kernelspecs."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

MANAGED_BY = "ganymede"
"""Marks the kernelspecs that belong to the role, in their metadata."""

ANSWERS = (
    "from jupyter_client.manager import start_new_kernel; manager, client = start_new_kernel(); "
    "client.stop_channels(); manager.shutdown_kernel(now=True)"
)
"""Starts the Python kernel of an environment and waits for its answer."""

KERNELS: dict[str, dict[str, Any]] = {
    "r-irkernel": {
        "language": "R",
        "argv": ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
        "check": "Rscript -e library(IRkernel)",
        "metadata": {},
    },
    "ipykernel": {
        "language": "python",
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "check": f'python -c "{ANSWERS}"',
        "metadata": {"debugger": True},
    },
}
"""How a kernel starts, by the package that makes an environment a kernel."""

LOCKED = re.compile(r"(https?|file)://\S+\.(conda|tar\.bz2)#(sha256:)?[0-9a-f]{64}")
"""A line of an explicit lock: the address of a package and its sha256."""


def package_names(text: str) -> set[str]:
    """Names of the packages that an environment file or an explicit lock asks for.

    Raises:
        yaml.YAMLError: it is neither.
    """
    if "@EXPLICIT" in text.splitlines():
        files = [line.partition("#")[0].rsplit("/", 1)[-1] for line in text.splitlines()]
        return {name.rsplit("-", 2)[0] for name in files if name.count("-") > 1}
    document = yaml.safe_load(text)
    specs = document.get("dependencies") if isinstance(document, dict) else None
    words = [spec for spec in specs if isinstance(spec, str)] if isinstance(specs, list) else []
    return {re.split(r"[\s=<>!~\[]", spec.strip())[0] for spec in words}


def lock_problems(text: str) -> Iterator[str]:
    """Say what of an explicit lock cannot be trusted or read."""
    lines = [line.strip() for line in text.splitlines()]
    if "@EXPLICIT" not in lines:
        yield "has no line @EXPLICIT; write the output of playbooks/lock.yml into it."
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith(("#", "@")) and not LOCKED.fullmatch(line):
            yield (
                f"line {number} is not the address of a package with its sha256: {line[:120]!r}; "
                "write <address>#<64 hexadecimal digits>."
            )


def file_problems(row: Mapping[str, Any], repository: str) -> Iterator[str]:
    """Say what is wrong with the file that a row names, and what to write."""
    field = "lock" if "lock" in row else "environment"
    name = row.get(field)
    if name is None:
        return
    file = Path(repository) / name
    said = f'field "{field}": {name}'
    if not file.is_file():
        yield f"{said} is not in {repository}; write the path of a file that is."
        return
    text = file.read_text(encoding="utf-8")
    try:
        names = package_names(text)
    except yaml.YAMLError as error:
        yield (
            f"{said} cannot be read as YAML: {' '.join(str(error).split())}; below dependencies: "
            "write one package a line, each beginning with -."
        )
        return
    if field == "lock":
        yield from (f"{said}: {problem}" for problem in lock_problems(text))
    if not names & set(KERNELS):
        yield f"{said} has no kernel in it; add one of {', '.join(sorted(KERNELS))}."


def kernel(row: Mapping[str, Any], repository: str) -> dict[str, Any]:
    """How the row's kernel starts.

    Raises:
        AnsibleFilterError: its file cannot be used.
    """
    if "command" in row:
        return {"language": row["language"], "argv": list(row["command"]), "metadata": {}}
    if "prefix" in row:
        language = row.get("language", "python")
        return next(found for found in KERNELS.values() if found["language"] == language)
    for problem in file_problems(row, repository):
        raise AnsibleFilterError(f"kernels_table, kernel {row['name']}: {problem}")
    file = Path(repository) / (row.get("lock") or row["environment"])
    names = package_names(file.read_text(encoding="utf-8"))
    return next(found for package, found in KERNELS.items() if package in names)


def kernel_environments(
    table: list[dict[str, Any]], repository: str, root: str
) -> list[dict[str, Any]]:
    """One environment for each kernel that is built, checked by starting the kernel."""
    return [
        {
            "name": row["name"],
            "root": root,
            "conda_file": row.get("lock") or row["environment"],
            "check": [kernel(row, repository)["check"]],
        }
        for row in table
        if "lock" in row or "environment" in row
    ]


def activation(row: Mapping[str, Any], root: str) -> list[str]:
    """What the wrapper makes ready before the kernel starts."""
    prefix = row.get("prefix")
    if "lock" in row or "environment" in row:
        prefix = f"{root}/{row['name']}/current"
    options = ["--environment", prefix] if prefix else []
    for module in row.get("modules", []):
        options += ["--module", module]
    return [*options, "--"]


def memory_bytes(amount: str) -> int:
    """Bytes in an amount such as `2gb`, which the check of the tables has accepted."""
    unit = amount.lower().lstrip("0123456789")
    size: int = int(amount[: -len(unit)]) * 1024 ** ["b", "kb", "mb", "gb", "tb"].index(unit)
    return size


def kernel_specs(
    table: list[dict[str, Any]], repository: str, root: str, wrapper: str
) -> list[dict[str, Any]]:
    """Name and content of kernel.json for each kernel, started through the wrapper.

    JupyterLab sorts kernels by their display names and knows no other order. Blanks in front, which
    no page shows, put them in the order of the table, before those of the researcher's own.
    """
    specs = []
    for number, row in enumerate(table):
        description = kernel(row, repository)
        metadata = {**description["metadata"], "managed_by": MANAGED_BY}
        if "memory" in row:
            metadata["memory"] = memory_bytes(row["memory"])
        content = {
            "argv": [wrapper, *activation(row, root), *description["argv"]],
            "display_name": " " * (len(table) - number) + row["display_name"],
            "language": description["language"],
            "interrupt_mode": "signal",
            "metadata": metadata,
        }
        specs.append({"name": row["name"], "content": content})
    return specs


def kernel_files(specs: list[dict[str, Any]], logo: str) -> dict[str, str]:
    """The files of all kernelspecs, by path: kernel.json, and `logo` with the first two letters."""
    files = {}
    for spec in specs:
        name, content = spec["name"], spec["content"]
        letters = html.escape(content["display_name"].strip()[:2])
        files[f"{name}/kernel.json"] = json.dumps(content, indent=4, sort_keys=True) + "\n"
        files[f"{name}/logo-svg.svg"] = Template(logo).substitute(letters=letters)
    return files


def host_check(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a kernel that is there already needs on a host; empty for one that is built.

    `arguments` are those of start-kernel, `field` is the table's, `advice` what to write there.
    """
    if "command" in row:
        return {
            "field": "command",
            "arguments": [*activation(row, "")[:-1], "--find", row["command"][0]],
            "advice": "write the full path of the program, or the modules that bring it",
        }
    if "prefix" in row:
        return {
            "field": "prefix",
            "arguments": [*activation(row, ""), *CHECKS[row.get("language", "python")]],
            "advice": "install what is missing, or write the path of another environment",
        }
    return {}


CHECKS = {
    "python": ["python", "-c", "import ipykernel"],
    "R": ["Rscript", "-e", "library(IRkernel)"],
}
"""What must run in a prefix that is to be a kernel, by language."""


class FilterModule:
    """The filters of the role."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names of the filters."""
        return {
            "kernel_environments": kernel_environments,
            "kernel_files": kernel_files,
            "kernel_specs": kernel_specs,
        }
