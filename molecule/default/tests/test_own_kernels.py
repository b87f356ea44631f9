# SPDX-License-Identifier: BSD-3-Clause
"""A researcher brings her own environments: ganymede-kernel, as she calls it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host

from tests.hub_client import SERVER, Researcher

HOME = "/oceano/gmeteo/users/meteo1"
OWN = f"{HOME}/.local/share/jupyter/kernels"
PROGRAM = "/software/jupyterhub/bin/ganymede-kernel"
NEW = "/software/jupyterhub/kernels/jh-ganymede-pyGMS-3.11/current"
VENV = f'{HOME}/my env\'s "old" one'
NAME = "my-env-s-old-one"


@pytest.fixture(scope="module")
def hers(host: Host) -> Iterator[None]:
    """Environments of meteo1's: a venv without a kernel, and what is none."""
    as_her(host, f"{NEW}/bin/python -m venv --without-pip {shlex.quote(VENV)}")
    as_her(host, f"mkdir -p {HOME}/nothing/bin")
    yield
    as_her(host, f"rm -rf {shlex.quote(VENV)} {HOME}/nothing {HOME}/moved {OWN} {HOME}/full")


def as_her(host: Host, command: str, language: str = "C.UTF-8") -> CommandResult:
    """Run a command as meteo1, in her home."""
    script = shlex.quote(f"cd {HOME} && {command}")
    found: CommandResult = host.run(
        f"runuser -u meteo1 -- env HOME={HOME} LANG={language} bash -c {script}"
    )
    return found


def kernel(host: Host, *arguments: str, language: str = "C.UTF-8") -> CommandResult:
    """Call ganymede-kernel as meteo1."""
    return as_her(host, shlex.join([PROGRAM, *arguments]), language)


def give_it_a_kernel(host: Host) -> None:
    """What `pip install ipykernel` would do."""
    lines = f"{NEW}/lib/python3.11/site-packages"
    done = as_her(host, f"echo {lines} > {shlex.quote(VENV)}/lib/python3.11/site-packages/k.pth")
    assert done.rc == 0, done.stderr


def test_what_is_missing_is_said_and_how_it_is_installed(host: Host, hers: None) -> None:
    refused = kernel(host, "add", VENV)
    assert refused.rc == 1
    assert "ipykernel is missing" in refused.stderr
    (command,) = [line for line in refused.stderr.splitlines() if "install ipykernel" in line]
    # The venv has no pip, and Debian's Python no ensurepip: the notebook server's pip does it.
    assert shlex.split(command)[1:] == [
        *("-m", "pip", "--python", f"{VENV}/bin/python", "install", "ipykernel"),
    ]
    spanish = kernel(host, "add", VENV, language="es_ES.UTF-8")
    assert "aún no tiene núcleo: falta ipykernel" in spanish.stderr
    assert not host.file(OWN).exists


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("nothing", "there is no bin/python and no bin/R in it"),
        ("/no/such", "/no/such is not a folder on this machine"),
        ("two\nlines", "the path has a control character"),
        ("", "there is no bin/python"),
    ],
)
def test_what_is_no_environment_is_refused(host: Host, hers: None, prefix: str, words: str) -> None:
    refused = kernel(host, "add", prefix)
    assert (refused.rc, refused.stdout) == (1, "")
    assert words in refused.stderr
    assert not host.file(OWN).exists


def test_an_environment_is_added_once_started_and_used(
    host: Host, hers: None, running: Researcher
) -> None:
    give_it_a_kernel(host)
    added = kernel(host, "add", VENV.removeprefix(f"{HOME}/"))  # a relative path
    assert added.rc == 0, added.stderr
    assert f"{NAME}: started, python 3.11" in added.stdout
    spec = host.file(f"{OWN}/{NAME}/kernel.json").content
    again = kernel(host, "add", f"{VENV}/", language="es_ES.UTF-8")
    assert (again.rc, again.stdout) == (0, f"{NAME}: ya estaba, y responde.\n")
    assert host.file(f"{OWN}/{NAME}/kernel.json").content == spec
    assert json.loads(spec)["argv"][:3] == [
        *("/software/jupyterhub/bin/start-kernel", "--environment", VENV),
    ]
    offered = running.get(SERVER, "api/kernelspecs").json()["kernelspecs"]
    assert list(offered)[-1] == NAME, "after those of the table"
    used = running.start_kernel(SERVER, NAME)
    code = "import os, sys; print(os.environ['VIRTUAL_ENV'] == sys.prefix, sys.prefix)"
    assert running.compute(SERVER, used, code) == f"True {VENV}"


