# SPDX-License-Identifier: BSD-3-Clause
"""Wheel → conda package, for any wheel that fits a CPython of the channel on 64-bit Linux.

Pure wheels become `noarch: python`, all others packages for linux-64. `installer` unpacks them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

from installer import install
from installer.destinations import SchemeDictionaryDestination
from installer.sources import WheelFile
from installer.utils import parse_entrypoints
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename

from offline_channel.package import PLACEHOLDER, Package


@dataclass(frozen=True)
class Target:
    """One of the channel's interpreters: the machines that will use it, whatever builds it."""

    python: str
    """Its minor version, such as "3.11"."""
    micro: int

    @property
    def site_packages(self) -> str:
        """Where its packages lie below a prefix."""
        return f"lib/python{self.python}/site-packages"

    @property
    def build(self) -> str:
        """Build string of the packages that were made for it."""
        return f"py{self.python.replace('.', '')}_0"

    @property
    def markers(self) -> dict[str, str]:
        """What environment markers are evaluated with."""
        return {
            "implementation_name": "cpython",
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_system": "Linux",
            "python_full_version": f"{self.python}.{self.micro}",
            "python_version": self.python,
            "sys_platform": "linux",
        }


PYTHON_3_11 = Target("3.11", 2)
PYTHON_3_9 = Target("3.9", 2)


@dataclass(frozen=True)
class Wheel:
    """A wheel file and what its name and METADATA say."""

    path: Path
    name: str
    version: str
    tags: frozenset[Tag]
    metadata: Message
    entry_points: tuple[str, ...]

    @property
    def pure(self) -> bool:
        """True when nothing in it depends on the machine or the interpreter's ABI."""
        return all(tag.abi == "none" and tag.platform == "any" for tag in self.tags)

    @property
    def requirements(self) -> list[Requirement]:
        """Its requirements, with their markers."""
        return [Requirement(text) for text in self.metadata.get_all("Requires-Dist", [])]


def read_wheel(path: Path) -> Wheel:
    """Read a wheel's name and metadata."""
    name, version, _, tags = parse_wheel_filename(path.name)
    with ZipFile(path) as archive:
        info = next(item for item in archive.namelist() if item.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(info).decode())
        points = info.replace("METADATA", "entry_points.txt")
        text = archive.read(points).decode() if points in archive.namelist() else ""
    scripts = tuple(
        f"{script} = {module}:{function}"
        for script, module, function, section in parse_entrypoints(text)
        if section == "console"
    )
    return Wheel(path, name, str(version), tags, metadata, scripts)


def applies(requirement: Requirement, extras: Iterable[str], target: Target) -> bool:
    """True when the requirement holds on the target with these extras asked for."""
    marker = requirement.marker
    return marker is None or any(
        marker.evaluate({**target.markers, "extra": extra}) for extra in ["", *extras]
    )


def wanted_extras(
    wheels: dict[str, Wheel], roots: Iterable[Requirement], target: Target
) -> dict[str, set[str]]:
    """Which extras of each package somebody in the set asks for.

    Conda has no extras: their requirements become plain depends.
    """
    extras: dict[str, set[str]] = {name: set() for name in wheels}
    pending = list(roots) + [
        requirement
        for wheel in wheels.values()
        for requirement in wheel.requirements
        if applies(requirement, [], target)
    ]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        new = requirement.extras - extras.get(name, requirement.extras)
        if new:
            extras[name] |= new
            pending += [item for item in wheels[name].requirements if applies(item, new, target)]
    return extras


def specification(name: str, specifier: SpecifierSet) -> str:
    """A conda match specification for a Python requirement; conda reads PEP 440's operators."""
    return f"{name} {specifier}".rstrip()


def libc_dependency(wheel: Wheel) -> list[str]:
    """The oldest glibc that the wheel's tags promise to work with, as conda's virtual package."""
    versions = [
        tuple(int(part) for part in tag.platform.split("_")[1:3])
        for tag in wheel.tags
        if tag.platform.startswith("manylinux_")
    ]
    return [f"__glibc >={'.'.join(map(str, min(versions)))}"] if versions else []


def depends(wheel: Wheel, extras: Iterable[str], target: Target) -> list[str]:
    """What the package needs, as conda writes it.

    Pure wheels, too, need the target's interpreter: their markers were evaluated for it.
    """
    found = {f"python {target.python}.*", *libc_dependency(wheel)}
    for requirement in wheel.requirements:
        name = canonicalize_name(requirement.name)
        if name != wheel.name and applies(requirement, extras, target):
            found.add(specification(name, requirement.specifier))
    return sorted(found)


def unpack(wheel: Wheel, tree: Path, target: Target) -> None:
    """Unpack the wheel as it will lie under a prefix.

    A noarch package gets its entry points when it is linked, so they are left out.
    """
    site_packages, scripts = (
        ("site-packages", "python-scripts") if wheel.pure else (target.site_packages, "bin")
    )
    destination = SchemeDictionaryDestination(
        scheme_dict={
            "purelib": str(tree / site_packages),
            "platlib": str(tree / site_packages),
            "headers": str(tree / "include" / f"python{target.python}" / wheel.name),
            "scripts": str(tree / scripts),
            "data": str(tree),
        },
        interpreter=f"{PLACEHOLDER}/bin/python{target.python}",
        script_kind="posix",
    )
    with WheelFile.open(wheel.path) as source:
        install(source, destination, {"INSTALLER": b"conda\n"})
    if wheel.pure:
        for entry_point in wheel.entry_points:
            (tree / scripts / entry_point.split(" = ")[0]).unlink()
        if (tree / scripts).is_dir() and not os.listdir(tree / scripts):  # noqa: PTH208 - only emptiness counts
            (tree / scripts).rmdir()


def to_package(
    wheel: Wheel, extras: Iterable[str], tree: Path, target: Target = PYTHON_3_11
) -> Package:
    """Unpack the wheel below `tree` and describe it as a conda package."""
    unpack(wheel, tree, target)
    return Package(
        name=wheel.name,
        version=wheel.version,
        build=target.build,
        depends=depends(wheel, extras, target),
        tree=tree,
        noarch="python" if wheel.pure else None,
        license=wheel.metadata.get("License-Expression", ""),
        entry_points=list(wheel.entry_points) if wheel.pure else [],
    )
