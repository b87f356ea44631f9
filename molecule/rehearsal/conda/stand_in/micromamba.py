#!/usr/bin/python3 -I
# SPDX-License-Identifier: BSD-3-Clause
"""Stands in for `micromamba` in rehearsals: the command line that the roles use, over py-rattler.

Options, states of a prefix, exit codes (0 done or nothing to do, 1 any error, 109 command line) and
the JSON documents follow micromamba 2.9; the wording of solver errors does not.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import shutil
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, "/opt/mirror/current/lib")

import yaml
from rattler import Channel, Gateway, MatchSpec, PrefixRecord, RepoDataRecord, VirtualPackage
from rattler import install as link
from rattler import solve as solve_specs
from rattler.exceptions import (
    ExtractError,
    FetchRepoDataError,
    GatewayError,
    InstallerError,
    InvalidChannelError,
    InvalidMatchSpecError,
    IoError,
    LinkError,
    SolverError,
    TransactionError,
)

VERSION = "2.9.0"
NOTHING_TO_DO = "All requested packages already installed"
COMMAND_LINE_ERROR = 109
ENGINE_ERRORS = (
    ExtractError,
    FetchRepoDataError,
    GatewayError,
    InstallerError,
    InvalidChannelError,
    InvalidMatchSpecError,
    IoError,
    LinkError,
    TransactionError,
)
DOWNLOAD_TIMEOUT = 600
MD5_LENGTH = 32


class CommandError(Exception):
    """An error of the kind that ends micromamba with status 1."""


class Parser(argparse.ArgumentParser):
    """Ends with micromamba's status for a wrong command line."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end with status 109."""
        print(f"{message}\nRun with --help for more information.", file=sys.stderr)
        sys.stderr.flush()
        os._exit(COMMAND_LINE_ERROR)


@dataclass
class Wish:
    """What files and command line ask for."""

    specs: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)


def parser() -> Parser:
    """The part of micromamba's command line that is known here."""
    common = Parser(add_help=False, allow_abbrev=False)
    common.add_argument("-p", "--prefix", type=Path)
    common.add_argument("-r", "--root-prefix", type=Path)
    common.add_argument("--no-rc", action="store_true")
    common.add_argument("--no-env", action="store_true")
    common.add_argument("--json", action="store_true")
    common.add_argument("-y", "--yes", action="store_true")
    common.add_argument("-q", "--quiet", action="store_true")
    change = Parser(add_help=False, allow_abbrev=False)
    change.add_argument("-f", "--file", action="append", type=Path, default=[])
    change.add_argument("-c", "--channel", action="append", default=[])
    change.add_argument("--override-channels", action="store_true")
    change.add_argument("--dry-run", action="store_true")
    change.add_argument("specs", nargs="*")
    top = Parser(prog="micromamba", allow_abbrev=False)
    top.add_argument("--version", action="version", version=VERSION)
    commands = top.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name in ("create", "install"):
        commands.add_parser(name, parents=[common, change], allow_abbrev=False)
    listing = commands.add_parser("list", parents=[common], allow_abbrev=False)
    listing.add_argument("--no-pip", action="store_true")
    export = commands.add_parser("env", allow_abbrev=False).add_subparsers(
        dest="action", required=True
    )
    explicit = export.add_parser("export", parents=[common], allow_abbrev=False)
    explicit.add_argument("--explicit", action="store_true", required=True)
    clean = commands.add_parser("clean", parents=[common], allow_abbrev=False)
    clean.add_argument("-a", "--all", action="store_true", required=True)
    return top


def root_prefix(arguments: argparse.Namespace) -> Path:
    """Where the package cache lies."""
    given = arguments.root_prefix or os.environ.get("MAMBA_ROOT_PREFIX")
    return Path(given) if given else Path.home() / ".local/share/mamba"


