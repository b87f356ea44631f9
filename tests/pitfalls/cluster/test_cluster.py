# SPDX-License-Identifier: BSD-3-Clause
"""Rows that are about real sudo, systemd and processes: S9, S11, S13, R9, T1-T4, T8."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest

from tests.pitfalls.bed import prepared, reached, stays
from tests.pitfalls.cluster.rehearsal import SERVER, Rehearsal, Resident
from tests.walk.cluster import TORQUE

KERNEL = "jh-ganymede-pygms-3.11"

# Everything that an account can read of its processes' environments, for some seconds.
WATCH = """
import json, os, sys, time
seen = {}
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = open(f"/proc/{pid}/cmdline", "rb").read().replace(b"\\0", b" ").decode()
            environment = open(f"/proc/{pid}/environ", "rb").read().decode()
        except OSError:
            continue
        seen[f"{pid} {command}"] = environment
    time.sleep(0.01)
print(json.dumps(seen))
"""


# The status that an account on another host gets of each address.
ASK = """
import json, sys, urllib.error, urllib.request
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *words):
        return None
opener = urllib.request.build_opener(Stay)
def status(url):
    headers = {"Authorization": sys.argv[1]} if sys.argv[1] else {}
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
print(json.dumps({url: status(url) for url in sys.argv[2:]}))
"""


# --- the control -----------------------------------------------------------------------------


@pytest.mark.row("W1")
@pytest.mark.limit(240)
def test_a_server_starts_serves_and_stops(ana: Resident) -> None:
    ana.run()
    assert ana.get(SERVER, "api/status").ok
    ana.stop(SERVER)
    reached("the job is over", lambda: not ana.cluster.jobs(ana.name), 60)


# --- S9, S11: sudo ---------------------------------------------------------------------------


@pytest.mark.row("S9")
@pytest.mark.limit(240)
def test_a_researcher_s_processes_hold_no_secret_of_the_hub(
    cluster: Rehearsal, ana: Resident
) -> None:
    """She watches, on the hub's host, what runs in her name while her server starts and stops."""
    secrets = [
        line.partition("=")[2]
        for line in cluster.run("ganymede", "cat", "/etc/jupyterhub/proxy.env").splitlines()
        if "=" in line
    ]
    assert secrets
    cluster.knob("slow.qsub", "1")
    cluster.knob("slow.qdel", "1")
    seen: dict[str, str] = {}

    def watch() -> None:
        done = cluster.as_user("ganymede", ana.name, "python3", "-c", WATCH, "40")
        seen.update(json.loads(done.out))

    watcher = threading.Thread(target=watch)
    watcher.start()
    ana.run()
    ana.stop(SERVER)
    # A notebook may have ended by itself; a job that waits has to be deleted.
    cluster.delay_jobs(3600)
    ana.begin(server="waits")
    prepared("a job waits", lambda: [job for job in cluster.jobs(ana.name) if job.state == "Q"], 30)
    ana.stop("waits")
    watcher.join()
    for command in ("qsub", "qdel"):
        assert [words for words in seen if f"{TORQUE}/bin/{command}" in words], command
    for words, environment in seen.items():
        leaked = [secret for secret in secrets if secret and secret in environment]
        assert not leaked, f"a secret of the hub in the environment of {words}"


SUDO = ["/usr/bin/sudo", "-n", "-u"]


@pytest.mark.row("S11")
@pytest.mark.parametrize(
    "words",
    [
        ["meteo1", "LD_PRELOAD=/nowhere.so", f"{TORQUE}/bin/qdel", "999999.encina"],
        ["meteo1", "-E", f"{TORQUE}/bin/qdel", "999999.encina"],
        ["meteo1", "PATH=/tmp", f"{TORQUE}/bin/qsub"],
        ["meteo1", f"{TORQUE}/bin/qsub", "-v", "X=1"],
        ["meteo1", f"{TORQUE}/bin/qsub", "-P", "root"],
        ["meteo1", f"{TORQUE}/bin/qsub", "/etc/passwd"],
        ["meteo1", f"{TORQUE}/bin/qdel", "all"],
        ["meteo1", f"{TORQUE}/bin/qdel", "-p", "999999.encina"],
        ["meteo1", f"{TORQUE}/bin/qdel", "999998.encina", "999999.encina"],
        ["meteo1", f"{TORQUE}/bin/qstat", "-f"],
        ["meteo1", "/bin/sh", "-c", "id"],
        ["root", f"{TORQUE}/bin/qdel", "999999.encina"],
        ["daemon", f"{TORQUE}/bin/qdel", "999999.encina"],
        ["outsider", f"{TORQUE}/bin/qdel", "999999.encina"],
        ["#0", f"{TORQUE}/bin/qsub"],
        ["#4294967295", f"{TORQUE}/bin/qsub"],
    ],
    ids=lambda words: " ".join(words).replace(f"{TORQUE}/bin/", ""),
)
def test_the_hub_s_account_may_do_nothing_else(cluster: Rehearsal, words: list[str]) -> None:
    done = cluster.as_user("ganymede", "rhea", *SUDO, *words)
    assert done.status == 1
    assert re.search("not allowed|password is required|unknown user", done.err), done.err


