# SPDX-License-Identifier: BSD-3-Clause
"""From the table of kernels to environments and kernelspecs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

MANAGED_BY = "ganymede"
"""Marks the kernelspecs that belong to the role, in their metadata."""

KERNELS: dict[str, dict[str, Any]] = {
    "r-irkernel": {
        "language": "R",
        "argv": ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
        "check": ["Rscript -e library(IRkernel)"],
        "metadata": {},
    },
    "ipykernel": {
        "language": "python",
        "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "check": ["python -m ipykernel_launcher --version"],
        "metadata": {"debugger": True},
    },
}
"""How a kernel starts, by the package that makes an environment a kernel."""


def package_names(file: Path) -> set[str]:
    """Names of the packages that an environment file or an explicit lock asks for."""
    text = file.read_text()
    if "@EXPLICIT" in text.splitlines():
        files = [line.partition("#")[0].rsplit("/", 1)[-1] for line in text.splitlines()]
        return {name.rsplit("-", 2)[0] for name in files if name.count("-") > 1}
    document = yaml.safe_load(text)
    specs = document.get("dependencies", []) if isinstance(document, dict) else []
    return {re.split(r"[\s=<>!~\[]", spec.strip())[0] for spec in specs if isinstance(spec, str)}


def kernel(row: dict[str, Any], repository: str) -> dict[str, Any]:
    """How the row's kernel starts.

    Raises:
        AnsibleFilterError: there is no such file, or nothing in it is a kernel.
    """
    file = Path(repository) / row["environment"]
    if not file.is_file():
        raise AnsibleFilterError(
            f"kernels_table, kernel {row['name']}: environment: {row['environment']} is not in "
            f"{repository}; write the path of an environment file, relative to the repository."
        )
    names = package_names(file)
    for package, description in KERNELS.items():
        if package in names:
            return description
    raise AnsibleFilterError(
        f"kernels_table, kernel {row['name']}: {row['environment']} has no kernel in it; "
        f"add one of {', '.join(sorted(KERNELS))} to its dependencies."
    )


def kernel_environments(
    table: list[dict[str, Any]], repository: str, root: str
) -> list[dict[str, Any]]:
    """One environment for each kernel, checked by starting the kernel's program."""
    return [
        {
            "name": row["name"],
            "root": root,
            "conda_file": row["environment"],
            "check": kernel(row, repository)["check"],
        }
        for row in table
    ]


def kernel_specs(
    table: list[dict[str, Any]], repository: str, root: str, wrapper: str
) -> list[dict[str, Any]]:
    """Name and content of kernel.json for each kernel, started through the wrapper."""
    specs = []
    for row in table:
        description = kernel(row, repository)
        content = {
            "argv": [wrapper, f"{root}/{row['name']}/current", *description["argv"]],
            "display_name": row["display_name"],
            "language": description["language"],
            "interrupt_mode": "signal",
            "metadata": {**description["metadata"], "managed_by": MANAGED_BY},
        }
        specs.append({"name": row["name"], "content": content})
    return specs


class FilterModule:
    """The filters of the role."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names of the filters."""
        return {"kernel_environments": kernel_environments, "kernel_specs": kernel_specs}
