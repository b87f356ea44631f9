# SPDX-License-Identifier: BSD-3-Clause
"""From a row to environment, kernelspec and check; the files that a row names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROLE = Path(__file__).resolve().parents[3] / "roles" / "kernels"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location(
        "kernels_filter", ROLE / "filter_plugins" / "kernels.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kernels = _load()
DIGEST = "0123456789abcdef" * 4
ADDRESS = "https://mirror.example.org/conda-forge/linux-64"
LOCK = f"# made by hand\n@EXPLICIT\n{ADDRESS}/ipykernel-7.4.0-py_0.conda#{DIGEST}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with an environment file of each kind."""
    files = {
        "python.yml": "dependencies: [python, 'ipykernel>=7']\n",
        "r.yml": "dependencies: [r-base, r-irkernel=1.3]\n",
        "none.yml": "dependencies: [python]\n",
        "broken.yml": "dependencies: [\n",
        "words.yml": "words\n",
        "good.lock": LOCK,
    }
    (tmp_path / "environments").mkdir()
    for name, text in files.items():
        (tmp_path / "environments" / name).write_text(text)
    return tmp_path


def problems(repository: Path, **row: str) -> list[str]:
    return list(kernels.file_problems(row, str(repository)))


@pytest.mark.parametrize("name", ["python.yml", "r.yml"])
def test_a_file_with_a_kernel_is_fine(repository: Path, name: str) -> None:
    assert problems(repository, environment=f"environments/{name}") == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.yml", "has no kernel in it; add one of ipykernel, r-irkernel."),
        ("words.yml", "has no kernel in it; add one of ipykernel, r-irkernel."),
        ("broken.yml", "cannot be read as YAML: while parsing a flow"),
        ("missing.yml", "write the path of a file that is."),
    ],
)
def test_what_is_wrong_with_a_file_is_said(repository: Path, name: str, words: str) -> None:
    (problem,) = problems(repository, environment=f"environments/{name}")
    assert problem.startswith(f'field "environment": environments/{name} ')
    assert words in problem


@pytest.mark.parametrize("digest", [DIGEST, f"sha256:{DIGEST}"])
def test_a_lock_with_sha256_is_fine(repository: Path, digest: str) -> None:
    (repository / "environments/good.lock").write_text(LOCK.replace(DIGEST, digest))
    assert problems(repository, lock="environments/good.lock") == []


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (f"{ADDRESS}/zlib-1.3-0.conda", 4),
        (f"{ADDRESS}/zlib-1.3-0.conda#{DIGEST[:32]}", 4),  # an md5
        (f"{ADDRESS}/zlib-1.3-0.conda#{DIGEST} extra", 4),
        (f"zlib=1.3#{DIGEST}", 4),
    ],
)
def test_a_line_without_sha256_is_named(repository: Path, line: str, number: int) -> None:
    (repository / "environments/bad.lock").write_text(f"{LOCK}{line}\n")
    (problem,) = problems(repository, lock="environments/bad.lock")
    assert problem.startswith(f'field "lock": environments/bad.lock: line {number} is not the ')
    assert problem.endswith("write <address>#<64 hexadecimal digits>.")


def test_a_list_that_is_no_lock_is_refused(repository: Path) -> None:
    (repository / "environments/bad.lock").write_text(LOCK.replace("@EXPLICIT\n", ""))
    assert any(
        "no line @EXPLICIT" in words for words in problems(repository, lock="environments/bad.lock")
    )


TABLE = [
    {"name": "Z", "display_name": "Zeta", "environment": "environments/python.yml"},
    {"name": "L", "display_name": "Alpha", "lock": "environments/good.lock", "memory": "2gb"},
    {"name": "P", "display_name": "alpha", "prefix": "/opt/R 4", "language": "R", "modules": ["g"]},
    {
        "name": "C",
        "display_name": "Beta",
        "command": ["julia", "-e", "x", "{connection_file}"],
        "modules": ["a/1", "b"],
        "language": "julia",
    },
]


def test_only_what_is_built_gets_an_environment(repository: Path) -> None:
    rows = kernels.kernel_environments(TABLE, str(repository), "/root")
    assert [(row["name"], row["conda_file"]) for row in rows] == [
        ("Z", "environments/python.yml"),
        ("L", "environments/good.lock"),
    ]


def test_each_kernel_starts_through_the_wrapper(repository: Path) -> None:
    specs = kernels.kernel_specs(TABLE, str(repository), "/k", "/bin/start")
    argv = {spec["name"]: spec["content"]["argv"] for spec in specs}
    python = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert argv["Z"] == ["/bin/start", "--environment", "/k/Z/current", "--", *python]
    assert argv["L"] == ["/bin/start", "--environment", "/k/L/current", "--", *python]
    assert argv["P"][:7] == ["/bin/start", "--environment", "/opt/R 4", "--module", "g", "--", "R"]
    assert argv["C"][:6] == ["/bin/start", "--module", "a/1", "--module", "b", "--"]
    assert argv["C"][6:] == ["julia", "-e", "x", "{connection_file}"]
    assert [spec["content"]["language"] for spec in specs] == ["python", "python", "R", "julia"]
    assert specs[1]["content"]["metadata"]["memory"] == 2 * 1024**3
    assert not any("micromamba" in word for words in argv.values() for word in words)


def test_the_names_sort_in_the_order_of_the_table(repository: Path) -> None:
    """JupyterLab sorts by them, a blank before any letter, and its pages show no blank in front."""
    specs = kernels.kernel_specs(TABLE, str(repository), "/k", "/bin/start")
    shown = [spec["content"]["display_name"] for spec in specs]
    assert sorted(shown) == shown
    assert [name.strip() for name in shown] == ["Zeta", "Alpha", "alpha", "Beta"]
    assert min(["0 of her own", *shown]) in shown, "the table's come before others"


def test_what_a_host_must_have_is_found_by_the_wrapper() -> None:
    checks = [kernels.host_check(row) for row in TABLE]
    assert checks[:2] == [{}, {}]
    assert checks[2]["arguments"] == [
        *("--environment", "/opt/R 4", "--module", "g"),
        *("--", "Rscript", "-e", "library(IRkernel)"),
    ]
    assert checks[3]["arguments"] == ["--module", "a/1", "--module", "b", "--find", "julia"]
