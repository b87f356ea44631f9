# SPDX-License-Identifier: BSD-3-Clause
"""A real hub with one class set or the other, measured by the probe and driven through REST."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

from benchmarks import stub
from benchmarks.cluster import REPOSITORY, SERVER, Cluster
from benchmarks.sandbox import HUB_ACCOUNT

PACKAGE = REPOSITORY / "roles" / "jupyterhub" / "files"
ADMIN = "administrator"
TOKEN = "a-token-of-the-benchmark-alone"  # noqa: S105 - the network is a loopback of our own
START_LIMIT = 300.0  # seconds, of a hub and of a server
MAX_CLIENTS = 600
CREATED, ACCEPTED, NO_CONTENT = 201, 202, 204
PREFERRED = "-15"
"""Priority of a hub; its commands put themselves at the other end (cluster.py)."""
CAPABILITIES = "+setuid,+setgid"
"""What the stand-in of sudo needs, which has no set-uid bit."""

COMMON = """\
import sys
sys.path[:0] = [{repository!r}, {package!r}]
from benchmarks import probe
c = get_config()
probe.install({socket!r})
c.JupyterHub.proxy_class = probe.RouteBook
c.JupyterHub.bind_url = "http://127.0.0.1:{public_port}"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = {port}
c.JupyterHub.db_url = "sqlite:///{root}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{root}/cookie_secret"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{{admin!r}}}
c.JupyterHub.cleanup_servers = False
c.JupyterHub.services = [dict(name="benchmark", api_token={token!r})]
c.JupyterHub.load_roles = [dict(
    name="benchmark", services=["benchmark"],
    scopes=["admin:users", "admin:servers", "admin:server_state", "tokens"],
)]
c.Spawner.poll_interval = {poll_interval}
c.Spawner.start_timeout = 600
c.Spawner.http_timeout = 120
c.Spawner.cmd = ["jupyterhub-singleuser"]
"""

# As the READMEs of batchspawner and wrapspawner say, with the commands' absolute paths.
STOCK = """
import batchspawner
c.JupyterHub.spawner_class = "wrapspawner.ProfilesSpawner"
c.TorqueSpawner.exec_prefix = "{bin}/sudo -E -u {{username}}"
c.TorqueSpawner.batch_submit_cmd = "{bin}/qsub"
c.TorqueSpawner.batch_query_cmd = "{bin}/qstat -x {{job_id}}"
c.TorqueSpawner.batch_cancel_cmd = "{bin}/qdel {{job_id}}"
c.TorqueSpawner.req_host = {server!r}
c.TorqueSpawner.req_prologue = "PATH={jobs}:$PATH"
c.ProfilesSpawner.profiles = [
    ("tintel - 1 core, 800 MB, 1 hour", "tintel", "batchspawner.TorqueSpawner", dict(
        req_queue="tintel", req_nprocs="1", req_memory="800mb", req_runtime="1:00:00",
        req_options="-r n",
    )),
]
"""
OURS = """
c.JupyterHub.spawner_class = "custom_pbs_spawner.ProfileMenuSpawner"
c.JupyterHub.init_spawners_timeout = 1
c.ProfileMenuSpawner.profiles_file = "{root}/profiles.json"
c.CustomPBSSpawner.torque_bin = {bin!r}
c.CustomPBSSpawner.sudo_path = "{bin}/sudo"
c.CustomPBSSpawner.batch_script_template = "{root}/batch_script.sh.j2"
c.CustomPBSSpawner.home_directory = "{homes}/{{username}}"
"""
PROFILES = [
    {
        "key": "tintel",
        "display_name": "tintel - 1 core, 800 MB, 1 hour",
        "queue": "tintel",
        "cores": 1,
        "memory": "800mb",
        "walltime": "1:00:00",
    }
]
# The same job as batchspawner's own template makes, with the stub in the server's place.
BATCH_SCRIPT = """\
#!/bin/sh
#PBS -N {{ job_name | directive }}
#PBS -q {{ queue | directive }}
#PBS -l nodes=1:ppn={{ cores | directive }}
#PBS -l mem={{ memory | directive }}
#PBS -l walltime={{ walltime | directive }}
#PBS -r n
{% if tag is defined %}
#PBS -j oe
#PBS -o {{ log_directory | directive }}/ganymede-{{ tag | directive }}.out
{% endif %}
set -eu
{% for name, value in exports | dictsort %}
export {{ name }}={{ value | quote }}
{% endfor %}
PATH=@JOBS@:$PATH
batchspawner-singleuser jupyterhub-singleuser
"""


@dataclass(frozen=True)
class ClassSet:
    """What is compared: a configuration, and the program that runs it."""

    name: str
    configuration: str
    values: dict[str, str] = field(default_factory=dict)  # of the configuration's own names

    def command(self, config: Path) -> list[str]:
        """The one place that says how a hub is started."""
        own = self.name == "ours" and (PACKAGE / "custom_pbs_spawner" / "hub.py").exists()
        module = "custom_pbs_spawner.hub" if own else "jupyterhub"
        return [sys.executable, "-m", module, f"--config={config}"]


CLASS_SETS = {"stock": ClassSet("stock", STOCK), "ours": ClassSet("ours", OURS)}


@dataclass
class Hub:
    """One hub: its process, its REST interface, its probe. Start and stop are seconds apart."""

    root: Path
    classes: ClassSet
    cluster: Cluster
    homes: Path
    poll_interval: int = 30
    port: int = 8081
    public_port: int = 8000
    account: str = HUB_ACCOUNT
    _token: str = TOKEN
    _process: subprocess.Popen[bytes] | None = None
    _client: AsyncHTTPClient = field(init=False)

    def __post_init__(self) -> None:
        AsyncHTTPClient.configure(None, max_clients=MAX_CLIENTS)
        self._client = AsyncHTTPClient()
        self.root.mkdir()
        jobs = self.root / "jobs"
        jobs.mkdir()
        job = jobs / "batchspawner-singleuser"
        job.write_text(stub.JOB)
        job.chmod(0o755)
        (self.root / "profiles.json").write_text(json.dumps({"profiles": PROFILES}))
        (self.root / "batch_script.sh.j2").write_text(BATCH_SCRIPT.replace("@JOBS@", str(jobs)))
        text = COMMON + self.classes.configuration
        self._config.write_text(
            text.format(
                repository=str(REPOSITORY), package=str(PACKAGE), socket=str(self._socket),
                port=self.port, public_port=self.public_port, root=self.root, token=TOKEN,
                poll_interval=self.poll_interval, bin=str(self.cluster.bin), server=SERVER,
                jobs=jobs, homes=self.homes, admin=ADMIN,
                proxy_port=self.public_port + 1, **self.classes.values,
            )
        )  # fmt: skip
        self.root.chmod(0o755)
        subprocess.run(["/bin/chown", f"{self.account}:", self.root], check=True)

    @property
    def _config(self) -> Path:
        return self.root / "jupyterhub_config.py"

    @property
    def _socket(self) -> Path:
        return self.root / "probe.sock"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hub"

    # --- process

    async def start(self) -> float:
        """Start it and wait until it answers; seconds that took."""
        begun = time.perf_counter()
        self._socket.unlink(missing_ok=True)
        process = self._launch()
        while not await self._answers():
            if process.poll() is not None or time.perf_counter() - begun > START_LIMIT:
                log_text = (self.root / "hub.log").read_text()[-3000:]
                raise SystemExit(f"The hub does not start:\n{log_text}")
            await asyncio.sleep(0.05)
        return time.perf_counter() - begun

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self.root / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/bin/setpriv", f"--reuid={self.account}", f"--regid={self.account}",
                 "--init-groups", f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}",
                 "--", *self.classes.command(self._config)],
                stdout=log, stderr=log, cwd=self.root,
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PACKAGE), "LANG": "C.UTF-8"},
                start_new_session=True,
            )  # fmt: skip
        self._prefer(self._process.pid)
        return self._process

    @staticmethod
    def _prefer(pid: int) -> None:
        """Let the hub have a processor when it wants one, as on a host without queue and jobs."""
        group = Path(f"/proc/{pid}/autogroup")  # sched(7): of its session; nice is inside it
        if group.exists():
            group.write_text(PREFERRED)
        os.setpriority(os.PRIO_PROCESS, pid, int(PREFERRED))

    async def _answers(self) -> bool:
        try:
            await self._client.fetch(f"{self.url}/health", request_timeout=2)
        except (OSError, TimeoutError, RuntimeError):
            return False
        except Exception as error:
            if getattr(error, "code", 0) in {500, 502, 503, 599}:
                return False
            raise
        return True

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    # --- readings

    async def reading(self) -> dict[str, Any]:
        """What the probe knows, and how often each command has run."""
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        reading: dict[str, Any] = json.loads(await reader.read())
        writer.close()
        reading["calls"] = self.cluster.calls()
        return reading

    # --- REST

    async def call(
        self, method: str, path: str, body: object = None, **options: Any
    ) -> HTTPResponse:
        """One request; the answer, whatever its status."""
        request = HTTPRequest(
            f"{self.url}/api{path}", method=method,
            headers={"Authorization": f"token {self._token}"},
            body=None if body is None else json.dumps(body), allow_nonstandard_methods=True,
            connect_timeout=60, request_timeout=START_LIMIT, **options,
        )  # fmt: skip
        return await self._client.fetch(request, raise_error=False)

    async def add_users(self, names: list[str]) -> None:
        """Make accounts, and a token to go on with.

        JupyterHub spends 10 ms on checking one that it has not made itself, as it would never do
        for a browser.
        """
        answer = await self.call("POST", "/users", {"usernames": names})
        assert answer.code == CREATED, answer.body
        answer = await self.call("POST", f"/users/{ADMIN}/tokens", {"note": "benchmark"})
        assert answer.code == CREATED, answer.body
        self._token = json.loads(answer.body)["token"]

    async def start_server(self, user: str) -> float:
        """Start a server and wait until it is ready; seconds from the POST.

        As a browser does it: one POST, and the event stream when that says "not yet".
        """
        begun = time.perf_counter()
        choice = {"user_options": {"profile": "tintel"}}
        answer = await self.call("POST", f"/users/{user}/server", choice)
        if answer.code == ACCEPTED:
            await self._wait_ready(user)
        elif answer.code != CREATED:
            raise SystemExit(f"{self.classes.name}: {user}: {answer.code} {answer.body[:500]!r}")
        return time.perf_counter() - begun

    async def _wait_ready(self, user: str) -> None:
        stream = bytearray()
        await self.call("GET", f"/users/{user}/server/progress", streaming_callback=stream.extend)
        if b'"ready": true' not in stream:
            raise SystemExit(f"{self.classes.name}: {user} did not start: {stream[-500:]!r}")

    async def stop_server(self, user: str) -> None:
        answer = await self.call("DELETE", f"/users/{user}/server")
        while answer.code == ACCEPTED:
            await asyncio.sleep(0.2)
            model = json.loads((await self.call("GET", f"/users/{user}")).body)
            if not model["servers"]:
                return
        assert answer.code == NO_CONTENT, (answer.code, answer.body)
