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


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [WRAPPER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_it_activates_and_becomes_the_kernel(environment: Path) -> None:
    with start(environment, "kernel", "-f", "a b") as process:
        output, _ = process.communicate(timeout=10)
    version = environment.resolve()
    assert process.returncode == 0
    assert output.splitlines()[-1] == f"{process.pid}|{version}|{version}/java|-f|a b"


def test_a_signal_reaches_the_kernel_and_its_end_is_reported(environment: Path) -> None:
    with start(environment, "kernel", "-f", "x", "60") as process:
        assert process.stdout is not None
        while str(process.pid) not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == -signal.SIGINT


def test_the_kernels_exit_status_is_passed_on(environment: Path) -> None:
    with start(environment, "sh", "-c", "exit 7") as process:
        assert process.wait(timeout=10) == 7


def test_a_kernel_keeps_its_version_when_the_link_is_switched(environment: Path) -> None:
    second = environment.parent / "demo-2"
    second.mkdir()
    command = [str(WRAPPER), str(environment), "sh", "-c", "read x; command -v kernel"]
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
    with start(tmp_path / "none", "kernel") as process:
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert f"the environment {tmp_path}/none does not exist" in errors


def test_it_says_how_to_call_it() -> None:
    with start("/opt") as process:
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 2
    assert "usage: start-kernel" in errors