def read_yaml(path: Path, wish: Wish) -> None:
    """Add an environment file's channels and specs to the wish.

    Raises:
        CommandError: the file is no environment file, or has a pip section.
    """
    document = yaml.safe_load(path.read_text())
    if not isinstance(document, dict) or not isinstance(document.get("dependencies"), list):
        raise CommandError(f"{path}: no list of dependencies")
    wish.channels += [
        channel for channel in document.get("channels", []) if channel != "nodefaults"
    ]
    for spec in document["dependencies"]:
        if not isinstance(spec, str):
            raise CommandError(f"{path}: a pip section is not supported here")
        wish.specs.append(spec)


def read_wish(arguments: argparse.Namespace) -> Wish:
    """Collect what command line and files ask for.

    Raises:
        CommandError: a file is missing or cannot be read.
    """
    wish = Wish(specs=list(arguments.specs), channels=list(arguments.channel))
    for path in arguments.file:
        if not path.is_file():
            raise CommandError(f"Environment spec file {path} does not exist")
        lines = [line.strip() for line in path.read_text().splitlines()]
        if path.suffix in {".yml", ".yaml"}:
            read_yaml(path, wish)
        elif "@EXPLICIT" in lines:
            wish.urls += [line for line in lines if line and not line.startswith(("#", "@"))]
        else:
            wish.specs += [line for line in lines if line and not line.startswith("#")]
    if not wish.channels and not arguments.override_channels:
        wish.channels = ["conda-forge"]
    return wish


def installed(prefix: Path) -> list[PrefixRecord]:
    """The packages that the prefix holds."""
    return [PrefixRecord.from_path(path) for path in sorted((prefix / "conda-meta").glob("*.json"))]


def local_path(url: str) -> Path | None:
    """The file behind a file:// address, else None."""
    parts = urllib.parse.urlsplit(url)
    return Path(urllib.request.url2pathname(parts.path)) if parts.scheme == "file" else None


