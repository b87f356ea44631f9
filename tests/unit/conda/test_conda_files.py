# SPDX-License-Identifier: BSD-3-Clause
"""Environment files and locks: names, channels, hashes, and no address of an index."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
REHEARSAL = REPOSITORY / "molecule" / "rehearsal" / "conda"
ENVIRONMENTS = sorted((REPOSITORY / "environments").rglob("*.yml"))
PRODUCTION = ("jh-ganymede-pyGMS-3.7", "jh-ganymede-pyGMS-3.11", "jh-ganymede-climate4R")
LOCKS = [
    REPOSITORY / "requirements" / "hub.txt",
    REPOSITORY / "requirements" / "notebook.txt",
    REHEARSAL / "wheels.txt",
    REHEARSAL / "wheels-3.9.txt",
    REHEARSAL / "tools.txt",
]

# What each kernel is for: without these it is not that kernel.
NEEDED = {
    "jh-ganymede-pyGMS-3.7": {"python", "ipykernel", "xarray", "dask", "netcdf4", "h5py"},
    "jh-ganymede-pyGMS-3.11": {
        *("python", "ipykernel", "xarray", "dask", "netcdf4", "h5py", "tensorflow", "keras"),
    },
    "jh-ganymede-climate4R": {
        *("r-base", "r-irkernel", "r-loader", "r-loader.java", "r-transformer", "r-downscaler"),
        *("r-visualizer", "r-convertr", "r-drought4r", "r-climate4r.value", "r-climate4r.udg"),
        *("r-value", "r-easyverification", "nbgitpuller", "cdo"),
    },
}


def load(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    return document


def names(path: Path) -> list[str]:
    return [re.split(r"[=<>!~ ]", spec)[0] for spec in load(path)["dependencies"]]


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), flags=re.MULTILINE))


def test_all_kernels_have_their_file() -> None:
    folder = REPOSITORY / "environments"
    assert {path.stem for path in folder.glob("*.yml")} == set(PRODUCTION)
    rehearsed = {path.stem for path in (folder / "rehearsal").glob("*.yml")}
    assert rehearsed == {PRODUCTION[1], "jh-ganymede-pyGMS-3.9"}


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
class TestEnvironmentFile:
    def test_has_the_schema_and_its_own_name(self, path: Path) -> None:
        document = load(path)
        assert set(document) == {"name", "channels", "dependencies"}
        assert document["name"] == path.stem
        assert all(isinstance(spec, str) for spec in document["dependencies"]), "no pip section"

    def test_uses_conda_forge_alone(self, path: Path) -> None:
        assert load(path)["channels"] == ["conda-forge", "nodefaults"]

    def test_names_each_package_once_and_in_lower_case(self, path: Path) -> None:
        found = names(path)
        assert len(found) == len(set(found))
        assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) for name in found)

    def test_says_what_it_is_for(self, path: Path) -> None:
        assert path.read_text().startswith("---\n# ")


@pytest.mark.parametrize("name", PRODUCTION)
def test_a_kernel_has_what_it_is_for(name: str) -> None:
    assert NEEDED[name] <= set(names(REPOSITORY / "environments" / f"{name}.yml"))


@pytest.mark.parametrize("name", PRODUCTION)
def test_each_pin_of_a_release_stands_below_a_reason(name: str) -> None:
    lines = (REPOSITORY / "environments" / f"{name}.yml").read_text().splitlines()
    reason = False
    for line in lines[lines.index("dependencies:") + 1 :]:
        if line.lstrip().startswith("#"):
            reason = True
        assert reason or not re.search(r"[=<>]", line), f"{name}: no reason above {line.strip()}"


@pytest.mark.parametrize(("python", "lock"), [("3.11", "wheels.txt"), ("3.9", "wheels-3.9.txt")])
def test_the_rehearsal_has_its_packages_in_the_offline_channel(python: str, lock: str) -> None:
    offered = {*pins(REHEARSAL / lock), "python", "nodejs", "configurable-http-proxy"}
    path = REPOSITORY / "environments" / "rehearsal" / f"jh-ganymede-pyGMS-{python}.yml"
    assert set(names(path)) <= offered


def test_the_rehearsal_of_the_old_kernel_has_its_releases() -> None:
    """On another Python, but what runs together there is what production asks for."""
    folder = REPOSITORY / "environments"
    asked = load(folder / "jh-ganymede-pyGMS-3.7.yml")["dependencies"]
    rehearsed = load(folder / "rehearsal" / "jh-ganymede-pyGMS-3.9.yml")["dependencies"]
    assert len(rehearsed) > 8
    assert set(rehearsed) - {"python=3.9.*"} <= set(asked)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_and_hashes_everything_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    requirements = re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    for requirement in requirements:
        assert re.match(r"[a-z0-9.-]+==\S+ \\", requirement), requirement
        assert "--hash=sha256:" in requirement
    assert "://" not in re.sub(r"#.*", "", text)
    assert "index-url" not in text


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_direct_dependency_is_in_the_lock_and_says_why(lock: Path) -> None:
    locked = pins(lock)
    for line in lock.with_suffix(".in").read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement, _, _ = line.partition("#")
        name, version = re.sub(r"\[.*\]", "", requirement.strip()).split("==")
        assert locked[name.replace("_", "-").lower()] == version


def test_hub_and_notebook_server_share_their_releases() -> None:
    hub, notebook = (pins(lock) for lock in LOCKS[:2])
    shared = set(hub) & set(notebook)
    assert {"jupyterhub", "batchspawner", "tornado"} <= shared
    assert {name: hub[name] for name in shared} == {name: notebook[name] for name in shared}


def test_the_notebook_server_has_no_kernel_of_its_own() -> None:
    assert not {"ipykernel", "ipython"} & set(pins(LOCKS[1]))


def test_the_npm_lock_has_integrity_and_no_address_of_a_registry() -> None:
    lock = json.loads((REHEARSAL / "npm" / "package-lock.json").read_text())
    modules = {name: entry for name, entry in lock["packages"].items() if name}
    assert "node_modules/configurable-http-proxy" in modules
    assert all(entry["integrity"].startswith("sha512-") for entry in modules.values())
    assert not [name for name, entry in modules.items() if "resolved" in entry]
