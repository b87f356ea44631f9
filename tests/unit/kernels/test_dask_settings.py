# SPDX-License-Identifier: BSD-3-Clause
"""From the profile table to dask's workers, and the certificate by which they know each other."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import ganymede_certificate
import ganymede_dask
import pytest
import yaml

from plugins.filter.dask import dask_settings, old_dask_settings

REPOSITORY = Path(__file__).resolve().parents[3]
TLS = {"DASK_X": "$HOME/.ganymede/dask/tls.pem"}
WRAPPER = str(REPOSITORY / "roles" / "kernels" / "files" / "start-kernel")


@pytest.fixture(scope="module")
def table() -> list[dict[str, Any]]:
    """The production table of profiles."""
    document = yaml.safe_load((REPOSITORY / "group_vars" / "all" / "profiles.yml").read_text())
    rows: list[dict[str, Any]] = document["jupyterhub_profiles"]
    return rows


def test_each_profile_has_a_section_and_the_first_is_the_usual_one(
    table: list[dict[str, Any]],
) -> None:
    sections = dask_settings(table, TLS, WRAPPER)["jobqueue"]
    assert list(sections) == ["pbs", "tintel", "long", "himem", "himem4"]
    assert sections["pbs"] == sections["tintel"]
    himem4 = sections["himem4"]
    assert (himem4["queue"], himem4["cores"], himem4["walltime"]) == ("himem", 4, "48:00:00")
    assert himem4["resource-spec"] == "nodes=1:ppn=4,mem=32gb"
    assert himem4["memory"] == f"{32 * 1024**3} B"


def test_an_unquoted_walltime_is_the_time_that_was_meant() -> None:
    row = {"key": "a", "display_name": "A", "queue": "q", "cores": 1, "memory": "1gb"}
    sections = dask_settings([{**row, "walltime": 86400}], TLS, WRAPPER)["jobqueue"]
    assert sections["a"]["walltime"] == "24:00:00"


def test_no_scheduler_listens_without_tls(table: list[dict[str, Any]]) -> None:
    for section in dask_settings(table, TLS, WRAPPER)["jobqueue"].values():
        assert section["scheduler-options"]["protocol"] == "tls://"
        assert section["scheduler-options"]["dashboard_address"] == "localhost:0"
        assert section["worker-extra-args"] == ["--dashboard-address", "localhost:0"]


def test_old_names_have_the_values_of_the_new_ones(table: list[dict[str, Any]]) -> None:
    """Each setting of `pbs` that dask_jobqueue 0.7.4 has is there, and no other."""
    new = dask_settings(table, TLS, WRAPPER)
    old = old_dask_settings(new)
    assert old["distributed"] == new["distributed"]
    assert list(old["jobqueue"]) == list(new["jobqueue"])
    for name, section in old["jobqueue"].items():
        assert set(section) == {
            *("name", "cores", "memory", "processes", "interface", "death-timeout", "extra"),
            *("local-directory", "shared-temp-directory", "shebang", "queue", "project"),
            *("walltime", "env-extra", "resource-spec", "job-extra", "log-directory"),
            *("scheduler-options", "header-skip"),
        }
        assert section["env-extra"] == new["jobqueue"][name]["job-script-prologue"]
        assert section["job-extra"][0] == "-r n"
        assert section["extra"] == ["--dashboard-address", "localhost:0"]
    assert old_dask_settings({}) == {}


def test_the_prologue_is_a_script_that_writes_the_log_and_keeps_few(
    table: list[dict[str, Any]], tmp_path: Path
) -> None:
    logs = tmp_path / ".ganymede" / "dask"
    logs.mkdir(parents=True)
    for number in range(25):
        (logs / f"worker.{number}.encina.log").touch()
        os.utime(logs / f"worker.{number}.encina.log", (number, number))
    lines = dask_settings(table, TLS, WRAPPER)["jobqueue"]["himem4"]["job-script-prologue"]
    script = tmp_path / "job.sh"
    script.write_text("\n".join([*lines, 'echo "$OMP_NUM_THREADS $DASK_X"']))
    environment = {"HOME": str(tmp_path), "PBS_JOBID": "77.encina", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["/bin/bash", "-u", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    left = {path.name for path in logs.iterdir()}
    assert len(left) == 20
    assert "worker.24.encina.log" in left
    assert "worker.0.encina.log" not in left
    said = (logs / "worker.77.encina.log").read_text()
    assert said == f"4 {tmp_path}/.ganymede/dask/tls.pem\n"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment with a blank in its name, and a script of activation that is not silent."""
    scripts = tmp_path / "her own" / "etc" / "conda" / "activate.d"
    scripts.mkdir(parents=True)
    for name in ("bin", "conda-meta"):
        (tmp_path / "her own" / name).mkdir()
    (scripts / "proj.sh").write_text('echo "exit 9"; export PROJ_DATA="$CONDA_PREFIX/share/proj"\n')
    return tmp_path / "her own"