def check_file(path: Path, expected: str) -> None:
    """Compare a package with its hash, which rattler leaves out for file:// addresses.

    Raises:
        CommandError: the file is missing or is not what was expected.
    """
    if not path.is_file():
        raise CommandError(f"Could not open {path}. Found incorrect downloads. Aborting")
    algorithm = "md5" if len(expected) == MD5_LENGTH else "sha256"
    found = hashlib.new(algorithm, path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != expected:
        raise CommandError(
            f"File not valid: {algorithm.upper()} doesn't match expectation {path}\n"
            f"Expected: {expected}\nActual: {found}\nFound incorrect downloads. Aborting"
        )


def download(url: str, cache: Path) -> Path:
    """The package's file, fetched into the cache when it is not on this machine.

    Raises:
        CommandError: the address does not answer.
    """
    path = local_path(url)
    if path is None:
        path = cache / "explicit" / url.rsplit("/", 1)[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT) as answer:  # noqa: S310 - the lock's address
                path.write_bytes(answer.read())
        except OSError as problem:
            raise CommandError(f"Download error: {url}: {problem}") from problem
    return path


async def explicit_records(urls: Iterable[str], cache: Path) -> list[RepoDataRecord]:
    """The packages of an @EXPLICIT file, each checked against the hash behind its address.

    Raises:
        CommandError: a package is missing or has another hash.
    """
    records = []
    for line in urls:
        url, _, expected = line.partition("#")
        path = download(url, cache)
        if expected:
            check_file(path, expected.removeprefix("sha256:"))
        elif not path.is_file():
            raise CommandError(f"Could not open {path}. Found incorrect downloads. Aborting")
        record = await RepoDataRecord.from_package_archive(path)
        record.url = url
        record.channel = url.rsplit("/", 2)[0]
        records.append(record)
    return records


async def solved_records(
    wish: Wish, present: Sequence[RepoDataRecord], cache: Path
) -> list[RepoDataRecord]:
    """The packages that satisfy the wish; what is there and satisfies it stays as it is."""
    channels = [
        channel if "://" in channel or not channel.startswith("/") else f"file://{channel}"
        for channel in wish.channels
    ]
    records: list[RepoDataRecord] = await solve_specs(
        sources=[Channel(channel) for channel in dict.fromkeys(channels)],
        specs=[
            MatchSpec(spec)
            for spec in [*wish.specs, *(record.name.normalized for record in present)]
        ],
        gateway=Gateway(cache_dir=cache / "cache"),
        locked_packages=present,
        virtual_packages=VirtualPackage.detect(),
    )
    return records


def identity(record: RepoDataRecord) -> tuple[str, str, str, str]:
    """What makes two records the same package."""
    return (record.name.normalized, str(record.version), str(record.build), record.subdir)


def package_json(record: RepoDataRecord) -> dict[str, Any]:
    """One package as the transaction's JSON shows it."""
    return {
        "name": record.name.normalized,
        "version": str(record.version),
        "build": str(record.build),
        "build_string": str(record.build),
        "build_number": record.build_number,
        "channel": record.channel.rstrip("/"),
        "subdir": record.subdir,
        "fn": record.file_name,
        "url": record.url,
        "md5": record.md5.hex() if record.md5 else "",
        "sha256": record.sha256.hex() if record.sha256 else "",
        "size": record.size or 0,
        "depends": record.depends,
        "constrains": record.constrains,
    }


def answer(arguments: argparse.Namespace, **document: Any) -> None:
    """Print the outcome of a change."""
    common = {"dry_run": arguments.dry_run, "prefix": str(arguments.prefix), "success": True}
    if arguments.json:
        print(json.dumps({**document, **common}, indent=4))
    elif "message" in document:
        print(document["message"])
    else:
        for package in document["actions"]["LINK"]:
            print(f"+ {package['name']} {package['version']} {package['build']}")


def prepare_prefix(arguments: argparse.Namespace) -> None:
    """Check the prefix, and empty it as `create` does before it solves anything.

    Raises:
        CommandError: the folder holds something else, or there is no environment to install into.
    """
    prefix: Path = arguments.prefix
    is_environment = (prefix / "conda-meta").is_dir()
    if arguments.command == "install":
        if not is_environment:
            raise CommandError(
                f"No prefix found at: {prefix}. "
                'Environment must first be created with "micromamba create"'
            )
    elif is_environment:
        if not arguments.dry_run:
            shutil.rmtree(prefix)
    elif prefix.is_dir() and any(prefix.iterdir()):
        raise CommandError(f"Non-conda folder exists at prefix - aborting. {prefix}")


async def change(arguments: argparse.Namespace) -> None:
    """Run `create` or `install`.

    Raises:
        CommandError: files, channels or packages are not what they should be.
        SolverError: the wish cannot be satisfied.
    """
    wish = read_wish(arguments)
    if arguments.command == "create" and any(
        re.match(r"python\b(?!-)", spec) for spec in wish.specs
    ):
        wish.specs += [] if any(re.match(r"pip\b(?!-)", spec) for spec in wish.specs) else ["pip"]
    prepare_prefix(arguments)
    cache = root_prefix(arguments) / "pkgs"
    present = installed(arguments.prefix)
    if wish.urls:
        wanted = await explicit_records(wish.urls, cache)
    else:
        wanted = await solved_records(wish, present, cache)
    old = {identity(record) for record in present}
    new = {identity(record) for record in wanted}
    links = wanted if wish.urls else [record for record in wanted if identity(record) not in old]
    unlinks = [record for record in present if identity(record) not in new]
    if not links and not unlinks:
        answer(arguments, message=NOTHING_TO_DO)
        return
    if not arguments.dry_run:
        for record in links:
            path = local_path(record.url)
            if path is not None and record.sha256:
                check_file(path, record.sha256.hex())
        await link(
            wanted,
            arguments.prefix,
            cache_dir=cache,
            installed_packages=present,
            show_progress=False,
        )
        with (arguments.prefix / "conda-meta" / "history").open("a") as history:
            history.write(f"# cmd: {' '.join(sys.argv)}\n")
    actions = {
        "PREFIX": str(arguments.prefix),
        "FETCH": [],
        "LINK": [package_json(item) for item in links],
        "UNLINK": [package_json(item) for item in unlinks],
    }
    answer(arguments, actions=actions)


def python_layer(prefix: Path) -> list[dict[str, Any]]:
    """The packages that pip installed, as `list` shows them."""
    rows = []
    for installer in sorted(prefix.glob("lib/python3*/site-packages/*.dist-info/INSTALLER")):
        if installer.read_text().strip() == "pip":
            name, version = installer.parent.name.removesuffix(".dist-info").split("-")
            rows.append(
                {
                    "name": name.replace("_", "-"),
                    "version": version,
                    "channel": "pypi",
                    "base_url": "",
                    "build_string": "pypi_0",
                    "build_number": 0,
                    "platform": "",
                    "url": "",
                    "md5": "",
                    "sha256": "",
                    "dist_name": f"{name}-{version}-pypi_0",
                }
            )
    return rows


def list_packages(arguments: argparse.Namespace) -> None:
    """Run `list`."""
    rows = []
    for record in installed(arguments.prefix):
        package = package_json(record)
        rows.append(
            {
                key: package[key]
                for key in (
                    "name",
                    "version",
                    "build_string",
                    "build_number",
                    "channel",
                    "url",
                    "md5",
                    "sha256",
                )
            }
            | {
                "base_url": package["channel"],
                "platform": package["subdir"],
                "dist_name": f"{package['name']}-{package['version']}-{package['build']}",
            }
        )
    if not arguments.no_pip:
        rows += python_layer(arguments.prefix)
    rows.sort(key=lambda row: row["name"])
    if arguments.json:
        print(json.dumps({"log_history": [], "packages": rows}, indent=4))
    else:
        for row in rows:
            print(f"  {row['name']}  {row['version']}  {row['build_string']}  {row['channel']}")


def export_explicit(arguments: argparse.Namespace) -> None:
    """Run `env export --explicit`."""
    print(
        "# This file may be used to create an environment using:\n"
        "# $ conda create --name <env> --file <this file>\n# platform: linux-64\n@EXPLICIT"
    )
    for record in installed(arguments.prefix):
        print(f"{record.url}#{record.md5.hex() if record.md5 else ''}")


def run(arguments: argparse.Namespace) -> None:
    """Run one command.

    Raises:
        CommandError: as the commands do.
    """
    if arguments.command == "clean":
        shutil.rmtree(root_prefix(arguments) / "pkgs", ignore_errors=True)
        return
    if arguments.prefix is None:
        raise CommandError("No prefix: -p is missing")
    arguments.prefix = arguments.prefix.absolute()
    if arguments.command in {"create", "install"}:
        asyncio.run(change(arguments))
    elif not (arguments.prefix / "conda-meta").is_dir():
        raise CommandError(f"The given prefix does not exist: {arguments.prefix}")
    elif arguments.command == "list":
        list_packages(arguments)
    else:
        export_explicit(arguments)


def main() -> int:
    """Run the command line; returns the exit status."""
    arguments = parser().parse_args()
    try:
        run(arguments)
    except SolverError as problem:
        if arguments.json:
            print(json.dumps({"solver_problems": ["unsupported request"], "success": False}))
        print(
            f"error    libmamba Could not solve for environment specs\n{problem}", file=sys.stderr
        )
        return 1
    except (CommandError, OSError, yaml.YAMLError, *ENGINE_ERRORS) as problem:
        print(f"critical libmamba {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except SystemExit as end:  # --version and --help
        status = int(end.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    # rattler's threads outlive the work and can crash the interpreter while it shuts down
    os._exit(status)
