# SPDX-License-Identifier: BSD-3-Clause
"""From the login to a kernel that computes as a job, and back."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

from tests.hub_client import KERNEL, SERVER, Researcher, wait_for

QSTAT = "/usr/local/torque/bin/qstat"
QSUB = "/usr/local/torque/bin/qsub"
QDEL = "/usr/local/torque/bin/qdel"


def jobs_of(host: Host, user: str) -> list[ET.Element]:
    """The jobs of a researcher that are not over, as the queue server tells rhea."""
    answer = host.check_output(f"runuser -u rhea -- {QSTAT} -x")
    return [
        job
        for job in ET.fromstring(answer or "<Data/>").iter("Job")  # noqa: S314 - the mock's own
        if job.findtext("Job_Owner", "").split("@")[0] == user
        and job.findtext("job_state", "") in set("QHRE")
    ]


def test_wrong_password_is_refused(researcher: Callable[[str], Researcher]) -> None:
    meteo1 = researcher("meteo1")
    meteo1.password += "x"
    answer = meteo1.log_in()
    assert answer.status_code == 403
    assert "The name or the password is wrong." in answer.text


def test_account_without_access_is_refused(researcher: Callable[[str], Researcher]) -> None:
    answer = researcher("outsider").log_in()
    assert answer.status_code == 403
    assert "outsider may not" in answer.text


def test_job_belongs_to_the_researcher(running: Researcher, host: Host) -> None:
    (job,) = jobs_of(host, running.name)
    assert job.findtext("Job_Name") == "jupyterhub-singleuser"
    assert job.findtext("queue") == "tintel"
    assert job.findtext("job_state") == "R"
    assert job.findtext("Resource_List/walltime") == "24:00:00"
    assert job.findtext("Resource_List/mem") == "800mb"


def test_kernel_computes_as_the_researcher(running: Researcher) -> None:
    kernel = running.start_kernel(SERVER, KERNEL)
    code = "import getpass, os, sys; print(6 * 7, getpass.getuser(), os.getcwd(), sys.prefix)"
    answer, user, folder, prefix = running.compute(SERVER, kernel, code).split()
    assert (answer, user) == ("42", "meteo1")
    assert folder == "/oceano/gmeteo/users/meteo1"
    assert prefix.startswith("/software/jupyterhub/kernels/jh-ganymede-pyGMS-3.11/")


def test_nothing_secret_is_shown_by_the_queue(running: Researcher, host: Host) -> None:
    token = running.compute(
        SERVER,
        running.start_kernel(SERVER, KERNEL),
        "import os; print(os.environ.get('JUPYTERHUB_API_TOKEN') or os.environ['JPY_API_TOKEN'])",
    )
    assert len(token) >= 32
    assert token not in host.check_output(f"{QSTAT} -f")
    assert token not in host.check_output("ps -eo args")


def test_kernel_survives_a_restart_of_the_hub(running: Researcher, host: Host) -> None:
    kernel = running.start_kernel(SERVER, KERNEL)
    running.compute(SERVER, kernel, "kept = 'still here'")
    host.check_output("systemctl restart jupyterhub-hub")
    assert running.compute(SERVER, kernel, "print(kept)") == "still here", "the proxy has the route"
    wait_for("hub back", lambda: _answers(running), 30)
    running.wait_ready(SERVER, 30)
    assert len(jobs_of(host, running.name)) == 1


def _answers(who: Researcher) -> bool:
    try:
        return bool(who.session.get(f"{who.url}/hub/api/", timeout=5).ok)
    except OSError:
        return False


def test_routes_are_back_soon_after_a_restart_of_the_proxy(
    running: Researcher, host: Host, record_property: Callable[[str, float], None]
) -> None:
    """Long before the hub would look at its routes by itself (a minute)."""
    assert running.get(SERVER, "api/status").ok
    host.check_output("systemctl restart jupyterhub-proxy")
    start = time.monotonic()

    def back() -> bool:
        try:
            return bool(running.get(SERVER, "api/status").ok)
        except OSError:
            return False

    wait_for("route back", back, 10)
    record_property("seconds_until_the_routes_are_back", round(time.monotonic() - start, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"profile": "nosuch"},
        {},
        {"profile": "tintel", "queue": "himem"},
        {"profile": "tintel", "req_memory": "64gb"},
        {"profile": ["tintel"]},
    ],
)
def test_only_a_profile_of_the_table_is_accepted(
    meteo1: Researcher, host: Host, options: dict[str, Any]
) -> None:
    before = len(jobs_of(host, "meteo1"))
    answer = meteo1.start("refused", options)
    assert answer.status_code == 400
    assert "tintel, long, himem, himem4" in answer.text, "the sentence names what there is"
    assert len(jobs_of(host, "meteo1")) == before


STUBBORN = """
import os, subprocess
deaf = "trap '' TERM HUP INT; sleep 7654321"
for command in (["sleep", "7654321"], ["sh", "-c", deaf], ["env", "-i", "sh", "-c", deaf]):
    subprocess.Popen(command, start_new_session=True)