@pytest.mark.row("S11")
def test_what_it_needs_it_may_do(cluster: Rehearsal) -> None:
    """Else the refusals above would say nothing."""
    qdel = f"{TORQUE}/bin/qdel"
    done = cluster.as_user("ganymede", "rhea", *SUDO, "meteo1", qdel, "999999.encina")
    assert "nonexistent job" in done.err


# --- S13: the port of a notebook -------------------------------------------------------------


@pytest.mark.row("S13")
@pytest.mark.limit(180)
def test_a_notebook_s_port_lets_nobody_else_in(ana: Resident, eva: Resident) -> None:
    """It listens on the cluster's network, in plain HTTP: whoever finds it needs the token."""
    ana.run()
    cluster, node = ana.cluster, ana.job().node
    listening = cluster.run(node, "ss", "-ltnH")
    ports = {int(m) for m in re.findall(r"0\.0\.0\.0:(\d{4,5}) ", listening)} - {15002, 15003}
    assert ports, listening
    paths = ["api/contents", "api/kernels", "api/terminals", "lab"]
    urls = [
        f"http://{node}:{port}/ganymede/user/{ana.name}/{SERVER}/{path}"
        for port in ports
        for path in paths
    ]
    for token in ("", str(eva.session.headers["Authorization"])):
        done = cluster.as_user("encina", eva.name, "python3", "-c", ASK, token, *urls)
        answers = json.loads(done.out)
        # Login pages and refusals; no answer, or not found, where the port is not a notebook's.
        assert set(answers.values()) <= {302, 403, 404, 0}, answers
        assert list(answers.values()).count(403) >= 3, "the notebook's port is among those"


# --- R9: the proxy ---------------------------------------------------------------------------


@pytest.mark.row("R9")
@pytest.mark.limit(240)
def test_a_proxy_that_restarts_alone_serves_at_once(cluster: Rehearsal, ana: Resident) -> None:
    ana.run()
    cluster.run("ganymede", "systemctl", "kill", "-s", "KILL", "jupyterhub-proxy")
    prepared("the proxy is back", cluster.answers, 30)
    reached("the notebook is served", lambda: ana.get(SERVER, "api/status").ok, 10)


# --- T1, T2: the end of a job ----------------------------------------------------------------


def in_a_kernel(ana: Resident, code: str) -> None:
    """Run code in a kernel of her server."""
    kernel = ana.start_kernel(SERVER, KERNEL)
    assert ana.compute(SERVER, kernel, code + "\nprint('done')") == "done"


