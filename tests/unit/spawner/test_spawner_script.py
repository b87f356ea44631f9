# SPDX-License-Identifier: BSD-3-Clause
"""The batch script holds whatever the values are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from custom_pbs_spawner.script import ScriptError, directive, quote, render
from jinja2 import UndefinedError

TEMPLATE = Path(__file__).parents[3] / "roles" / "jupyterhub" / "files" / "batch_script.sh.j2"

VALUES: dict[str, Any] = {
    "job_name": "jupyterhub-singleuser",
    "tag": "0123abcd-0123456789abcdef",
    "keeper": "/software/jupyterhub/bin/keep_job.py",
    "username": "ana",
    "queue": "tintel",
    "cores": "1",
    "memory": "800mb",
    "walltime": "24:00:00",
    "home": "/oceano/gmeteo/users/ana",
    "log_directory": "/oceano/gmeteo/users/ana/.ganymede/logs",
    "notebook_environment": "/software/jupyterhub/envs/notebook/current",
    "jupyter_path": "/software/jupyterhub/share/jupyter",
    "jupyter_config_path": "/software/jupyterhub/etc/jupyter",
    "arguments": [],
}

HOSTILE = [
    "",
    "plain",
    "two words",
    "it's",
    "$(touch /tmp/never)",
    "`id`",
    "; rm -rf ~ #",
    'quote " and \\ backslash \\n',
    "a\n#PBS -q urgent\nb",
    "\n#PBS -l nodes=64",
    "tab\tand\rreturn",
    "\x1b[0m\x07\x7f",
    "'\n'",
    "\\'\n",
    "\n1a",
    "áñ€ 漢字",
    "{{ queue }} {% raw %}",
    "!history ~ * ?",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_quoted_value_is_one_word_on_one_line(value: str) -> None:
    word = quote(value)
    assert "\n" not in word
    script = f"printf %s {word}"
    result = subprocess.run(["/bin/bash", "-c", script], capture_output=True, check=True)
    assert result.stdout.decode() == value


def test_exports_reach_the_job_as_they_are(tmp_path: Path) -> None:
    """The whole script under bash, with an `env` in the place of the server's Python."""
    prefix = tmp_path / "an 'odd' prefix" / "bin"
    prefix.mkdir(parents=True)
    (prefix / "python").write_text("#!/bin/sh\nexec /usr/bin/env -0\n")
    (prefix / "python").chmod(0o755)
    exports = {f"VALUE_{number}": value for number, value in enumerate(HOSTILE)}
    values = {
        **VALUES,
        "home": str(tmp_path),
        "log_directory": str(tmp_path / ".ganymede" / "logs"),
        "notebook_environment": str(prefix.parent),
    }
    script = tmp_path / "job"
    script.write_text(render(TEMPLATE, values, exports))
    environment = {"PBS_JOBID": "7.encina", "PATH": "/nowhere"}
    subprocess.run(["/bin/bash", "-u", script], check=True, env=environment)
    lines = (tmp_path / ".ganymede" / "logs" / "7.encina.log").read_bytes().decode()
    environment = dict(
        pair.split("=", 1) for pair in lines.partition("\n")[2].split("\0") if "=" in pair
    )
    assert {name: environment.get(name) for name in exports} == exports
    assert environment["PATH"] == f"{prefix}:/usr/bin:/bin:/nowhere"
    assert environment["JUPYTER_PATH"] == VALUES["jupyter_path"]
    assert environment["JUPYTER_CONFIG_PATH"] == VALUES["jupyter_config_path"]
    assert environment["OMP_NUM_THREADS"] == str(VALUES["cores"])


def test_no_value_makes_a_directive() -> None:
    exports = {f"VALUE_{number}": value for number, value in enumerate(HOSTILE)}
    script = render(TEMPLATE, {**VALUES, "arguments": HOSTILE}, exports)
    plain = render(TEMPLATE, VALUES, {})
    directives = [line for line in script.splitlines() if line.startswith("#PBS")]
    assert directives == [line for line in plain.splitlines() if line.startswith("#PBS")]
    first_command = script.index("umask 077")
    assert script.rindex("#PBS -") > first_command, "the hostile ones are there, quoted"
    assert "#PBS -v" not in script


@pytest.mark.parametrize(
    "value", ["", "a b", "a\n#PBS -q b", "$(id)", "a;b", "'a'", "-q", "a\x00", "ñ"]
)
def test_directives_take_plain_values_only(value: str) -> None:
    with pytest.raises(ScriptError):
        directive(value)
    with pytest.raises(ScriptError):
        render(TEMPLATE, {**VALUES, "queue": value}, {})


@pytest.mark.parametrize("name", ["", "A B", "1A", "A=B", "A\nB", "A;id"])
def test_names_of_variables(name: str) -> None:
    with pytest.raises(ScriptError):
        render(TEMPLATE, VALUES, {name: "x"})


def test_nul_is_refused() -> None:
    with pytest.raises(ScriptError):
        render(TEMPLATE, VALUES, {"A": "a\x00b"})


def test_template_with_an_unknown_name_is_refused(tmp_path: Path) -> None:
    template = tmp_path / "site.sh.j2"
    template.write_text("#PBS -q {{ quue }}\n")
    with pytest.raises(UndefinedError):
        render(template, VALUES, {})
