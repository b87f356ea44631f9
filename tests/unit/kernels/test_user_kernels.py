# SPDX-License-Identifier: BSD-3-Clause
"""ganymede-kernel before it starts a kernel: what it refuses, and what it says then."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

WRAPPER = Path(__file__).resolve().parents[3] / "roles" / "kernels" / "files" / "start-kernel"
ENGLISH, SPANISH = "C.UTF-8", "es_ES.UTF-8"

Add = Callable[..., tuple[int, str]]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program without the notebook server's libraries: each kernel that it starts answers."""
    for name, attribute, value in (
        ("jupyter_client.kernelspec", "KernelSpecManager", None),
        ("jupyter_client.manager", "KernelManager", None),
        ("jupyter_core.paths", "jupyter_data_dir", lambda: str(tmp_path / "data")),
    ):
        package = name.partition(".")[0]
        module = ModuleType(name)
        setattr(module, attribute, value)
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        monkeypatch.setitem(sys.modules, name, module)
    # Set first, so that what is imported here is forgotten afterwards.
    monkeypatch.setitem(sys.modules, "user_kernels", ModuleType("user_kernels"))
    del sys.modules["user_kernels"]
    program = importlib.import_module("user_kernels")
    monkeypatch.setattr(program, "answer", lambda folder, name: "python 3.11")
    return program


@pytest.fixture
def add(
    program: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Add:
    """`ganymede-kernel add`: exit status and errors."""

    def call(*arguments: str | Path, language: str = ENGLISH) -> tuple[int, str]:
        monkeypatch.setenv("LC_ALL", language)
        words = ("add", *map(str, arguments))
        status = program.main(str(WRAPPER), str(tmp_path / "table"), *words)
        return status, capsys.readouterr().err

    return call


def environment(prefix: Path, script: str) -> Path:
    """An environment whose Python is a script."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").write_text(f"#!/bin/sh\n{script}\n")
    (prefix / "bin/python").chmod(0o755)
    return prefix


def test_the_names_that_are_asked_for_are_written(add: Add, tmp_path: Path) -> None:
    prefix = environment(tmp_path / "an env", "exit 0")
    assert add(prefix, "--name", "mine", "--display-name", "Mío 2") == (0, "")
    spec = json.loads((tmp_path / "data/kernels/mine/kernel.json").read_text())
    assert spec["display_name"] == "Mío 2"
    assert add(prefix) == (0, "")
    assert (tmp_path / "data/kernels/an-env/kernel.json").exists()


@pytest.mark.parametrize(
    ("option", "sentences"),
    [
        ("--display-name", ("cannot be shown in JupyterLab", "no se puede mostrar en JupyterLab")),
        ("--name", ("cannot be a kernel's name", "no puede ser el nombre de un núcleo")),
    ],
)
@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\n", "\x1b[1m", "\udcff"])
def test_a_name_that_is_blank_or_has_a_control_character_is_refused(
    add: Add, tmp_path: Path, option: str, sentences: tuple[str, str], name: str
) -> None:
    prefix = environment(tmp_path / "env", "exit 0")
    for language, words in zip((ENGLISH, SPANISH), sentences, strict=True):
        status, said = add(prefix, option, name, language=language)
        assert status == 1
        assert f"{name!r} {words}" in said
    assert not (tmp_path / "data").exists()


def test_a_python_that_hangs_is_not_taken_for_one_without_a_kernel(
    add: Add, program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "LOOK_TIMEOUT", 0.5)
    prefix = environment(tmp_path / "slow", "exec sleep 60")
    for language, words in (
        (ENGLISH, "did not answer within 0.5 s, so nothing was added."),
        (SPANISH, "no respondió en 0.5 s, así que no se ha añadido nada."),
    ):
        assert add(prefix, language=language) == (1, f"{prefix}/bin/python {words}\n")


def test_the_program_of_the_language_that_is_asked_for_is_named(add: Add, tmp_path: Path) -> None:
    prefix = environment(tmp_path / "env", "exit 0")
    for language, words in ((ENGLISH, "there is no bin/R in it."), (SPANISH, "no contiene bin/R.")):
        status, said = add(prefix, "--language", "R", language=language)
        assert status == 1
        assert f"{prefix}: {words}" in said
        assert "bin/python" not in said


def test_the_advice_fits_what_the_environment_has(add: Add, tmp_path: Path) -> None:
    prefix = tmp_path / "a venv"
    venv.create(prefix, symlinks=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    python = shlex.quote(f"{prefix}/bin/python")
    install = f"{python} -m pip install ipykernel"

    def advice() -> str:
        status, said = add(prefix)
        assert status == 1
        _, command, words = said.splitlines()
        assert words == "It said: ModuleNotFoundError: No module named 'ipykernel'"
        return command.strip()

    # The Python that runs the tests may be one of Debian's, without ensurepip.
    (packages / "ensurepip.py").touch()
    assert advice() == f"{python} -m ensurepip && {install}"
    (packages / "ensurepip.py").unlink()
    (packages / "none.pth").write_text("import sys; sys.modules['ensurepip'] = None\n")
    assert advice() == f"{shlex.quote(sys.executable)} -m pip --python {python} install ipykernel"
    (packages / "pip.py").touch()
    assert advice() == install
    (prefix / "conda-meta").mkdir()
    assert advice().startswith("micromamba install -p ")