STUBBORN = """
import subprocess
# Leaves the job's session, and does not care when its parent ends.
for words in ("trap '' TERM HUP INT; sleep 4321; sleep 4322", "exec sleep 4323"):
    subprocess.Popen(["bash", "-c", words], start_new_session=True, stdin=subprocess.DEVNULL,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


@pytest.mark.row("T1")
@pytest.mark.limit(240)
@pytest.mark.parametrize("how", ["stop", "qdel", "kill"])
def test_nothing_of_a_job_outlives_it(cluster: Rehearsal, ana: Resident, how: str) -> None:
    job = ana.run()
    in_a_kernel(ana, STUBBORN)
    prepared("they run", lambda: sum("sleep 432" in words for words in ana.processes()) >= 2)
    if how == "stop":
        ana.stop(SERVER)
    elif how == "qdel":
        cluster.as_user("encina", ana.name, f"{TORQUE}/bin/qdel", job)
    else:
        cluster.run("encina", f"{TORQUE}/bin/qsig", "-s", "KILL", job)
    prepared("the job is over", lambda: not cluster.jobs(ana.name), 60)
    reached("no process of it is left", lambda: not ana.processes(), 20)


@pytest.mark.row("T1")
@pytest.mark.limit(300)
def test_what_belongs_to_another_job_is_left_alone(cluster: Rehearsal, ana: Resident) -> None:
    ana.run()
    cluster.as_user(
        "encina", ana.name, f"{TORQUE}/bin/qsub", stdin="#PBS -l walltime=1:00:00\nsleep 5432\n"
    )
    prepared("her other job runs", lambda: any("sleep 5432" in w for w in ana.processes()))
    ana.stop(SERVER)
    reached("the server is over", lambda: not (ana.server(SERVER) or {}).get("ready"), 60)
    stays("the other job runs on", lambda: any("sleep 5432" in w for w in ana.processes()), 12)


@pytest.mark.row("T2")
@pytest.mark.limit(240)
def test_a_stop_lets_the_kernels_end_in_order(cluster: Rehearsal, ana: Resident) -> None:
    note = f"{ana.home}/ended-in-order"
    cluster.run("node01", "rm", "-f", note)
    ana.run()
    in_a_kernel(
        ana,
        "import atexit, pathlib, time\n"
        f"atexit.register(lambda: (time.sleep(0.5), pathlib.Path({note!r}).write_text('x')))",
    )
    ana.stop(SERVER)
    reached("the job is over", lambda: not cluster.jobs(ana.name), 60)
    assert cluster.run("node01", "sh", "-c", f"ls {note} || true").strip() == note


# --- T3, T4: what a job leaves ---------------------------------------------------------------


@pytest.mark.row("T3")
@pytest.mark.limit(240)
def test_a_job_s_output_can_be_read_while_it_runs(cluster: Rehearsal, ana: Resident) -> None:
    cluster.run("node01", "sh", "-c", f"rm -rf {ana.home}/.ganymede/logs {ana.home}/jupyterhub-*")
    ana.run()
    found = cluster.as_user(
        "node01", ana.name, "grep", "-rlsE", "Jupyter Server .* is running", ana.home,
        "--include=*.log", "--include=*.[oe][0-9]*", "--include=*.OU", "--include=*.ER",
    )  # fmt: skip
    assert found.out.split(), "the output of a running job is nowhere in its owner's home"


@pytest.mark.row("T4")
@pytest.mark.limit(240)
def test_how_a_job_ended_is_known_though_the_queue_forgets(
    cluster: Rehearsal, ana: Resident
) -> None:
    manage = ["encina", f"{TORQUE}/bin/qmgr", "-c"]
    cluster.run(*manage, "set server keep_completed = 0")
    try:
        job = ana.run()
        node = ana.job().node
        # The newest: the keeper of the job names the server in its own command line.
        cluster.run(node, "pkill", "-9", "-n", "-u", ana.name, "-f", "jupyterhub-singleuser|labhub")
        reached("the end is seen", lambda: not (ana.server(SERVER) or {}).get("ready"), 40)
        # While the hub cleans up, the page says that the server is being stopped.
        reached("the clean-up is over", lambda: not (ana.server(SERVER) or {}).get("pending"), 40)
        told = next((line for line in ana.page().splitlines() if job in line), "")
        assert re.search(r"signal 9|status 137|killed", told, re.IGNORECASE), told or "nothing"
    finally:
        cluster.run(*manage, "unset server keep_completed")


# --- T8: nodes that do not answer ------------------------------------------------------------


@pytest.mark.row("T8")
@pytest.mark.limit(400)
def test_a_node_that_is_gone_keeps_nobody_from_working(cluster: Rehearsal, ana: Resident) -> None:
    job = ana.run()
    node = ana.job().node
    cluster.run(node, "systemctl", "kill", "--kill-whom=main", "-s", "KILL", "pbs_mom")
    cluster.run(node, "systemctl", "stop", "pbs_mom")
    nodes = ["encina", f"{TORQUE}/bin/pbsnodes", "-x"]
    prepared("the queue knows", lambda: "down" in cluster.run(*nodes), 200)
    time.sleep(35)
    begun = time.monotonic()
    ana.stop(SERVER)
    reached("the stop is over", lambda: not (ana.server(SERVER) or {}).get("pending"), 40)
    assert time.monotonic() - begun < 60
    ana.begin(server="elsewhere")
    reached("a server elsewhere", lambda: (ana.server("elsewhere") or {}).get("ready"), 60)
    assert ana.job().node != node
    cluster.run(node, "systemctl", "start", "pbs_mom")
    gone = [j.id for j in cluster.jobs(ana.name)]
    assert job in gone, "the queue still has the old job"
    reached(
        "the old job is deleted when its node is back",
        lambda: job not in [j.id for j in cluster.jobs(ana.name)],
        120,
    )
