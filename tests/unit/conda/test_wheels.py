# SPDX-License-Identifier: BSD-3-Clause
"""The converter keeps what a wheel says: dependencies, scripts, data, exec bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import pytest
from conda_package_handling.api import extract
from offline_channel.package import PLACEHOLDER, Package, write
from offline_channel.wheels import (
    PYTHON_3_9,
    PYTHON_3_11,
    Wheel,
    depends,
    read_wheel,
    to_package,
    wanted_extras,
)
from packaging.requirements import Requirement

PURE = "py3-none-any"
BINARY = "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"
ABI3 = "cp39-abi3-manylinux_2_28_x86_64"


def make_wheel(folder: Path, name: str, tag: str, metadata: str = "", **files: str) -> Path:
    """A wheel with a module, an entry point, a script, a data file and a header."""
    path = folder / f"{name}-1.2-{tag}.whl"
    info = f"{name}-1.2.dist-info"
    content = {
        f"{name}/__init__.py": "def main():\n    print('hello')\n",
        f"{name}-1.2.data/scripts/{name}-script": "#!python\nprint('script')\n",
        f"{name}-1.2.data/data/share/{name}/table.txt": "data\n",
        f"{name}-1.2.data/headers/{name}.h": "int x;\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n{metadata}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: {str(tag == PURE).lower()}\n"
        + "".join(f"Tag: {tag}\n" for _ in [0]),
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-run = {name}:main\n",
        **files,
    }
    record = "".join(f"{item},,\n" for item in [*content, f"{info}/RECORD"])
    with ZipFile(path, "w") as archive:
        for item, text in {**content, f"{info}/RECORD": record}.items():
            entry = ZipInfo(item)
            executable = item.endswith((".sh", "-script"))
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            archive.writestr(entry, text)
    return path


def convert(path: Path, work: Path) -> tuple[dict[str, Any], Path]:
    """Convert a wheel and unpack the package: its index.json and the folder."""
    package = to_package(read_wheel(path), [], work / "tree")
    written = write(package, work / "channel")
    unpacked = work / "unpacked"
    extract(str(written), str(unpacked))
    return json.loads((unpacked / "info" / "index.json").read_text()), unpacked


def test_a_pure_wheel_becomes_noarch_with_entry_points_to_link(tmp_path: Path) -> None:
    metadata = "Requires-Python: >=3.9\nLicense-Expression: MIT"
    index, package = convert(make_wheel(tmp_path, "demo", PURE, metadata), tmp_path)
    assert index["noarch"] == "python"
    assert index["subdir"] == "noarch"
    assert index["depends"] == ["python 3.11.*"], "its markers were evaluated for it"
    assert index["license"] == "MIT"
    link = json.loads((package / "info" / "link.json").read_text())
    assert link["noarch"]["entry_points"] == ["demo-run = demo:main"]
    assert (package / "site-packages" / "demo" / "__init__.py").is_file()
    assert not (package / "python-scripts" / "demo-run").exists()
    assert (
        (package / "python-scripts" / "demo-script")
        .read_text()
        .startswith(f"#!{PLACEHOLDER}/bin/python")
    )
    assert (package / "share" / "demo" / "table.txt").read_text() == "data\n"
    assert (package / "site-packages" / "demo-1.2.dist-info" / "INSTALLER").read_text() == "conda\n"


@pytest.mark.parametrize(("tag", "libc"), [(BINARY, "__glibc >=2.17"), (ABI3, "__glibc >=2.28")])
def test_a_binary_wheel_gets_generated_scripts_and_its_libc(
    tmp_path: Path, tag: str, libc: str
) -> None:
    index, package = convert(make_wheel(tmp_path, "demo", tag), tmp_path)
    assert "noarch" not in index
    assert index["subdir"] == "linux-64"
    assert index["depends"] == [libc, "python 3.11.*"]
    script = package / "bin" / "demo-run"
    assert script.read_text().startswith(f"#!{PLACEHOLDER}/bin/python3.11\n")
    assert script.stat().st_mode & 0o111
    assert (package / "lib/python3.11/site-packages/demo/__init__.py").is_file()
    assert (package / "include/python3.11/demo/demo.h").is_file()


def test_the_packages_of_two_pythons_lie_side_by_side(tmp_path: Path) -> None:
    for tag in (PURE, "cp39-abi3-manylinux_2_17_x86_64"):
        wheel = read_wheel(make_wheel(tmp_path, "demo", tag))
        packages = [
            to_package(wheel, [], tmp_path / f"{tag}-{target.python}", target)
            for target in (PYTHON_3_11, PYTHON_3_9)
        ]
        assert len({package.file_name for package in packages}) == 2
    assert (packages[1].tree / "lib/python3.9/site-packages/demo/__init__.py").is_file()


def test_the_prefix_is_declared_where_it_stands(tmp_path: Path) -> None:
    _, package = convert(make_wheel(tmp_path, "demo", BINARY), tmp_path)
    paths = json.loads((package / "info" / "paths.json").read_text())["paths"]
    marked = {
        entry["_path"]: entry["file_mode"] for entry in paths if "prefix_placeholder" in entry
    }
    assert marked == {"bin/demo-run": "text", "bin/demo-script": "text"}


def test_exec_bits_and_byte_code_are_there(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "demo", PURE, **{"demo/helper.sh": "#!/bin/sh\n"})
    _, package = convert(wheel, tmp_path)
    assert (package / "site-packages/demo/helper.sh").stat().st_mode & 0o111
    assert not (package / "site-packages/demo/__init__.py").stat().st_mode & 0o111
    assert list((package / "site-packages/demo/__pycache__").glob("__init__.*.pyc"))


def read(folder: Path, name: str, *requirements: str) -> Wheel:
    metadata = "\n".join(f"Requires-Dist: {requirement}" for requirement in requirements)
    return read_wheel(make_wheel(folder, name, PURE, metadata))


def test_markers_are_evaluated_for_the_target(tmp_path: Path) -> None:
    wheel = read(
        tmp_path,
        "demo",
        'colorama; sys_platform == "win32"',
        'tomli; python_version < "3.11"',
        'uvloop>=0.17; platform_system == "Linux"',
        "Some_Name~=2.1,!=2.3",
    )
    others = ["some-name !=2.3,~=2.1", "uvloop >=0.17"]
    assert depends(wheel, [], PYTHON_3_11) == ["python 3.11.*", *others]
    assert depends(wheel, [], PYTHON_3_9) == ["python 3.9.*", *others[:1], "tomli", *others[1:]]


def test_extras_that_somebody_asks_for_become_depends(tmp_path: Path) -> None:
    wheels = {
        wheel.name: wheel
        for wheel in [
            read(tmp_path, "top", "middle[fast]>=1"),
            read(tmp_path, "middle", 'quick; extra == "fast"', 'slow; extra == "all"', "base"),
            read(tmp_path, "quick", 'native; extra == "c"'),
        ]
    }
    extras = wanted_extras(wheels, [Requirement("quick[c]")], PYTHON_3_11)
    assert extras == {"top": set(), "middle": {"fast"}, "quick": {"c"}}
    assert depends(wheels["middle"], extras["middle"], PYTHON_3_11) == [
        "base",
        "python 3.11.*",
        "quick",
    ]
    assert depends(wheels["quick"], extras["quick"], PYTHON_3_11) == ["native", "python 3.11.*"]


def test_a_prefix_in_a_binary_file_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "library.so").write_bytes(b"\0" + PLACEHOLDER.encode() + b"\0")
    with pytest.raises(ValueError, match=r"library\.so"):
        write(Package("demo", "1", [], tree), tmp_path / "channel")
