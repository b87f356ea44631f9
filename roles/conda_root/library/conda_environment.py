#!/usr/bin/python
# SPDX-License-Identifier: BSD-3-Clause
"""Builds one version of a conda environment, beside the one in service.

Layout below the root that is given:

    <name>/<name>-<hash>/       one version; <hash> covers the specification
    <name>/<name>-<hash>.json   its specification, moved here last: the mark of a complete version
    <name>/current              link to the version in service; only read here

Runs on the managed host, so it keeps to the standard library and to what Python 3.8 knows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: conda_environment
short_description: Builds a conda environment as a versioned directory
description:
  - Builds the version that the specification names, beside the one in service.
    Nothing runs when it is there.
  - A build that fails leaves nothing behind. What an interrupted one left, the next run removes.
options:
  name:
    description: Name of the environment.
    type: str
    required: true
  root:
    description: Folder that holds the environments.
    type: path
    required: true
  conda:
    description: Packages as conda match specifications.
    type: list
    elements: str
    default: []
  explicit:
    description: Addresses of an explicit lock, with hashes; instead of O(conda) and O(channels).
    type: list
    elements: str
    default: []
  channels:
    description: Where packages come from, first choice first.
    type: list
    elements: str
    default: []
  python_lock:
    description: Text of a pip lock with hashes.
    type: str
    default: ''
  check:
    description: Commands and Python imports that must succeed in the new version.
    type: list
    elements: str
    default: []
  micromamba:
    description: The program.
    type: path
    required: true
  cache_root:
    description: Root prefix whose package cache serves the environments on its file system.
    type: path
    required: true
  wheels:
    description: Folder of wheels or address of an index.
    type: str
    default: ''
  proxy:
    description: Address of an HTTP proxy.
    type: str
    default: ''
  ca_bundle:
    description: Certificates to trust.
    type: str
    default: ''
  timeout:
    description: Seconds that one command may take.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Build the environment of the proxy
  conda_environment:
    name: proxy
    root: /opt/jupyterhub/envs
    conda: [nodejs>=20, configurable-http-proxy]
    channels: [conda-forge]
    micromamba: /opt/micromamba/bin/micromamba
    cache_root: /opt/micromamba
"""

RETURN = r"""
prefix:
  description: The version that the specification names.
  type: str
  returned: always
previous:
  description: Name of the version in service, empty when there is none.
  type: str
  returned: always
pending:
  description: Whether the link has to be switched.
  type: bool
  returned: always
"""

HASH_LENGTH = 12
LAST_LINES = 15


class BuildError(Exception):
    """A version could not be built; the message is a sentence for the administrator."""


class Layout(NamedTuple):
    """The paths of one environment."""

    folder: Path
    prefix: Path
    marker: Path
    link: Path


def pins(lock: str) -> list[str]:
    """The requirements of a pip lock with their hashes, one string each, without comments."""
    joined = lock.replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*", "", line) for line in joined.splitlines())
    return sorted(" ".join(line.split()) for line in lines if line.strip())


def specification(options: dict[str, Any]) -> dict[str, Any]:
    """What a version is made of: comments, order of lines and the check do not count.

    The order of channels does: it is their priority.
    """
    return {
        "name": options["name"],
        "channels": list(options["channels"]),
        "conda": sorted(options["conda"]),
        "explicit": sorted(options["explicit"]),
        "python": pins(options["python_lock"]),
    }


def specification_hash(document: dict[str, Any]) -> str:
    """The hash that a version carries in its name."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def layout(options: dict[str, Any]) -> Layout:
    """Where the version that the options describe lies."""
    name = options["name"]
    folder = Path(options["root"]) / name
    version = f"{name}-{specification_hash(specification(options))}"
    return Layout(folder, folder / version, folder / (version + ".json"), folder / "current")


def in_service(paths: Layout) -> str:
    """Name of the version that the link points at, or "" when there is none."""
    try:
        return os.readlink(paths.link)  # noqa: PTH115 - the text of the link
    except FileNotFoundError:
        return ""


def incomplete(paths: Layout) -> list[Path]:
    """What interrupted builds left behind: versions without a marker."""
    if not paths.folder.is_dir():
        return []
    with os.scandir(paths.folder) as entries:
        found = {entry.name: entry for entry in entries}
    return [
        Path(entry.path)
        for name, entry in sorted(found.items())
        if entry.is_dir(follow_symlinks=False) and name + ".json" not in found
    ]


def package_cache_root(options: dict[str, Any]) -> Path:
    """The root prefix whose package cache is on the environment's file system, for hard links."""
    default = Path(options["cache_root"])
    root = Path(options["root"])
    if default.stat().st_dev == root.stat().st_dev:
        return default
    return root.parent


def environment(options: dict[str, Any], home: Path) -> dict[str, str]:
    """Variables for every command: the caller's without his settings of conda and Python."""
    foreign = ("CONDA_", "MAMBA_", "PYTHON", "NODE_")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    variables.update(HOME=str(home), PYTHONNOUSERSITE="1", LC_ALL="C.UTF-8")
    if options["proxy"]:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            variables[name] = options["proxy"]
    if options["ca_bundle"]:
        for name in (
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "PIP_CERT",
            "MAMBA_SSL_VERIFY",
        ):
            variables[name] = options["ca_bundle"]
    return variables


