# SPDX-License-Identifier: BSD-3-Clause
"""A real JupyterHub in a process of its own, with a proxy that only keeps its routes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from tests.unit.spawner.small_torque import SmallTorque

PACKAGE = Path(__file__).parents[3] / "roles" / "jupyterhub" / "files"
SERVICE_TOKEN = "0123456789abcdef-service"

PROFILES = [
    {
        "key": "tintel",
        "display_name": "tintel - 1 core, 800 MB, 24 hours",
        "queue": "tintel",
        "cores": 1,
        "memory": "800mb",
        "walltime": "24:00:00",
    },
    {
        "key": "himem4",
        "display_name": "himem4 <b>&</b>",
        "queue": "himem",
        "cores": 4,
        "memory": "32gb",
        "walltime": 172800,
        "description": "Four cores & much memory",
    },
]

COMMON = """
import json
from pathlib import Path
from jupyterhub.proxy import Proxy

class RouteBook(Proxy):
    routes = {{}}
    should_start = False
    def _write(self):
        Path({root!r}, "routes.json").write_text(json.dumps(
            {{spec: route["target"] for spec, route in self.routes.items()}}
        ))
    async def add_route(self, routespec, target, data):
        self.routes[routespec] = dict(routespec=routespec, target=target, data=data)
        self._write()
    async def delete_route(self, routespec):
        self.routes.pop(routespec, None)
        self._write()
    async def get_all_routes(self):
        return dict(self.routes)

c = get_config()
c.JupyterHub.proxy_class = RouteBook
c.JupyterHub.bind_url = "http://127.0.0.1:{proxy_port}/ganymede"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = {port}
c.JupyterHub.db_url = "sqlite:///{root}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{root}/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.cleanup_servers = False
c.JupyterHub.init_spawners_timeout = 1
c.JupyterHub.allow_named_servers = True
c.JupyterHub.services = [dict(name="tests", api_token={token!r})]
c.JupyterHub.load_roles = [dict(
    name="tests", services=["tests"],
    scopes=["admin:users", "admin:servers", "admin:server_state", "tokens", "read:metrics"],
)]
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 2, "slow_stop_timeout": 5}}
"""

SPAWNER = """
c.JupyterHub.spawner_class = "custom_pbs_spawner.ProfileMenuSpawner"
c.JupyterHub.template_paths = ["{package}/custom_pbs_spawner/templates"]
c.ProfileMenuSpawner.profiles_file = "{root}/profiles.json"
c.CustomPBSSpawner.torque_bin = "{torque}/bin"
c.CustomPBSSpawner.sudo_path = "{torque}/bin/sudo"
c.CustomPBSSpawner.log_reader = "{torque}/bin/read_job_log"
c.CustomPBSSpawner.shutdown_timeout = 2
c.CustomPBSSpawner.batch_script_template = "{package}/batch_script.sh.j2"
c.CustomPBSSpawner.notebook_environment = "{root}/env"
c.CustomPBSSpawner.jupyter_path = "/software/jupyterhub/share/jupyter"
c.CustomPBSSpawner.jupyter_config_path = "/software/jupyterhub/etc/jupyter"
c.CustomPBSSpawner.home_directory = "{torque}/home/{{username}}"
c.CustomPBSSpawner.start_timeout = 60
c.CustomPBSSpawner.http_timeout = 20
c.CustomPBSSpawner.query_interval = 0.5
c.CustomPBSSpawner.poll_interval = 1
c.CustomPBSSpawner.command_timeout = 3
"""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(what: Callable[[], Any], timeout: float = 60.0) -> Any:
    """The first true value of `what`, asked again and again."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = what()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"nothing came of it in {timeout} s")