def worker(table: list[dict[str, Any]], home: Path, status: int = 0, **variables: str) -> list[str]:
    """What a worker's job says of its activation, with what Torque gives it of `-v`."""
    section = dask_settings(table, TLS, WRAPPER)["jobqueue"]["pbs"]
    assert section["job-extra-directives"][-1] == "-v GANYMEDE_ENVIRONMENT,GANYMEDE_MODULES"
    names = ("PROJ_DATA", "R_HOME", "OMP_NUM_THREADS", "PYTHONHOME", "PBS_JOBID", "DASK_X")
    show = f'echo "${{PATH%%:*}}|{"|".join(f"${name}" for name in names)}" > "$HOME/said"'
    done = subprocess.run(
        ["/bin/bash", "-c", "\n".join([*section["job-script-prologue"], show])],
        env={
            **{"HOME": str(home), "TMPDIR": str(home), "PBS_JOBID": "77.encina"},
            **{"PATH": "/usr/bin:/bin", "PYTHONHOME": "/of/her/profile"},
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert not list(home.glob("tmp.*"))
    said = home / "said"
    return said.read_text().strip().split("|") if said.exists() else []


def test_a_worker_is_activated_as_its_kernel(
    table: list[dict[str, Any]], prefix: Path, tmp_path: Path
) -> None:
    told = worker(table, tmp_path, GANYMEDE_ENVIRONMENT=str(prefix), GANYMEDE_MODULES="")
    path, proj, _, threads, python_home, job, certificate = told
    assert (path, proj, python_home) == (f"{prefix}/bin", f"{prefix}/share/proj", "")
    assert (threads, job) == ("1", "77.encina")
    assert certificate == f"{tmp_path}/.ganymede/dask/tls.pem"
    assert (tmp_path / ".ganymede/dask/worker.77.encina.log").read_text() == "exit 9\n"


def test_a_worker_of_a_kernel_that_was_not_activated_starts(
    table: list[dict[str, Any]], tmp_path: Path
) -> None:
    told = worker(table, tmp_path, GANYMEDE_ENVIRONMENT="", GANYMEDE_MODULES="")
    assert told[:5] == ["/usr/bin", "", "", "1", "/of/her/profile"]


def test_a_worker_has_the_modules_of_its_kernel(
    table: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "init").mkdir()
    load = "module() { export R_HOME=$R_HOME/$2 LOADEDMODULES=$LOADEDMODULES:$2; }\n"
    (tmp_path / "init" / "bash").write_text(load)
    modules = "R/4.3:udunits"
    told = worker(table, tmp_path, GANYMEDE_MODULES=modules, MODULESHOME=str(tmp_path))
    assert told[:3] == ["/usr/bin", "", "/R/4.3/udunits"]


def test_a_worker_whose_activation_fails_says_so_and_ends(
    table: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert worker(table, tmp_path, status=1, GANYMEDE_ENVIRONMENT="/no/such") == []
    log = (tmp_path / ".ganymede/dask/worker.77.encina.log").read_text()
    assert "the environment /no/such does not exist" in log


def test_the_certificate_is_its_owners_and_lasts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tls.pem"
    assert not ganymede_dask.is_valid(path)
    ganymede_certificate.write_certificate(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [item.name for item in path.parent.iterdir()] == ["tls.pem"]
    assert ganymede_dask.is_valid(path)


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_file_that_is_no_certificate_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tls.pem"
    path.write_text(content)
    assert not ganymede_dask.is_valid(path)
    ganymede_certificate.write_certificate(path)
    assert ganymede_dask.is_valid(path)


def test_a_certificate_near_its_end_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tls.pem"
    ganymede_certificate.write_certificate(path)
    monkeypatch.setattr(
        ganymede_dask, "RENEWED_BEFORE", ganymede_certificate.VALID.total_seconds() + 3600
    )
    assert not ganymede_dask.is_valid(path)


def context(path: Path, side: ssl.Purpose) -> ssl.SSLContext:
    """As distributed makes it: one file is the authority, the certificate and the key."""
    made = ssl.create_default_context(side, cafile=path)
    made.verify_mode = ssl.CERT_REQUIRED
    made.check_hostname = False
    made.load_cert_chain(path)
    return made


@pytest.mark.parametrize("same", [True, False], ids=["hers", "another's"])
def test_only_her_own_certificate_opens_her_scheduler(tmp_path: Path, same: bool) -> None:
    hers, other = tmp_path / "hers.pem", tmp_path / "other.pem"
    for path in (hers, other):
        ganymede_certificate.write_certificate(path)
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with (
            connection,
            context(hers, ssl.Purpose.CLIENT_AUTH).wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            ) as secured,
        ):
            secured.settimeout(10)
            try:
                secured.do_handshake()
                got.append(secured.recv(16))
            except ssl.SSLError:
                got.append(b"refused")

    server = threading.Thread(target=serve)
    server.start()
    client = context(hers if same else other, ssl.Purpose.SERVER_AUTH)
    with socket.create_connection(listener.getsockname(), timeout=10) as plain:
        if same:
            with client.wrap_socket(plain) as secured:
                secured.sendall(b"work")
        else:
            with pytest.raises(ssl.SSLError):
                client.wrap_socket(plain)
    server.join(20)
    listener.close()
    assert got == ([b"work"] if same else [b"refused"])


def test_the_extension_prepares_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATH", "DASK_ROOT_CONFIG", "DASK_X", *ganymede_dask.ACTIVATED):
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv("HOME", str(tmp_path))
    jobs = ganymede_dask.DaskJobs(
        torque_bin="/torque/bin",
        settings_directory="/software/etc/dask",
        certificate="$HOME/.ganymede/dask/tls.pem",
        environment=TLS,
    )
    jobs.prepare()
    assert os.environ["PATH"] == "before:/torque/bin"
    assert os.environ["DASK_ROOT_CONFIG"] == "/software/etc/dask"
    assert {os.environ[name] for name in ganymede_dask.ACTIVATED} == {""}
    assert os.environ["DASK_X"] == f"{tmp_path}/.ganymede/dask/tls.pem"
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(20)
    assert ganymede_dask.is_valid(tmp_path / ".ganymede" / "dask" / "tls.pem")
