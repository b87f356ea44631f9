# SPDX-License-Identifier: BSD-3-Clause
"""What the account rhea may do, attacked as rhea."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.hub_client import wait_for

QSUB = "/usr/local/torque/bin/qsub"
QDEL = "/usr/local/torque/bin/qdel"
QSTAT = "/usr/local/torque/bin/qstat"
READER = "/opt/jupyterhub/run/bin/read_job_log.py"
LOGS = "/oceano/gmeteo/users/meteo1/.ganymede/logs"


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
        f"sudo -n -u meteo1 {QSTAT}",
        f"sudo -n -u meteo1 {QSTAT} -f",
        f"sudo -n -u meteo1 {QSTAT} -x -f",
        f"sudo -n -u meteo1 {QSTAT} 1.ganymede",
        f"sudo -n -u meteo1 {QSTAT} -x ''",
        f"sudo -n -u meteo1 {QSTAT} -x tintel",
        f"sudo -n -u meteo1 {QSTAT} -x 1.ganymede 2.ganymede",
        f"sudo -n -u root {QSTAT} -x",
        f"sudo -n -u outsider {QSTAT} -x",
        f"sudo -n -u meteo1 {READER}",
        f"sudo -n -u meteo1 {READER} 1.ganymede 2.ganymede",
        f"sudo -n -u meteo1 {READER} ../1.ganymede",
        f"sudo -n -u meteo1 {READER} '1.ganymede/../../../.ssh/id_ed25519'",
        f"sudo -n -u meteo1 {READER} /etc/hostname",
        f"sudo -n -u root {READER} 1.ganymede",
        f"sudo -n -u outsider {READER} 1.ganymede",
        f"sudo -n -u daemon {READER} 1.ganymede",
        f"sudo -n -u meteo1 /usr/bin/python3 -I {READER} 1.ganymede",
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


def test_sudo_shows_the_hub_the_jobs_of_a_researcher(host: Host) -> None:
    """All of hers, and one, where the queue server shows them to nobody else."""
    job = host.check_output(
        f"cd / && echo 'sleep 100' | runuser -u rhea -- sudo -n -u meteo1 {QSUB}"
    )
    qmgr = "/usr/local/torque/bin/qmgr -c"
    host.check_output(f"{qmgr} 'set server query_other_jobs = False'")
    try:
        assert job not in host.run(f"runuser -u rhea -- {QSTAT} -x").stdout
        as_owner = f"runuser -u rhea -- sudo -n -u meteo1 {QSTAT} -x"
        assert f"<Job_Id>{job}</Job_Id>" in host.check_output(as_owner)
        assert f"<Job_Id>{job}</Job_Id>" in host.check_output(f"{as_owner} {job}")
    finally:
        host.check_output(f"{qmgr} 'set server query_other_jobs = True'")
        as_rhea(host, f"sudo -n -u meteo1 {QDEL} {job}")


@pytest.fixture
def log(host: Host) -> Iterator[str]:
    """The path of the log of a job that never was."""
    path = f"{LOGS}/999999.ganymede.log"
    host.check_output(f"runuser -u meteo1 -- mkdir -p {LOGS}")
    yield path
    host.check_output(f"rm -rf {path}")


def test_hub_reads_the_end_of_a_log_and_nothing_that_stands_in_for_one(
    host: Host, log: str
) -> None:
    read = f"runuser -u rhea -- sudo -n -u meteo1 {READER} 999999.ganymede"
    host.check_output(f"runuser -u meteo1 -- sh -c 'seq 100000 > {log}'")
    assert host.check_output(read).endswith("99999\n100000")
    assert len(host.run(read).stdout) == 8192
    secret = "/oceano/gmeteo/users/meteo1/secret"
    host.check_output(f"runuser -u meteo1 -- sh -c 'echo secret > {secret}'")
    for make in (f"ln -s {secret}", "ln -s /dev/zero", "mkfifo", "mkdir"):
        host.check_output(f"rm -rf {log} && runuser -u meteo1 -- {make} {log}")
        outcome = host.run(f"timeout 10 {read}")
        assert (outcome.rc, outcome.stdout) == (1, ""), make
    host.check_output(f"rm {secret}")


def test_sudo_ends_a_command_that_hangs(host: Host) -> None:
    """rhea may not. The rule is tried as it is, but for its patience."""
    rule, knob = "/etc/sudoers.d/rhea-torque", "/usr/local/torque/sbin/mock-torque-knob"
    assert "TIMEOUT=45 NOPASSWD:" in host.file("/etc/sudoers.d/rhea-log").content_string
    assert "TIMEOUT=45 NOPASSWD:" in host.file(rule).content_string
    host.check_output(f"cp -p {rule} /root/rule && sed -i s/TIMEOUT=45/TIMEOUT=2/ {rule}")
    host.check_output(f"{knob} hang on")
    try:
        outcome = host.run(f"cd / && timeout 20 runuser -u rhea -- sudo -n -u meteo1 {QSTAT} -x")
        assert outcome.rc in {128 + 1, 128 + 15}, "ended by SIGHUP, or else SIGTERM"
        assert host.run(f"pgrep -u meteo1 -f {QSTAT}").rc == 1
    finally:
        host.check_output(f"{knob} hang off; mv /root/rule {rule}")


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


def test_killed_hub_leaves_none_of_its_services_behind(host: Host) -> None:
    cullers = "pgrep --count --full '^/opt/.*jupyterhub_idle_culler'"
    wait_for("its service", lambda: host.run(cullers).stdout.strip() == "1", 60)
    before = host.check_output("pgrep --full '^/opt/.*jupyterhub_idle_culler'")
    host.check_output("systemctl kill --kill-who=main --signal=KILL jupyterhub-hub")
    wait_for("the hub is back", lambda: host.service("jupyterhub-hub").is_running, 60)
    wait_for(
        "another one",
        lambda: (
            host.run("pgrep --full '^/opt/.*jupyterhub_idle_culler'").stdout.strip()
            not in {"", before}
        ),
        60,
    )
    assert host.run(cullers).stdout.strip() == "1"


def test_proxy_and_hub_api_listen_where_they_should(host: Host) -> None:
    assert host.socket("tcp://127.0.0.1:8001").is_listening
    assert not host.socket("tcp://0.0.0.0:8001").is_listening
