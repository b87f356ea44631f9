#!/usr/bin/python
# SPDX-License-Identifier: BSD-3-Clause
"""Builds versions of conda environments, several at once, beside those in service.

ansible.module_utils.conda_versions tells what is where. Runs on the managed host, so it keeps to
the standard library and to what Python 3.8 knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.conda_versions import (
    BusyError,
    Environment,
    Journal,
    VersionError,
    difference,
    installed,
    megabytes,
    readable,
)

DOCUMENTATION = r"""
module: conda_environments
short_description: Builds conda environments as versioned directories
description:
  - Builds the versions that the specifications name, beside those in service, several at once.
    For an environment whose version is in service nothing runs, and the file system is asked once.
  - A build that fails leaves nothing behind. What a killed one left, the next run removes.
  - Puts nothing into service; M(conda_switch) does.
options:
  environments:
    description: The environments.
    type: list
    elements: dict
    required: true
    suboptions:
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
        description: Addresses of an explicit lock, with hashes; instead of conda and channels.
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
    description: >-
      Root prefix on the host's own disk: its package cache serves the environments on its file
      system, and it holds the journals of the builds.
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
    description: Seconds that one command may take, and another run's build of the same.
    type: int
    default: 3600
  parallel:
    description: How many are built at once.
    type: int
    default: 4
"""

EXAMPLES = r"""
- name: Build the environment of the proxy
  conda_environments:
    environments:
      - name: proxy
        root: /opt/jupyterhub/envs
        conda: [nodejs>=20, configurable-http-proxy]
        channels: [conda-forge]
    micromamba: /opt/micromamba/bin/micromamba
    cache_root: /opt/micromamba
"""

RETURN = r"""
environments:
  description: >-
    For each environment its name, root, the version that the specification names (C(current) when
    that is in service), the previous one (in service, empty when there is none), and whether the
    link is pending to be switched.
  type: list
  elements: dict
  returned: always
report:
  description: What was built, with its size, and what was removed.
  type: list
  elements: str
  returned: always
"""

HASH_LENGTH = 12
LAST_LINES = 15

BYTE_CODE = """
import compileall, importlib.util, pathlib, sys
folder, workers = pathlib.Path(sys.argv[1]), int(sys.argv[2])
if not compileall.compile_dir(str(folder), quiet=2, workers=workers):
    for path in folder.rglob("*.py"):
        if pathlib.Path(importlib.util.cache_from_source(str(path))).exists():
            continue
        try:
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError):
            continue  # no Python, or that of another version: templates, tests of parsers
        sys.exit(f"the byte code of {path} was not written")
"""
"""Compiles all modules below a folder; ends with a sentence when one that is valid Python was not
compiled, such as on a full disk."""


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


def package_cache_root(options: dict[str, Any]) -> Path:
    """The root prefix whose package cache is on the environment's file system, for hard links."""
    default = Path(options["cache_root"])
    root = Path(options["root"])
    if default.stat().st_dev == root.stat().st_dev:
        return default
    return root.parent


def variables_for(options: dict[str, Any], home: Path) -> dict[str, str]:
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


