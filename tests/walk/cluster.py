# SPDX-License-Identifier: BSD-3-Clause
"""The cluster seen from outside the browser: its queue, its processes, its proxy."""

from __future__ import annotations

import json
import subprocess
import time
import xml.etree.ElementTree as ET  # our own cluster's qstat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

TORQUE = "/usr/local/torque"
HOMES = "/oceano/gmeteo/users"
ERA5 = "/lustre/gmeteo/WORK/DATA/C3S-CDS/ERA5"
KERNEL_PYTHON = "/software/jupyterhub/kernels/jh-ganymede-pyGMS-3.11/current/bin/python"

# Yearly means over time and region from the yearly files, without xarray, dask and the virtual
# dataset: {year: °C}.
YEARLY_MEANS = """
import glob, json, sys, h5py
means = {}
for path in sorted(glob.glob(sys.argv[1] + "/0.25/t2m/t2m_ERA5_*.nc")):
    with h5py.File(path) as file:
        means[path[-7:-3]] = float(file["t2m"][:].mean(dtype="f8")) - 273.15
print(json.dumps(means))
"""

ROUTES = """
import json, os, urllib.request
token = os.environ["CONFIGPROXY_AUTH_TOKEN"]
request = urllib.request.Request(
    "http://127.0.0.1:8001/api/routes", headers={"Authorization": "token " + token}
)
print(json.dumps(list(json.load(urllib.request.urlopen(request, timeout=10)))))
"""


@dataclass(frozen=True)
class Account:
    """A name and its password; `access` says whether the hub should let it in."""

    name: str
    password: str
    access: bool


@dataclass(frozen=True)
class Job:
    """One job as `qstat -x` shows it; `node` is empty while the job waits."""

    id: str
    name: str
    owner: str
    queue: str
    state: str
    node: str


class Cluster:
    """A running rehearsal cluster, as `scripts/demo status --json` describes it."""

    def __init__(self, description: Path) -> None:
        told = json.loads(description.read_text())
        self.url: str = told["url"].rstrip("/")
        self.accounts = {
            user["name"]: Account(user["name"], user["password"], user.get("access", True))
            for user in told["users"]
        }
        self._containers = {name: host["container"] for name, host in told["hosts"].items()}

    def run(self, host: str, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """Standard output of a command that root runs on a host."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self._containers[host], *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} on {host} ended with {done.returncode}: {done.stderr}"
            )
        return done.stdout

    def jobs(self, owner: str) -> list[Job]:
        """The jobs of a researcher that are not over, in the order of the queue."""
        answer = self.run("encina", f"{TORQUE}/bin/qstat", "-x")
        if not answer.strip():
            return []
        found = [_job(element) for element in ET.fromstring(answer)]  # noqa: S314 - see import
        return [job for job in found if job.owner == owner and job.state not in ("C", "E")]

    def await_no_job(self, owner: str) -> None:
        """Wait until the queue has no job of a researcher."""
        wait_until(f"{owner} has no job in the queue", lambda: not self.jobs(owner))

    def delay_jobs(self, seconds: float) -> None:
        """Let each job wait in the queue; 0 sets the usual delay back."""
        value = [str(seconds)] if seconds else []
        self.run("encina", f"{TORQUE}/sbin/mock-torque-knob", "schedule_delay", *value)

    def processes(self, node: str, owner: str) -> list[str]:
        """The command lines of a user on a node."""
        listing = self.run(node, "ps", "-u", owner, "-o", "args=", check=False)
        return [line.strip() for line in listing.splitlines() if line.strip()]

    def routes(self) -> list[str]:
        """What the proxy serves, asked of the proxy itself."""
        environment = self.run(
            "ganymede", "systemctl", "show", "--value", "-p", "EnvironmentFiles", "jupyterhub-proxy"
        )
        files = [line.split(" (")[0] for line in environment.splitlines() if line]
        script = 'set -a; for file; do . "$file"; done; exec python3 -'
        answer = self.run("ganymede", "bash", "-c", script, "bash", *files, stdin=ROUTES)
        routes: list[str] = json.loads(answer)
        return routes

    def give_file(self, owner: str, name: str, content: str) -> None:
        """Put a file into a researcher's home."""
        path = f"{HOMES}/{owner}/{name}"
        install = ["install", "-o", owner, "-g", owner, "-m", "0644", "/dev/stdin", path]
        self.run("node01", *install, stdin=content)

    def tidy_home(self, owner: str) -> None:
        """Remove what an earlier walk left: files, and the tabs that JupyterLab would open."""
        leftovers = ["remembers.ipynb", "dask.ipynb", "hub-is-back", ".jupyter/lab/workspaces"]
        self.run("node01", "rm", "-rf", *[f"{HOMES}/{owner}/{name}" for name in leftovers])

    def restart_hub(self) -> None:
        """Restart the hub's own service; the proxy and the jobs are left alone."""
        self.run("ganymede", "systemctl", "restart", "jupyterhub-hub")

    def yearly_means(self) -> dict[str, float]:
        """Mean 2 m temperature of each year in °C, computed beside the notebook's way."""
        answer = self.run("node01", KERNEL_PYTHON, "-", ERA5, stdin=YEARLY_MEANS)
        means: dict[str, float] = json.loads(answer)
        return means


def _job(element: ET.Element) -> Job:
    def text(tag: str) -> str:
        return element.findtext(tag, default="").strip()

    return Job(
        id=text("Job_Id"),
        name=text("Job_Name"),
        owner=text("Job_Owner").partition("@")[0],
        queue=text("queue"),
        state=text("job_state"),
        node=text("exec_host").partition("/")[0],
    )


def wait_until(what: str, condition: Callable[[], T], seconds: float = 60) -> T:
    """The first true value of a condition; fails with `what` was awaited."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what} (last seen: {value!r})")
        time.sleep(0.5)


def outputs_text(cell: dict[str, Any]) -> str:
    """All text that a notebook's cell has put out."""
    texts: list[str] = []
    for output in cell["outputs"]:
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        texts.append("".join(text))
    return "\n".join(texts)