def run(step: str, command: list[str], variables: dict[str, str], timeout: int) -> None:
    """Run one command.

    Raises:
        BuildError: it failed, could not be started or took longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            command,
            env=variables,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as problem:
        raise BuildError(
            f"{step} took longer than {timeout} seconds: {shlex.join(command)}"
        ) from problem
    except OSError as problem:
        raise BuildError(f"{step} could not be started: {problem}") from problem
    if done.returncode != 0:
        tail = "\n".join(done.stdout.decode(errors="replace").splitlines()[-LAST_LINES:])
        raise BuildError(
            f"{step} failed with status {done.returncode}: {shlex.join(command)}\n{tail}"
        )


def create_command(options: dict[str, Any], prefix: Path, work: Path) -> list[str]:
    """The micromamba command that makes the conda part.

    The rendered file names no channels: micromamba adds those of a file to those of the command
    line, and then a mirror would not be the only source.
    """
    command = [options["micromamba"], "create", "-y", "--no-rc", "-p", str(prefix)]
    command += ["-r", str(package_cache_root(options))]
    if options["explicit"]:
        source = work / "explicit.txt"
        source.write_text("@EXPLICIT\n" + "".join(url + "\n" for url in options["explicit"]))
    else:
        source = work / "environment.yml"
        source.write_text(json.dumps({"name": options["name"], "dependencies": options["conda"]}))
        command.append("--override-channels")
        for channel in options["channels"]:
            command += ["-c", channel]
    return [*command, "-f", str(source)]


def pip_command(options: dict[str, Any], prefix: Path, work: Path) -> list[str]:
    """The pip command that installs the Python layer: wheels only, hashes required."""
    lock = work / "lock.txt"
    lock.write_text(options["python_lock"])
    command = [str(prefix / "bin" / "python"), "-m", "pip", "install", "--require-hashes"]
    command += ["--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--root-user-action", "ignore", "--no-warn-script-location"]
    if "://" in options["wheels"]:
        command += ["--index-url", options["wheels"]]
    elif options["wheels"]:
        command += ["--no-index", "--find-links", options["wheels"]]
    return [*command, "--requirement", str(lock)]


def build_steps(
    options: dict[str, Any], prefix: Path, variables: dict[str, str], work: Path
) -> None:
    """Make the version at its final place and check it.

    Raises:
        BuildError: one of the steps failed.
    """
    timeout = options["timeout"]
    run("micromamba", create_command(options, prefix, work), variables, timeout)
    inside = dict(
        variables, PATH=f"{prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin", CONDA_PREFIX=str(prefix)
    )
    if options["python_lock"]:
        run("pip", pip_command(options, prefix, work), inside, timeout)
    for check in options["check"]:
        command = shlex.split(check)
        if command[0] in ("import", "from"):
            command = ["python", "-c", check]
        run("the check", ["/usr/bin/env", *command], inside, timeout)


def build(options: dict[str, Any], paths: Layout) -> None:
    """Build a version and mark it as complete.

    Raises:
        BuildError: it failed; nothing of the version is left.
    """
    os.umask(0o022)
    paths.folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="conda-environment-") as folder:
            work = Path(folder)
            build_steps(options, paths.prefix, environment(options, work), work)
        document = json.dumps(specification(options), indent=1, sort_keys=True)
        unfinished = paths.prefix / "specification.json"
        unfinished.write_text(document + "\n")
        unfinished.replace(paths.marker)
    except BaseException:
        if paths.prefix.exists():
            shutil.rmtree(str(paths.prefix))
        raise


def described(paths: Layout, version: str) -> str:
    """A version for `--diff`: its name and its specification, without the hashes of wheels."""
    if not version:
        return ""
    marker = paths.folder / (version + ".json")
    document = json.loads(marker.read_text()) if marker.is_file() else {}
    return version + "\n" + readable(document)


def readable(document: dict[str, Any]) -> str:
    """A specification for people."""
    lines = []
    for part in ("channels", "conda", "explicit", "python"):
        lines += [f"{part}: {item.split(' --hash')[0]}" for item in document.get(part, [])]
    return "".join(line + "\n" for line in lines)


def difference(options: dict[str, Any], paths: Layout, before: str) -> dict[str, str]:
    """What `--diff` shows: the version in service against the one that the specification names."""
    after = paths.prefix.name
    if before == after:
        return {}
    return {
        "before_header": str(paths.link),
        "after_header": str(paths.link),
        "before": described(paths, before),
        "after": after + "\n" + readable(specification(options)),
    }


def main() -> None:
    """Run as a module."""
    text = {"type": "str", "default": ""}
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "conda": names,
            "explicit": names,
            "channels": names,
            "python_lock": text,
            "check": names,
            "micromamba": {"type": "path", "required": True},
            "cache_root": {"type": "path", "required": True},
            "wheels": text,
            "proxy": text,
            "ca_bundle": text,
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    options: dict[str, Any] = module.params
    paths = layout(options)
    before, after = in_service(paths), paths.prefix.name
    result = {"prefix": str(paths.prefix), "previous": before, "pending": before != after}
    debris = [path for path in incomplete(paths) if path.name != before]
    missing = before != after and not paths.marker.is_file()
    if not module.check_mode:
        try:
            for path in debris:
                shutil.rmtree(str(path))
            if missing:
                build(options, paths)
        except (BuildError, OSError) as problem:
            stays = f"{before} stays in service." if before else "None is in service."
            module.fail_json(msg=f"Environment {options['name']}: {problem}\n{stays}", **result)
    module.exit_json(
        changed=missing or bool(debris), diff=difference(options, paths, before), **result
    )


if __name__ == "__main__":
    main()