def run(
    step: str,
    command: list[str],
    variables: dict[str, str],
    timeout: int,
    lock: tuple[int, ...] = (),
) -> None:
    """Run one command, which inherits the files `lock`.

    Raises:
        VersionError: it failed, could not be started or took longer than `timeout` seconds.
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
            pass_fds=lock,
        )
    except subprocess.TimeoutExpired as problem:
        raise VersionError(
            f"{step} took longer than {timeout} seconds: {shlex.join(command)}"
        ) from problem
    except OSError as problem:
        raise VersionError(f"{step} could not be started: {problem}") from problem
    if done.returncode != 0:
        tail = "\n".join(done.stdout.decode(errors="replace").splitlines()[-LAST_LINES:])
        raise VersionError(
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
    command += ["--no-deps", "--only-binary", ":all:", "--no-compile"]
    command += ["--no-input", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--root-user-action", "ignore", "--no-warn-script-location"]
    if "://" in options["wheels"]:
        command += ["--index-url", options["wheels"]]
    elif options["wheels"]:
        command += ["--no-index", "--find-links", options["wheels"]]
    return [*command, "--requirement", str(lock)]


def byte_code_commands(prefix: Path, workers: int) -> list[list[str]]:
    """The commands that compile all Python modules of a prefix, one for each Python in it.

    On a compute node that never read the shared file system before, the first import would
    otherwise compile each module, and could not keep the result.
    """
    python = [str(prefix / "bin" / "python"), "-I", "-S", "-c", BYTE_CODE]
    folders = sorted(prefix.glob("lib/python3.*")) if Path(python[0]).exists() else []
    return [[*python, str(folder), str(workers)] for folder in folders if folder.is_dir()]


def build_steps(
    options: dict[str, Any], prefix: Path, variables: dict[str, str], work: Path
) -> None:
    """Make the version and check it.

    Raises:
        VersionError: one of the steps failed.
    """
    limits = (options["timeout"], options["lock"])
    run("micromamba", create_command(options, prefix, work), variables, *limits)
    inside = dict(
        variables, PATH=f"{prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin", CONDA_PREFIX=str(prefix)
    )
    if options["python_lock"]:
        run("pip", pip_command(options, prefix, work), inside, *limits)
    for command in byte_code_commands(prefix, options["workers"]):
        run("the byte code", command, inside, *limits)
    for check in options["check"]:
        words = shlex.split(check)
        if words[0] in ("import", "from"):
            words = ["python", "-c", check]
        run("the check", ["/usr/bin/env", *words], inside, *limits)


def build(options: dict[str, Any], environment: Environment, digest: str) -> str:
    """Build a version and mark it as complete; returns its name.

    It is built where it will stay, not somewhere else and moved: pip writes the folder into every
    program that it installs. What makes it a version is its mark, which appears last and at once.

    Raises:
        VersionError: it failed; nothing of the version is left.
    """
    version = f"{environment.name}-{digest}"
    prefix = environment.folder / version
    environment.folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="conda-environment-") as folder:
            work = Path(folder)
            build_steps(options, prefix, variables_for(options, work), work)
        document = {
            **specification(options),
            "packages": sorted(path.stem for path in prefix.glob("conda-meta/*.json")),
            "size": size_of(prefix),
        }
        environment.write_mark(version, digest, document)
    except BaseException:
        if prefix.exists():
            shutil.rmtree(str(prefix))
        with contextlib.suppress(OSError):
            environment.folder.rmdir()  # only where it is empty
        raise
    return version


def size_of(folder: Path) -> int:
    """The bytes of a tree; a file with several names counts once."""
    sizes = {}
    for path, _, names in os.walk(str(folder)):
        for name in names:
            status = os.lstat(os.path.join(path, name))  # noqa: PTH118 - many, and fast
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def alike(options: dict[str, Any], environment: Environment) -> str:
    """The version in service when it holds just what a lock names, or "".

    A lock that was written from a version describes that version: nothing has to be built for it.
    """
    serving = environment.in_service()
    document = environment.document(serving)
    if not options["explicit"] or document.get("python") != pins(options["python_lock"]):
        return ""
    wanted = {tuple(line.partition("#")[::2]) for line in options["explicit"]}
    wanted = {(url, digest.replace("sha256:", "")) for url, digest in wanted}
    present = installed(options["micromamba"], environment.folder / serving)
    return serving if wanted == {(row["url"], row["sha256"]) for row in present} else ""


class Outcome:
    """What became of one environment, or what would."""

    def __init__(self, environment: Environment, previous: str, version: str) -> None:
        self.environment = environment
        self.previous = previous
        self.version = version
        self.changed = False
        self.report: list[str] = []
        self.diff: dict[str, str] = {}

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        return {
            "name": self.environment.name,
            "root": str(self.environment.folder.parent),
            "version": self.version,
            "previous": self.previous,
            "pending": self.version != self.previous,
        }


def bring_about(options: dict[str, Any], *, check_mode: bool) -> Outcome:
    """See that the version that the options describe is there.

    Raises:
        VersionError, OSError: it is not; what was in service still is.
    """
    environment = Environment(options["root"], options["name"])
    journal = Journal(Path(options["cache_root"]), environment.folder)
    serves = environment.serves(specification_hash(specification(options)))
    if serves and not journal.is_open():
        return Outcome(environment, "current", "current")
    if check_mode:
        debris = [] if journal.is_locked() else environment.debris()
        return make(options, environment, debris, check_mode=True)
    try:
        with journal.held(0 if serves else options["timeout"]) as lock:
            options = {**options, "lock": (lock,)}
            return make(options, environment, environment.debris(), check_mode=False)
    except BusyError:
        if serves:  # that run builds what is not asked for here, and cleans up behind itself
            return Outcome(environment, "current", "current")
        raise


def make(
    options: dict[str, Any], environment: Environment, debris: list[Path], *, check_mode: bool
) -> Outcome:
    """Remove debris, and find, adopt or build the version; in check mode only say so."""
    previous = environment.in_service()
    digest = specification_hash(specification(options))
    usual = f"{environment.name}-{digest}"
    version = environment.find(digest)
    adopted = ""
    if not version:
        # A version got into service by being complete; its mark may be lost.
        lost = previous == usual and environment.link.is_dir()
        adopted = version = usual if lost else alike(options, environment)
    outcome = Outcome(environment, previous, version or usual)
    outcome.changed = not version or bool(debris)
    if outcome.version != previous:
        before = [previous, *readable(environment.document(previous))] if previous else []
        after = [outcome.version, *readable(specification(options))]
        outcome.diff = difference(environment.link, before, after)
    outcome.report += [f"{path.name}, not complete, is removed" for path in debris]
    if check_mode:
        outcome.report += [] if version else [f"{usual} is to be built"]
        return outcome
    for path in debris:
        shutil.rmtree(str(path))
    if adopted:
        known = {**environment.document(adopted), **specification(options)}
        environment.write_mark(adopted, digest, known)
    elif not version:
        start = time.monotonic()
        build(options, environment, digest)
        size = megabytes(environment.document(usual)["size"])
        outcome.report.append(f"{usual} built in {time.monotonic() - start:.0f} s, {size}")
    return outcome


def attempt(options: dict[str, Any], *, check_mode: bool) -> Outcome | str:
    """The outcome for one environment, or the sentence that says why there is none."""
    try:
        return bring_about(options, check_mode=check_mode)
    except (VersionError, OSError) as problem:
        serving = Environment(options["root"], options["name"]).in_service()
        stays = f"{serving} stays in service." if serving else "None is in service."
        return f"Environment {options['name']}: {problem}\n{stays}"


def main() -> None:
    """Run as a module."""
    text = {"type": "str", "default": ""}
    names = {"type": "list", "elements": "str", "default": []}
    row = {
        "name": {"type": "str", "required": True},
        "root": {"type": "path", "required": True},
        "conda": names,
        "explicit": names,
        "channels": names,
        "python_lock": text,
        "check": names,
    }
    common = {
        "micromamba": {"type": "path", "required": True},
        "cache_root": {"type": "path", "required": True},
        "wheels": text,
        "proxy": text,
        "ca_bundle": text,
        "timeout": {"type": "int", "default": 3600},
        "parallel": {"type": "int", "default": 4},
    }
    rows = {"type": "list", "elements": "dict", "options": row, "required": True}
    module = AnsibleModule(argument_spec={"environments": rows, **common}, supports_check_mode=True)
    os.umask(0o022)
    parallel = max(1, min(module.params["parallel"], len(module.params["environments"])))
    shared = {name: module.params[name] for name in common}
    shared["workers"] = max(1, (os.cpu_count() or 1) // parallel)
    # Threads: all of the work is done by other programs.
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        outcomes = list(
            pool.map(
                lambda options: attempt({**shared, **options}, check_mode=module.check_mode),
                module.params["environments"],
            )
        )
    done = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
    problems = [outcome for outcome in outcomes if isinstance(outcome, str)]
    report = [line for outcome in done for line in outcome.report]
    if problems:
        module.fail_json(msg="\n".join(problems), report=report)
    module.exit_json(
        changed=any(outcome.changed for outcome in done),
        diff=[outcome.diff for outcome in done if outcome.diff],
        environments=[outcome.result() for outcome in done],
        report=report,
    )


if __name__ == "__main__":
    main()