class Hub:
    """Start, stop, and talk to the hub."""

    python = sys.executable
    module = "custom_pbs_spawner.hub"
    spawner = SPAWNER
    """The part of the configuration that chooses and configures the spawner."""

    def __init__(self, root: Path, queue: SmallTorque) -> None:
        self.root = root
        self.queue = queue
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}/ganymede/hub"
        self.extra = ""
        self.secret = "hub-secret-in-the-environment"
        self._process: subprocess.Popen[bytes] | None = None
        self.write_profiles(PROFILES)
        self._make_environment()

    def write_profiles(self, rows: list[dict[str, Any]]) -> None:
        (self.root / "profiles.json").write_text(json.dumps({"profiles": rows}))

    def _make_environment(self) -> None:
        """A prefix with this Python and, for the notebook server, the stub."""
        binaries = self.root / "env" / "bin"
        binaries.mkdir(parents=True)
        python = binaries / "python"
        # A job can be made to take its time, or to die before its server has reported a port.
        dies = 'if [ -e "$HOME/slow" ]; then sleep 4; fi\n'
        dies += 'if [ -e "$HOME/die" ]; then echo no luck today; exit 3; fi'
        python.write_text(f'#!/bin/sh\n{dies}\nexec {sys.executable} "$@"\n')
        stub = binaries / "jupyterhub-singleuser"
        stub.write_text((Path(__file__).parent / "stub_server.py").read_text())
        for path in (python, stub):
            path.chmod(0o755)

    def start(self) -> None:
        config = self.root / "jupyterhub_config.py"
        config.write_text(
            (COMMON + self.spawner + "{extra}\n").format(
                root=str(self.root),
                torque=self.queue.root,
                package=PACKAGE,
                port=self.port,
                proxy_port=_free_port(),
                token=SERVICE_TOKEN,
                extra=self.extra,
            )
        )
        with (self.root / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, "--debug", "-f", str(config)],
                stdout=log,
                stderr=log,
                cwd=self.root,
                env={
                    **os.environ,
                    "PYTHONPATH": str(PACKAGE),
                    "CONFIGPROXY_AUTH_TOKEN": self.secret,
                },
            )
        wait_for(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            return requests.get(f"{self.url}/health", timeout=2).ok
        except requests.ConnectionError:
            return False

    def kill(self, how: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def log(self) -> str:
        return (self.root / "hub.log").read_text()

    def api(
        self,
        method: str,
        path: str,
        *,
        token: str = SERVICE_TOKEN,
        seconds: float = 30,
        **arguments: Any,
    ) -> requests.Response:
        """A call of the REST API."""
        headers = {"Authorization": f"token {token}"}
        return requests.request(
            method, f"{self.url}/api{path}", headers=headers, timeout=seconds, **arguments
        )

    def metrics(self) -> str:
        """What the hub tells Prometheus."""
        headers = {"Authorization": f"token {SERVICE_TOKEN}"}
        return requests.get(f"{self.url}/metrics", headers=headers, timeout=10).text

    def wait_census(self) -> None:
        """Wait until the hub has seen the queue."""
        wait_for(lambda: re.search(r"^ganymede_queue_view_age_seconds \d", self.metrics(), re.M))

    def add_user(self, name: str) -> str:
        """Make a user and return a token of hers."""
        self.api("POST", f"/users/{name}").raise_for_status()
        self.queue.home(name)
        answer = self.api("POST", f"/users/{name}/tokens", json={"note": "test"})
        token: str = answer.json()["token"]
        return token

    def server(self, user: str, name: str = "") -> dict[str, Any]:
        """The hub's model of a server that is active, or nothing."""
        servers = self.api("GET", f"/users/{user}").json()["servers"]
        model: dict[str, Any] = servers.get(name, {})
        return model

    def wait_ready(self, user: str, name: str = "") -> dict[str, Any]:
        model: dict[str, Any] = wait_for(
            lambda: self.server(user, name).get("ready") and self.server(user, name)
        )
        return model

    def start_server(
        self, user: str, token: str, options: object = None, name: str = ""
    ) -> requests.Response:
        """Ask for a server, as the user."""
        path = f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"
        body = {"user_options": {"profile": "tintel"} if options is None else options}
        return self.api("POST", path, token=token, json=body)

    def job_number(self, user: str, name: str = "") -> int:
        """The number of the job of a server, once it has one."""

        def job_id() -> str:
            child: dict[str, str] = self.server(user, name).get("state", {}).get("child_state", {})
            return child.get("job_id", "")

        return int(wait_for(job_id).partition(".")[0])

    def database(self, statement: str, *values: object) -> list[Any]:
        """Run a statement in the hub's database."""
        with sqlite3.connect(self.root / "hub.sqlite", timeout=10) as connection:
            return connection.execute(statement, values).fetchall()

    def routes(self) -> list[str]:
        return list(self.targets())

    def targets(self) -> dict[str, str]:
        """Where each route of the proxy leads."""
        targets: dict[str, str] = json.loads((self.root / "routes.json").read_text())
        return targets

    def login(self, name: str, language: str = "en") -> requests.Session:
        """A browser's session."""
        self.queue.home(name)
        session = requests.Session()
        session.headers["Accept-Language"] = language
        page = session.get(f"{self.url}/login", timeout=10)
        answer = session.post(
            f"{self.url}/login",
            data={"username": name, "password": "x", "_xsrf": xsrf(page.text)},
            timeout=10,
            allow_redirects=False,
        )
        assert answer.status_code == 302, answer.text
        return session


def xsrf(page: str) -> str:
    """The token of a page's form."""
    match = re.search(r'name="_xsrf"\s+value="([^"]+)"|_xsrf=([^"&]+)', page)
    assert match is not None, page
    return match[1] or match[2]
