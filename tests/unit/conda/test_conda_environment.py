# SPDX-License-Identifier: BSD-3-Clause
"""The module conda_environments: what its hash covers, and the commands that it runs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.conda.environments import ROLE, load_file

LOCK = """\
# a comment
numpy==2.4.6 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via xarray
xarray==2026.9.0 --hash=sha256:cc  # another
"""


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The module's file, which is in no package."""
    return load_file(ROLE / "library" / "conda_environments.py")


def options(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "hub",
        "root": "/opt/jupyterhub/envs",
        "conda": ["python=3.11", "pip"],
        "explicit": [],
        "channels": ["conda-forge"],
        "python_lock": LOCK,
        "check": [],
        "micromamba": "/opt/micromamba/bin/micromamba",
        "cache_root": "/opt/micromamba",
        "wheels": "",
        "proxy": "",
        "ca_bundle": "",
        "timeout": 60,
    }
    return {**values, **changes}


def version(module: ModuleType, **changes: Any) -> str:
    given = options(**changes)
    return f"{given['name']}-{module.specification_hash(module.specification(given))}"


def test_the_hash_is_stable(module: ModuleType) -> None:
    """A new way to compute it rebuilds every environment of every site: this is on purpose then."""
    assert version(module) == "hub-bac20911e1f1"


@pytest.mark.parametrize(
    "same",
    [
        {"conda": ["pip", "python=3.11"]},
        {"python_lock": LOCK.replace("# a comment", "# other words")},
        {"check": ["jupyterhub --version"]},
        {"wheels": "/mirror/wheels"},
        {"proxy": "http://proxy:3128"},
        {"root": "/elsewhere"},
    ],
    ids=str,
)
def test_what_does_not_change_the_content_does_not_change_the_hash(
    module: ModuleType, same: dict[str, Any]
) -> None:
    assert version(module, **same) == version(module)


@pytest.mark.parametrize(
    "other",
    [
        {"conda": ["pip", "python=3.12"]},
        {"channels": ["https://mirror/conda-forge"]},
        {"channels": ["conda-forge", "bioconda"]},
        {"python_lock": LOCK.replace("2.4.6", "2.4.7")},
        {"python_lock": LOCK.replace("sha256:bb", "sha256:dd")},
        {"explicit": ["https://mirror/linux-64/a-1-0.conda#00"]},
        {"name": "hub2"},
    ],
    ids=str,
)
def test_what_changes_the_content_changes_the_hash(
    module: ModuleType, other: dict[str, Any]
) -> None:
    assert version(module, **other).split("-")[-1] != version(module).split("-")[-1]


def test_a_lock_is_read_without_comments(module: ModuleType) -> None:
    assert module.pins(LOCK) == [
        "numpy==2.4.6 --hash=sha256:aa --hash=sha256:bb",
        "xarray==2026.9.0 --hash=sha256:cc",
    ]


def pip_command(module: ModuleType, work: Path, **changes: Any) -> list[str]:
    command: list[str] = module.pip_command(options(**changes), Path("/env"), work)
    return command


def test_pip_installs_only_what_the_lock_hashes(module: ModuleType, tmp_path: Path) -> None:
    command = pip_command(module, tmp_path)
    assert command[:4] == ["/env/bin/python", "-m", "pip", "install"]
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(command)
    assert Path(command[-1]).read_text() == LOCK


def test_wheels_are_a_folder_or_an_index(module: ModuleType, tmp_path: Path) -> None:
    folder = pip_command(module, tmp_path, wheels="/mirror/wheels")
    assert folder[folder.index("--find-links") + 1] == "/mirror/wheels"
    assert "--no-index" in folder
    index = pip_command(module, tmp_path, wheels="https://mirror.example.org/simple")
    assert index[index.index("--index-url") + 1] == "https://mirror.example.org/simple"
    assert "--no-index" not in index


def test_commands_see_proxy_and_certificates_and_no_foreign_settings(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONDA_CHANNELS", "elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    given = options(proxy="http://proxy:3128", ca_bundle="/etc/ca.pem")
    variables = module.variables_for(given, tmp_path)
    assert variables["https_proxy"] == "http://proxy:3128"
    assert variables["REQUESTS_CA_BUNDLE"] == variables["PIP_CERT"] == "/etc/ca.pem"
    assert not {"CONDA_CHANNELS", "PYTHONPATH"} & set(variables)


def test_a_command_that_takes_too_long_is_stopped(module: ModuleType) -> None:
    with pytest.raises(module.VersionError, match="took longer than 1 seconds"):
        module.run("sleep", ["/bin/sleep", "30"], {}, 1)


def test_a_failed_command_is_quoted_with_its_last_words(module: ModuleType) -> None:
    with pytest.raises(module.VersionError, match=r"(?s)status 4: .*last words"):
        module.run("the check", ["/bin/sh", "-c", "echo last words >&2; exit 4"], {}, 10)
