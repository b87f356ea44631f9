# SPDX-License-Identifier: BSD-3-Clause
"""From the click to JupyterLab: our spawner, and LocalProcessSpawner on the same machine.

    python -m benchmarks.click [--repeat N] [--json FILE]

Real JupyterLab, real configurable-http-proxy, our real batch script in the mock Torque, which
starts a job at once. Both hubs are up all the time and start a server by turns. The client does
what a browser does, without drawing. benchmarks/README.md says what the lines of the table are.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import requests

from benchmarks import installed, sandbox
from benchmarks.cluster import REPOSITORY, Cluster
from benchmarks.hub import OURS, ClassSet, Hub

MODULE = "benchmarks.click"
LIMIT = 900.0  # seconds of the whole run
GOAL = 1.25
USABLE = ("lab/api/settings", "api/kernelspecs", "api/contents?content=1", "api/sessions")
"""What JupyterLab asks its server for before somebody can click into it."""

USERS = {"local": "local1", "ours": "ours1"}
ROLE = REPOSITORY / "roles" / "jupyterhub" / "files"

PROXY = """
c.JupyterHub.proxy_class = "jupyterhub.proxy.ConfigurableHTTPProxy"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.auth_token = "proxy"
c.Spawner.default_url = "/lab"
"""
LOCAL = """
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
c.Spawner.cmd = ["{environment}/bin/jupyterhub-singleuser"]
c.Spawner.args = ["--KernelSpecManager.ensure_native_kernel=False"]
"""
REAL_JOB = """
c.CustomPBSSpawner.batch_script_template = "{role}/batch_script.sh.j2"
c.CustomPBSSpawner.notebook_environment = "{clocked}"
c.CustomPBSSpawner.jupyter_path = "{environment}/share/jupyter"
c.CustomPBSSpawner.jupyter_config_path = "{environment}/etc/jupyter"
"""
# An environment that notes when a Python of the job begins, and is otherwise the real one.
CLOCK = """\
#!/bin/bash
echo "$EPOCHREALTIME" >> "$HOME/.python-begins"
exec {environment}/bin/python "$@"
"""
LISTENS = re.compile(r"\[I (\S+ \S+) \w+\] Jupyter Server \S+ is running at")


@dataclass
class Side:
    """One hub, its proxy and its researcher."""

    name: str
    hub: Hub
    user: str
    log: Path  # of the notebook server; a folder when each job has its own
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def public(self) -> str:
        return f"http://127.0.0.1:{self.hub.public_port}"

    def log_in(self) -> None:
        self.session.get(f"{self.public}/hub/login", timeout=30).raise_for_status()
        answer = self.session.post(
            f"{self.public}/hub/login",
            data={"username": self.user, "password": "x", "_xsrf": self._xsrf()},
            timeout=30, allow_redirects=False,
        )  # fmt: skip
        answer.raise_for_status()

    def _xsrf(self) -> str:
        return str(self.session.cookies.get("_xsrf", path="/hub/"))

    def click(self) -> dict[str, float]:
        """Start a server as the form does; the time of the day of each step of the client."""
        self.session.get(f"{self.public}/hub/home", timeout=30).raise_for_status()
        times = {"click": time.time()}
        answer = self.session.post(
            f"{self.public}/hub/spawn/{self.user}",
            data={"profile": "tintel", "_xsrf": self._xsrf()}, timeout=60,
        )  # fmt: skip
        answer.raise_for_status()
        self._wait_ready()
        times["ready"] = time.time()
        page = self.session.get(f"{self.public}/user/{self.user}/", timeout=60)
        page.raise_for_status()
        assert "jupyter-config-data" in page.text, page.url
        times["login"] = time.time()
        for path in USABLE:
            answer = self.session.get(f"{self.public}/user/{self.user}/{path}", timeout=60)
            answer.raise_for_status()
        times["usable"] = time.time()
        return times

    def _wait_ready(self) -> None:
        url = f"{self.public}/hub/api/users/{self.user}/server/progress"
        with self.session.get(
            url, params={"_xsrf": self._xsrf()}, stream=True, timeout=120
        ) as events:
            events.raise_for_status()
            lines = [line for line in events.iter_lines() if line]
        if b'"ready": true' not in lines[-1]:
            logs = "\n".join(path.read_text()[-3000:] for path in self._logs())
            raise SystemExit(f"{self.name}: {lines[-1].decode()}\n{logs}")

    def _logs(self) -> list[Path]:
        return sorted(self.log.glob("*.log")) if self.log.is_dir() else [self.log]

    def listening_since(self, begun: float) -> float:
        """When the server said that it listens. Its log has milliseconds, local time."""
        stamps = [stamp for log in self._logs() for stamp in LISTENS.findall(log.read_text())]
        times = [datetime.datetime.fromisoformat(stamp).timestamp() for stamp in stamps]
        return min(moment for moment in times if moment > begun)


def _arrows(side: Side, times: dict[str, float], marks: list[Any]) -> dict[str, float]:
    """Seconds of each arrow of one click, in the order of the flow."""

    def first(name: str, edge: str) -> float:
        return min(float(moment) for moment, *mark in marks if mark == [name, edge])

    steps = {"click": times["click"], "hub takes the click": first("spawn", "begin")}
    if side.name == "ours":
        begins = Path(side.hub.homes / side.user / ".python-begins").read_text().split()
        steps["submit: qsub returned"] = first("qsub", "end")
        steps["queue: the job's first Python begins"] = min(
            moment for moment in map(float, begins) if moment > times["click"]
        )
        steps["the port is reported"] = first("report", "end")
    steps["the server listens"] = side.listening_since(times["click"])
    steps["start() returned: the hub noticed"] = first("wait_up", "begin")
    steps["the hub has seen it answer"] = first("wait_up", "end")
    steps["the route is set"] = first("add_user", "end")
    steps["the page is told"] = times["ready"]
    steps["redirect and login: Lab's page"] = times["login"]
    steps["Lab usable"] = times["usable"]
    ordered = sorted(steps.items(), key=lambda step: step[1])
    arrows = {name: moment - before for (_, before), (name, moment) in pairwise(ordered)}
    return {**arrows, "total": times["usable"] - times["click"]}


async def _once(side: Side) -> dict[str, float]:
    await side.hub.reading()  # forget earlier marks
    times = await asyncio.to_thread(side.click)
    reading = await side.hub.reading()
    arrows = _arrows(side, times, reading["marks"])
    await side.hub.stop_server(side.user)
    return arrows


async def _measure(root: Path, repeat: int, environment: Path, proxy: Path) -> dict[str, Any]:
    sandbox.add_accounts(root, list(USERS.values()))
    cluster = Cluster(root / "cluster", slots=4)
    cluster.start()
    cluster.delay(0)
    sides = _sides(root, cluster, environment, proxy)
    for side in sides:
        await side.hub.start()
        await side.hub.add_users([side.user])
        await asyncio.to_thread(side.log_in)
    results: dict[str, Any] = {side.name: [] for side in sides}
    for turn in range(repeat + 1):
        for side in sides:
            arrows = await _once(side)
            if turn:  # the first one makes folders and fills caches
                results[side.name].append(arrows)
    return results


def _sides(root: Path, cluster: Cluster, environment: Path, proxy: Path) -> list[Side]:
    """Both hubs with their proxies, on ports that are a hundred apart."""
    values = {
        "environment": str(environment),
        "clocked": str(_clocked(root, environment)),
        "role": str(ROLE),
    }
    local = Hub(
        root / "local", ClassSet("local", PROXY + LOCAL, values), cluster, root / "homes",
        account="root",
    )  # fmt: skip
    ours = Hub(
        root / "ours", ClassSet("ours", PROXY + OURS + REAL_JOB, values), cluster, root / "homes",
        port=8181, public_port=8100,
    )  # fmt: skip
    for hub in (local, ours):
        _start_proxy(hub, proxy)
    return [
        Side("local", local, USERS["local"], local.root / "hub.log"),
        Side("ours", ours, USERS["ours"], root / "homes" / USERS["ours"] / ".ganymede/logs"),
    ]


def _clocked(root: Path, environment: Path) -> Path:
    """The environment as the jobs see it."""
    binaries = root / "clocked" / "bin"
    binaries.mkdir(parents=True)
    for program in (environment / "bin").iterdir():
        if program.name != "python":
            (binaries / program.name).symlink_to(program)
    python = binaries / "python"
    python.write_text(CLOCK.format(environment=environment))
    python.chmod(0o755)
    return binaries.parent


def _start_proxy(hub: Hub, proxy: Path) -> None:
    with (hub.root / "proxy.log").open("wb") as log:
        subprocess.Popen(
            [proxy / "node_modules/.bin/configurable-http-proxy", "--ip=127.0.0.1",
             f"--port={hub.public_port}", "--api-ip=127.0.0.1", f"--api-port={hub.public_port + 1}",
             f"--default-target=http://127.0.0.1:{hub.port}",
             f"--error-target={hub.url}/error"],
            stdout=log, stderr=log, env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": "proxy"},
        )  # fmt: skip


# --- the command -------------------------------------------------------------------------------


def table(results: dict[str, Any]) -> str:
    """The median of each arrow, and of the whole."""
    lines = []
    totals = {}
    for name, clicks in results.items():
        lines += [f"{name}, medians of {len(clicks)} in seconds"]
        for arrow in clicks[0]:
            lines.append(f"  {median(click.get(arrow, 0.0) for click in clicks):6.3f}  {arrow}")
        totals[name] = median(click["total"] for click in clicks)
    ratio = totals["ours"] / totals["local"]
    met = "met   " if ratio <= GOAL else "MISSED"
    lines += ["", f"{met}  click to usable at most {GOAL} x LocalProcessSpawner: {ratio:.2f}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=10, metavar="N", help="clicks of each side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        environment, proxy, out = map(Path, options.inside)
        root = sandbox.prepare(environment, proxy)
        results = asyncio.run(_measure(root, options.repeat, environment, proxy))
        out.write_text(json.dumps(results))
        return
    environment, proxy = installed.notebook_environment(), installed.proxy()
    with sandbox.folder() as folder:
        out = folder / "click.json"
        arguments = [
            f"--repeat={options.repeat}",
            "--inside",
            str(environment),
            str(proxy),
            str(out),
        ]
        status = sandbox.run(MODULE, arguments, LIMIT)
        if status:
            raise SystemExit(status)
        results = json.loads(out.read_text())
    results_text = json.dumps({"load": os.getloadavg()[0], **results}, indent=1)
    if options.json:
        options.json.write_text(results_text + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
