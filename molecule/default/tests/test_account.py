# SPDX-License-Identifier: BSD-3-Clause
"""What the account rhea may do, attacked as rhea."""

from __future__ import annotations

import pytest
from testinfra.host import Host

QSUB = "/usr/local/torque/bin/qsub"
QDEL = "/usr/local/torque/bin/qdel"


def as_rhea(host: Host, command: str) -> int:
    """The exit status of a command of rhea's."""
    status: int = host.run(f"runuser -u rhea -- {command}").rc
    return status


@pytest.mark.parametrize(
    "command",
    [
        "sudo -n id",
        f"sudo -n {QSUB} </dev/null",
        f"sudo -n -u root {QSUB} </dev/null",
        f"sudo -n -u outsider {QSUB} </dev/null",
        f"sudo -n -u daemon {QSUB} </dev/null",
        "sudo -n -u meteo1 /bin/sh -c id",
        "sudo -n -u meteo1 -s",
        "sudo -n -u meteo1 -i",
        "sudo -n -u meteo1 qsub </dev/null",
        f"sudo -n -u meteo1 {QSUB} /etc/hostname",
        f"sudo -n -u meteo1 {QSUB} -I",
        f"sudo -n -u meteo1 {QSUB} -v LD_PRELOAD=/tmp/x.so </dev/null",
        f"sudo -n -u meteo1 LD_PRELOAD=/tmp/x.so {QSUB} </dev/null",
        f"sudo -n -E -u meteo1 {QSUB} </dev/null",
        f"sudo -n -u meteo1 {QDEL}",
        f"sudo -n -u meteo1 {QDEL} all",
        f"sudo -n -u meteo1 {QDEL} -p 1.ganymede",
        f"sudo -n -u meteo1 {QDEL} 1.ganymede 2.ganymede",
        f"sudo -n -u meteo1 {QDEL} '1.ganymede -p'",
        f"sudo -n -u meteo1 {QDEL} '1.ganymede\n2.ganymede'",
        f"sudo -n -u meteo1 {QDEL} 1",
        f"sudo -n -u meteo1 /usr/local/torque/bin/../bin/{QSUB.rsplit('/', 1)[1]} -I",
        "sudo -n -u meteo1 sudoedit /etc/passwd",
    ],
)
def test_sudo_refuses(host: Host, command: str) -> None:
    outcome = host.run(f"runuser -u rhea -- {command}")
    assert outcome.rc == 1, outcome.stdout + outcome.stderr
    assert "sudo: " in outcome.stderr, "sudo refuses, not the command: " + outcome.stderr


def test_sudo_lets_the_hub_submit_and_delete(host: Host) -> None:
    job = host.check_output(
        f"cd / && echo 'sleep 100' | runuser -u rhea -- sudo -n -u meteo1 {QSUB}"
    )
    assert "meteo1" in host.check_output(f"/usr/local/torque/bin/qstat -f {job}")
    assert as_rhea(host, f"sudo -n -u meteo1 {QDEL} {job}") == 0


def test_account_has_no_shell_and_no_password(host: Host) -> None:
    rhea = host.user("rhea")
    assert rhea.shell in {"/usr/sbin/nologin", "/sbin/nologin", "/bin/false"}
    assert rhea.password in {"!", "*", "!!", "!*"}
    assert rhea.uid < 1000


def test_secrets_are_for_root_alone(host: Host) -> None:
    files = host.check_output("find /etc/jupyterhub -name '*.env'").split()
    assert files
    for file in files:
        assert (host.file(file).mode, host.file(file).user) == (0o600, "root")
        for line in host.file(file).content_string.splitlines():
            name, _, secret = line.partition("=")
            if name and len(secret) >= 32:
                assert secret not in host.check_output(
                    "systemctl show jupyterhub-hub jupyterhub-proxy"
                )
                assert secret not in host.check_output("ps -eo args")
                assert secret not in host.check_output("journalctl --no-pager")


def test_code_and_configuration_cannot_be_changed_by_the_account(host: Host) -> None:
    for path in host.check_output(
        "find /opt/jupyterhub/run /opt/jupyterhub/envs -maxdepth 2"
    ).split():
        assert as_rhea(host, f"test -w {path}") == 1, path
    assert as_rhea(host, "test -r /opt/jupyterhub/run/jupyterhub_config.py") == 0


def test_state_is_for_the_account_alone(host: Host) -> None:
    state = host.file("/var/lib/jupyterhub")
    assert (state.user, state.mode) == ("rhea", 0o700)
    assert host.file("/var/lib/jupyterhub/jupyterhub_cookie_secret").mode == 0o600


def test_units_run_as_the_account(host: Host) -> None:
    for unit in ("jupyterhub-hub", "jupyterhub-proxy"):
        service = host.service(unit)
        assert service.is_running
        assert service.is_enabled
        assert service.systemd_properties["User"] == "rhea"


def test_proxy_and_hub_api_listen_where_they_should(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:8001").is_listening
    assert not host.socket("tcp://0.0.0.0:8001").is_listening
