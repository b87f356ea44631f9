# SPDX-License-Identifier: BSD-3-Clause
"""The wrapper that starts a kernel: activates, resolves the link once, becomes the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

WRAPPER = Path(__file__).resolve().parents[3] / "roles" / "kernels" / "files" / "start-kernel"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment with an activation script and a program, behind a link."""
    version = tmp_path / "demo-1"
    (version / "bin").mkdir(parents=True)
    (version / "conda-meta").mkdir()
    (version / "etc/conda/activate.d").mkdir(parents=True)
    (version / "etc/conda/activate.d/java.sh").write_text(
        'export JAVA_HOME=$CONDA_PREFIX/java\nif [ $# != 0 ]; then exit 9; fi\necho "$NO_SUCH"\n'
    )
    program = version / "bin" / "kernel"
    program.write_text(
        '#!/bin/sh\necho "$$|$CONDA_PREFIX|$JAVA_HOME|$1|$2"\nexec sleep "${3:-0}"\n'
    )
    program.chmod(0o755)
    (tmp_path / "current").symlink_to("demo-1")
    return tmp_path / "current"


def start(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [WRAPPER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables,
    )


def outcome(*arguments: str | Path, **variables: str) -> tuple[int, str, str]:
    """Exit status, standard output and errors."""
    with start(*arguments, **variables) as process:
        output, errors = process.communicate(timeout=10)
    return process.returncode, output, errors


def test_it_activates_and_becomes_the_kernel(environment: Path) -> None:
    with start("--environment", environment, "--", "kernel", "-f", "a b") as process:
        output, _ = process.communicate(timeout=10)
    version = environment.resolve()
    assert process.returncode == 0
    assert output.splitlines()[-1] == f"{process.pid}|{version}|{version}/java|-f|a b"


def test_a_signal_reaches_the_kernel_and_its_end_is_reported(environment: Path) -> None:
    with start("--environment", environment, "--", "kernel", "-f", "x", "60") as process:
        assert process.stdout is not None
        while str(process.pid) not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == -signal.SIGINT


def test_the_kernels_exit_status_is_passed_on(environment: Path) -> None:
    with start("--environment", environment, "--", "sh", "-c", "exit 7") as process:
        assert process.wait(timeout=10) == 7


def test_a_kernel_keeps_its_version_when_the_link_is_switched(environment: Path) -> None:
    second = environment.parent / "demo-2"
    second.mkdir()
    script = "read x; command -v kernel"
    command = [str(WRAPPER), "--environment", str(environment), "--", "sh", "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as held:
        while os.readlink(f"/proc/{held.pid}/exe").endswith("bash"):  # noqa: PTH115 - until it is the kernel
            pass
        environment.unlink()
        environment.symlink_to("demo-2")
        output, _ = held.communicate("go\n", timeout=10)
    assert output.splitlines()[-1] == f"{environment.parent}/demo-1/bin/kernel"


def test_a_missing_environment_is_said(tmp_path: Path) -> None:
    status, _, errors = outcome("--environment", tmp_path / "none", "--", "kernel")
    assert status == 1
    assert f"the environment {tmp_path}/none does not exist" in errors


@pytest.mark.parametrize(
    "arguments",
    [[], ["/opt"], ["--environment"], ["--module"], ["--"], ["--find"], ["--find", "a", "b"]],
)
def test_it_says_how_to_call_it(arguments: list[str]) -> None:
    status, output, errors = outcome(*arguments)
    assert (status, output) == (2, "")
    assert "usage: start-kernel" in errors


SHOW = 'echo "$VIRTUAL_ENV|$CONDA_PREFIX|$PYTHONHOME|$PATH"'


def test_a_virtual_environment_is_one(tmp_path: Path) -> None:
    """What the notebook server's own environment set does not stay."""
    venv = tmp_path / "my env's"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    before = {"CONDA_PREFIX": "/server", "PYTHONHOME": "/server"}
    status, output, errors = outcome("--environment", venv, "--", "bash", "-c", SHOW, **before)
    assert (status, errors) == (0, "")
    assert output.strip() == f"{venv}|||{venv}/bin:{os.environ['PATH']}"


def test_a_plain_prefix_leads_the_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    _, output, _ = outcome("--environment", tmp_path, "--", "bash", "-c", SHOW)
    assert output.strip() == f"|||{tmp_path}/bin:{os.environ['PATH']}"


def test_a_folder_that_is_no_prefix_is_said(tmp_path: Path) -> None:
    status, _, errors = outcome("--environment", tmp_path, "--", "true")
    assert status == 1
    assert "has no folder bin" in errors


@pytest.mark.parametrize(
    ("release", "folder"),
    [("0.7.4", "/before-0.8"), ("0.8.0", ""), ("0.9.0", ""), ("0.10.0", ""), (None, "")],
)
def test_an_old_dask_jobqueue_finds_its_settings(
    environment: Path, tmp_path: Path, release: str | None, folder: str
) -> None:
    settings = tmp_path / "dask"
    (settings / "before-0.8").mkdir(parents=True)
    (settings / "before-0.8" / "jobqueue.yaml").touch()
    packages = environment / "lib" / "python3.7" / "site-packages"
    packages.mkdir(parents=True)
    if release:
        (packages / f"dask_jobqueue-{release}.dist-info").mkdir()
    program = environment / "bin" / "kernel"
    program.write_text("#!/bin/sh\necho $DASK_ROOT_CONFIG\n")
    start = ("--environment", environment, "--", "kernel")
    # Also where a kernel of another release starts it.
    for given in (settings, settings / "before-0.8"):
        _, output, _ = outcome(*start, DASK_ROOT_CONFIG=str(given))
        assert output.splitlines()[-1] == f"{settings}{folder}"
    # By the program, where it is no environment that was named.
    assert outcome("--", program, DASK_ROOT_CONFIG=str(settings))[1] == f"{settings}{folder}\n"


def test_settings_of_dask_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python3.7/site-packages/dask_jobqueue-0.7.4.dist-info").mkdir(parents=True)
    program = tmp_path / "bin" / "kernel"
    program.write_text("#!/bin/sh\necho $DASK_ROOT_CONFIG\n")
    program.chmod(0o755)
    start = ("--environment", tmp_path, "--", "kernel")
    assert outcome(*start, DASK_ROOT_CONFIG="/etc/dask")[1] == "/etc/dask\n"
    assert outcome(*start)[1] == "\n"


MODULES = """
module() {
  [ "$1" = load ] && [ $# = 2 ] || return 9
  case $2 in
    R/4.3|R) LOADEDMODULES=${LOADEDMODULES:+$LOADEDMODULES:}R/4.3
      export R_HOME=/opt/R PATH=$HERE:$PATH ;;
    silent) ;;  # as old releases of modules fail
    *) return 1 ;;
  esac
}
"""


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, str]:
    """A site with environment modules that bring R."""
    (tmp_path / "init").mkdir()
    (tmp_path / "init/bash").write_text(MODULES)
    program = tmp_path / "R"
    program.write_text('#!/bin/sh\necho "$$|$R_HOME|$*"\n')
    program.chmod(0o755)
    return {"MODULESHOME": str(tmp_path), "HERE": str(tmp_path), "LOADEDMODULES": ""}


@pytest.mark.parametrize("name", ["R/4.3", "R"])
def test_modules_are_loaded_first(modules: dict[str, str], name: str) -> None:
    with start("--module", name, "--", "R", "-f", "x y", **modules) as process:
        output, _ = process.communicate(timeout=10)
    assert output.strip() == f"{process.pid}|/opt/R|-f x y"


def test_what_was_activated_can_be_handed_on(environment: Path, modules: dict[str, str]) -> None:
    command = ("sh", "-c", 'echo "$GANYMEDE_ENVIRONMENT $GANYMEDE_MODULES"')
    given = ("--environment", environment, "--module", "R/4.3", "--module", "R")
    _, output, _ = outcome(*given, "--", *command, **modules)
    prefix, joined = output.split()[-2:]
    assert (prefix, joined) == (str(environment.resolve()), "R/4.3:R")
    again = outcome("--environment", prefix, "--module", joined, "--", *command, **modules)
    assert again[:2] == (0, output)
    # What an outer kernel had is not handed on by one without.
    assert outcome("--", *command, GANYMEDE_MODULES="R", GANYMEDE_ENVIRONMENT=prefix)[1] == " \n"


@pytest.mark.parametrize("name", ["Julia/1", "silent"])
def test_a_module_that_cannot_be_loaded_is_said(modules: dict[str, str], name: str) -> None:
    status, output, errors = outcome("--module", name, "--", "echo", "started", **modules)
    assert (status, output) == (1, "")
    assert f"the module {name} cannot be loaded" in errors


def test_find_says_where_the_program_is_and_starts_nothing(modules: dict[str, str]) -> None:
    found = outcome("--module", "R", "--find", "R", **modules)
    assert found == (0, f"{modules['HERE']}/R\n", "")
    status, _, errors = outcome("--find", "no-such-program")
    assert status == 1
    assert "there is no program no-such-program on" in errors
