# SPDX-License-Identifier: BSD-3-Clause
"""What JupyterLab has beside the kernels: memory and cores, git, links, dask's workers as jobs."""

from __future__ import annotations

import shlex
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import pytest
from testinfra.host import Host

from tests.hub_client import KERNEL, SERVER, Researcher, wait_for

HOME = "/oceano/gmeteo/users/meteo1"


def test_extensions_are_those_that_are_meant(running: Researcher) -> None:
    page = running.get(SERVER, "lab/api/extensions").json()
    names = {extension["name"].replace("_", "-") for extension in page if extension["enabled"]}
    assert {"jupyterlab-git", "jupyter-server-resource-usage", "dask-labextension"} <= names
    assert running.get(SERVER, "lsp/status").status_code == 404, "no language server"
    assert running.get(SERVER, "dask/clusters").json() == [], "none of the server's own"


def test_resource_usage_knows_the_profile(running: Researcher) -> None:
    told = running.get(SERVER, "api/metrics/v1").json()
    assert told["limits"]["memory"]["rss"] == 800 * 1024**2
    assert told["limits"]["cpu"]["cpu"] == 1
    assert 0 < told["rss"] < 800 * 1024**2


@pytest.fixture
def lessons(host: Host) -> Iterator[str]:
    """A git repository; its address. It is hers: git reads no other's without being told."""
    work, bare = f"{HOME}/lessons-work", f"{HOME}/lessons.git"
    script = (
        f"git init -q -b main {work} && cd {work} && echo hello > one.md && git add . && "
        "git -c user.name=t -c user.email=t@example.org commit -qm one && "
        f"git clone -q --bare {work} {bare}"
    )
    host.check_output(f"cd {HOME} && runuser -u meteo1 -- sh -c {shlex.quote(script)}")
    yield f"file://{bare}"
    host.check_output(f"rm -rf {work} {bare} {HOME}/lessons")


def test_a_link_fetches_a_lesson_and_git_shows_it(
    running: Researcher, researcher: Callable[[str], Researcher], host: Host, lessons: str
) -> None:
    """The address that nbgitpuller's link generator makes leads through the hub to her server."""
    browser = researcher("meteo1")
    browser.log_in()
    link = f"{running.url}/hub/user-redirect/git-pull?repo={lessons}&branch=main"
    page = browser.session.get(link, timeout=30, allow_redirects=False)
    assert page.status_code == 302, page.text
    # By way of the menu, for her default server does not run.
    where = unquote(page.headers["Location"])
    assert f"/ganymede/user/{running.name}/git-pull?repo=" in where
    path = f"git-pull/api?repo={lessons}&branch=main&targetpath=lessons"
    answer = running.get(SERVER, path)
    assert '"phase": "finished"' in answer.text, answer.text
    assert host.file(f"{HOME}/lessons/one.md").content_string == "hello\n"
    assert host.file(f"{HOME}/lessons/one.md").user == "meteo1"
    log = running.session.post(
        f"{running.address(SERVER)}/git/lessons/log", json={"history_count": 5}, timeout=30
    ).json()
    assert [commit["commit_msg"] for commit in log["commits"]] == ["one"]


def jobs_named(host: Host, name: str) -> list[ET.Element]:
    """The jobs of that name that are not over."""
    answer = host.check_output("/usr/local/torque/bin/qstat -x")
    return [
        job
        for job in ET.fromstring(answer or "<Data/>").iter("Job")  # noqa: S314 - the mock's own
        if job.findtext("Job_Name") == name and job.findtext("job_state") in set("QHRE")
    ]


CLUSTER = """
import os
from dask.distributed import Client
from dask_jobqueue import PBSCluster
cluster = PBSCluster()
cluster.scale(jobs=1)
client = Client(cluster)
client.wait_for_workers(1, timeout=50)
(worker,) = client.scheduler_info()["workers"].values()
assert client.submit(os.getenv, "CONDA_PREFIX").result() == os.environ["CONDA_PREFIX"]
print(cluster.scheduler_address, client.submit(os.getenv, "PBS_JOBID").result(), os.getpid(),
      client.dashboard_link, worker["host"], worker["services"]["dashboard"])
"""