print(os.environ["PBS_JOBID"])
"""


def test_nothing_outlives_its_job(meteo1: Researcher, host: Host) -> None:
    """Sessions of their own, no environment, deaf to SIGTERM: all end with the job they belong to.

    Another job of the same researcher on the same node goes on.
    """
    other = host.check_output(
        f"cd / && echo 'setsid sleep 7654322 & sleep 7654323' | runuser -u meteo1 -- {QSUB}"
    )
    assert meteo1.start("kept", {"profile": "tintel"}).status_code in {201, 202}
    meteo1.wait_ready("kept")
    job = meteo1.compute("kept", meteo1.start_kernel("kept", KERNEL), STUBBORN)
    count = "ps -u meteo1 -o args= | grep -c '^sleep 765432'"
    wait_for("five processes", lambda: host.run(count).stdout.strip() == "5", 20)

    host.check_output(f"runuser -u meteo1 -- {QDEL} {job}")  # by hand, not by the hub

    wait_for("the other two", lambda: host.run(count).stdout.strip() == "2", 20)
    assert host.run(f"grep -lsz '^PBS_JOBID={job}$' /proc/[0-9]*/environ").stdout == ""
    log = host.file(f"/oceano/gmeteo/users/meteo1/.ganymede/logs/{job}.log").content_string
    assert "keep_job: ended from outside after " in log
    assert log.endswith("keep_job: nothing is left on ganymede\n")
    host.check_output(f"runuser -u meteo1 -- {QDEL} {other}; pkill -u meteo1 -x sleep")
    wait_for("server gone", lambda: not (meteo1.server("kept") or {}).get("ready"), 60)


def test_server_that_is_asked_to_shut_down_ends_well(meteo1: Researcher, host: Host) -> None:
    assert meteo1.start("polite", {"profile": "tintel"}).status_code in {201, 202}
    meteo1.wait_ready("polite")
    code = "import os; print(os.environ['PBS_JOBID'])"
    job = meteo1.compute("polite", meteo1.start_kernel("polite", KERNEL), code)
    address = f"{meteo1.url}/user/{meteo1.name}/polite/api/shutdown"
    assert meteo1.session.post(address, timeout=10).ok
    wait_for(
        "job gone", lambda: job not in [j.findtext("Job_Id") for j in jobs_of(host, "meteo1")], 20
    )
    log = host.file(f"/oceano/gmeteo/users/meteo1/.ganymede/logs/{job}.log").content_string
    assert "keep_job: ended with status 0 after " in log
    assert log.endswith("keep_job: nothing is left on ganymede\n")
    wait_for("server gone", lambda: not (meteo1.server("polite") or {}).get("ready"), 60)


def test_stop_takes_job_and_route_away(running: Researcher, host: Host) -> None:
    assert running.stop(SERVER).status_code in {202, 204}
    wait_for("job gone", lambda: not jobs_of(host, running.name), 60)
    wait_for("server gone", lambda: not (running.server(SERVER) or {}).get("ready"), 60)
    assert not running.get(SERVER, "api/status").ok
    # A kernel has a session of its own and looks for its parent once a second.
    wait_for("no process stays behind", lambda: not host.run("ps -u meteo1 -o args=").stdout, 15)
