# SPDX-License-Identifier: BSD-3-Clause
"""The acceptance notebook as it is shipped: valid, without results, and for this site's kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def notebook() -> Any:
    """The notebook, validated against its schema."""
    path = REPOSITORY / "notebooks" / "era5-mean.ipynb"
    content = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(content)
    return content


def test_it_holds_no_results(notebook: Any) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_its_kernel_is_in_the_table_and_opens_without_a_question(notebook: Any) -> None:
    # Jupyter lists kernelspecs in lower case and asks for a kernel where the name differs.
    table = yaml.safe_load((REPOSITORY / "group_vars/all/kernels.yml").read_text())["kernels_table"]
    shown = {row["name"].lower(): row["display_name"] for row in table}
    kernel = notebook.metadata.kernelspec
    assert shown[kernel.name] == kernel.display_name


def test_its_first_cell_is_the_parameters_and_names_the_rehearsal_file(notebook: Any) -> None:
    first = notebook.cells[0]
    assert (first.cell_type, first.id) == ("code", "parameters")
    parameters: dict[str, Any] = {}
    exec(first.source, parameters)  # noqa: S102 - our own file
    cluster = yaml.safe_load((REPOSITORY / "molecule/rehearsal/cluster.yml").read_text())
    assert parameters["DATA"] == f"{cluster['rehearsal_era5']}/VDS/ERA5_0.25.h5"
    assert (parameters["TIME_STEPS"], parameters["WORKERS"]) == (10, [1, 2, 4])