STRANGER = """
import asyncio, sys
from distributed.comm import connect
from distributed.security import Security
async def main():
    for address in (sys.argv[1], sys.argv[1].replace("tls:", "tcp:")):
        try:
            comm = await connect(address, timeout=5, **Security().get_connection_args("client"))
            await comm.write({"op": "identity", "reply": True})
            print("answered", await asyncio.wait_for(comm.read(), 5))
        except Exception as error:
            print("refused", type(error).__name__)
asyncio.run(main())
"""


def test_a_dask_worker_is_a_job_of_hers_and_ends_with_its_kernel(
    running: Researcher, researcher: Callable[[str], Researcher], host: Host
) -> None:
    kernel = running.start_kernel(SERVER, KERNEL)
    told = running.compute(SERVER, kernel, CLUSTER).split()
    address, number, process, link, worker, port = told
    (job,) = jobs_named(host, "dask-worker")
    assert job.findtext("Job_Id") == number
    assert job.findtext("Job_Owner", "").startswith("meteo1@")
    assert job.findtext("queue") == "tintel"
    assert job.findtext("Resource_List/mem") == "800mb"
    assert job.findtext("Resource_List/walltime") == "24:00:00"

    # The dashboard is behind her login.
    assert link.startswith(f"/ganymede/user/{running.name}/{SERVER}/proxy/")
    dashboard = link.removeprefix(f"/ganymede/user/{running.name}/{SERVER}/")
    assert "Dask Diagnostic UI" in running.get(SERVER, dashboard).text
    meteo2 = researcher("meteo2")
    meteo2.log_in()
    assert "Dask" not in meteo2.session.get(f"{meteo2.url}{link[9:]}", timeout=10).text

    # Somebody else's account reaches the port, and nothing behind it.
    assert address.startswith("tls://")
    python = "/software/jupyterhub/kernels/jh-ganymede-pyGMS-3.11/current/bin/python"
    stranger = f"cd /; runuser -u meteo2 -- {python} -c {shlex.quote(STRANGER)} {address}"
    answers = host.check_output(stranger).splitlines()
    assert [answer.split()[0] for answer in answers] == ["refused", "refused"], answers
    # A worker's dashboard asks for no login: it is for its own node alone.
    assert not host.addr(worker).port(port).is_reachable

    killed = f"import subprocess; subprocess.Popen(['sh', '-c', 'sleep 1; kill -9 {process}'])"
    running.compute(SERVER, kernel, killed)
    wait_for("the end of the worker's job", lambda: not jobs_named(host, "dask-worker"), 90)
    log = host.file(f"{HOME}/.ganymede/dask/worker.{number}.log").content_string
    assert "Registered to" in log


OLD_CLUSTER = """
import os
import dask_jobqueue
from dask.distributed import Client
cluster = dask_jobqueue.PBSCluster(config_name="tintel")
cluster.scale(jobs=1)
client = Client(cluster)
client.wait_for_workers(1, timeout=50)
assert client.submit(os.getenv, "CONDA_PREFIX").result() == os.environ["CONDA_PREFIX"]
print(dask_jobqueue.__version__, cluster.scheduler_address,
      client.submit(os.getenv, "PBS_JOBID").result())
"""


def test_an_old_dask_jobqueue_has_the_same_settings(running: Researcher, host: Host) -> None:
    """Those of 0.7, the last release for Python 3.7, have other names."""
    kernel = running.start_kernel(SERVER, "jh-ganymede-pygms-3.9")
    version, address, number = running.compute(SERVER, kernel, OLD_CLUSTER).split()
    assert version == "0.7.4"
    assert address.startswith("tls://")
    (job,) = jobs_named(host, "dask-worker")
    assert job.findtext("Job_Id") == number
    assert job.findtext("queue") == "tintel"
    assert job.findtext("Resource_List/mem") == "800mb"
    kernels = f"{running.address(SERVER)}/api/kernels"
    assert running.session.delete(f"{kernels}/{kernel}", timeout=30).ok
    wait_for("the end of the worker's job", lambda: not jobs_named(host, "dask-worker"), 90)
    log = host.file(f"{HOME}/.ganymede/dask/worker.{number}.log").content_string
    assert "Registered to" in log