def test_a_conda_environment_with_r_and_python_gets_the_language_that_is_asked_for(
    host: Host, hers: None
) -> None:
    """The R of the node is a prefix of its own."""
    added = kernel(host, "add", "/usr", "--language", "R", "--name", "r-of-debian")
    assert added.rc == 0, added.stderr
    assert "R 4.2" in added.stdout
    conda = kernel(host, "add", NEW, "--name", "mine", "--display-name", "Mío")
    assert conda.rc == 0, conda.stderr
    listed = kernel(host, "list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["mine", NAME, "r-of-debian"]
    assert "Mío  [ok]" in listed[0]


def test_names_that_are_taken_or_none_are_refused(host: Host, hers: None) -> None:
    for name, words in (
        ("mine", f"You have a kernel mine already, of {NEW}"),
        ("JH-ganymede-R", "is the name of a kernel that everybody has"),
        ("../../.bashrc", "cannot be a kernel's name"),
        ("a b", "cannot be a kernel's name"),
    ):
        refused = kernel(host, "add", VENV, "--name", name)
        assert refused.rc == 1, name
        assert words in refused.stderr


def test_a_kernel_that_does_not_answer_is_not_added(host: Host, hers: None) -> None:
    broken = f"{HOME}/broken"
    as_her(host, f"mkdir -p {broken}/bin && touch {broken}/pyvenv.cfg")
    script = "#!/bin/sh\n[ $1 = -c ] && exit 0\necho the end of it >&2\nexit 3\n"
    as_her(
        host, f"printf %s {shlex.quote(script)} > {broken}/bin/python; chmod +x {broken}/bin/python"
    )
    refused = kernel(host, "add", broken)
    as_her(host, f"rm -rf {broken}")
    assert refused.rc == 1
    assert "did not answer, so it was not added" in refused.stderr
    assert "the end of it" in refused.stderr
    assert not host.file(f"{OWN}/broken").exists


def test_a_full_home_changes_nothing(host: Host, hers: None) -> None:
    """A file system of 64 kB in the place of the folder of her kernels."""
    host.check_output(f"mkdir -p {HOME}/full && mount -t tmpfs -o size=64k tmpfs {HOME}/full")
    try:
        host.check_output(
            f"chown meteo1 {HOME}/full && dd if=/dev/zero of={HOME}/full/x bs=4k || true"
        )
        command = shlex.join([PROGRAM, "add", NEW, "--name", "late"])
        refused = as_her(host, f"JUPYTER_DATA_DIR={HOME}/full JUPYTER_RUNTIME_DIR=/tmp {command}")
        assert refused.rc == 1
        assert "No space left on device" in refused.stderr
        assert host.run(f"find {HOME}/full -name 'late*'").stdout == ""
    finally:
        host.check_output(f"umount {HOME}/full")


def test_an_environment_that_is_gone_is_listed_and_removed(host: Host, hers: None) -> None:
    as_her(host, f"mv {shlex.quote(VENV)} moved")
    assert f"[its environment is gone]  {VENV}" in kernel(host, "list").stdout
    removed = kernel(host, "remove", NAME)
    assert removed.rc == 0
    assert not host.file(f"{OWN}/{NAME}").exists
    again = kernel(host, "remove", NAME)
    assert again.rc == 1
    assert "There are: mine, r-of-debian." in again.stderr


def test_what_others_made_is_left_to_her(host: Host, hers: None) -> None:
    as_her(host, f"mkdir -p {OWN}/foreign && echo '[]' > {OWN}/foreign/kernel.json")
    assert "not made by ganymede-kernel" in kernel(host, "list").stdout
    refused = kernel(host, "remove", "foreign")
    assert refused.rc == 1
    assert f"{OWN}/foreign" in refused.stderr
    assert host.file(f"{OWN}/foreign/kernel.json").exists


def test_a_wrong_command_line_says_how_it_goes(host: Host) -> None:
    for arguments in ([], ["add"], ["sub"], ["add", "/usr", "--language", "perl"]):
        refused = kernel(host, *arguments)
        assert refused.rc == 2
        assert "usage: ganymede-kernel" in refused.stderr
