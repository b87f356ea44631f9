# SPDX-License-Identifier: BSD-3-Clause
"""The cluster from outside the product: what its hosts, its queue and the hub's database show.

Nothing here goes through the hub's code or through `qstat`, which the faults break: the queue is
read from the queue server's own files, processes from the nodes' /proc.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TORQUE = "/usr/local/torque"
HUB, QUEUE, NODES = "ganymede", "encina", ("node01", "node02")
GUESTS = ("chaos1", "chaos2")
FIRST_GUEST_UID = 2101
SPY = "outsider"  # an account of the cluster that may not use the hub
JOB_NAME = "jupyterhub-singleuser"
TAG = re.compile(r"/ganymede-([0-9a-f]{8}-[0-9a-f]{16})\.out$")
LIVE = frozenset("QHWTRES")

READ_QUEUE = """
import json, pathlib
names = "sequence server name user state output_path allocation exit_status ctime".split()
for path in pathlib.Path("/var/spool/torque/server_priv/jobs").glob("*.json"):
    try:
        job = json.loads(path.read_text())
    except FileNotFoundError:
        continue
    print(json.dumps({name: job[name] for name in names}))
"""

READ_DATABASE = """
import json, sqlite3
db = sqlite3.connect("file:/var/lib/jupyterhub/jupyterhub.sqlite?mode=ro", uri=True, timeout=5)
query = "select u.name, s.name, s.state from spawners s join users u on u.id = s.user_id"
for user, server, state in db.execute(query):
    print(json.dumps([user, server, json.loads(state or "{}")]))
"""

READ_PROCESSES = """
import json, os, pathlib, sys
uids = set(map(int, sys.argv[1:]))
for path in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        uid = path.stat().st_uid
        if uid not in uids:
            continue
        words = (path / "environ").read_bytes().decode(errors="replace").split("\\0")
        environment = dict(word.partition("=")[::2] for word in words)
        line = (path / "cmdline").read_bytes().decode(errors="replace").replace("\\0", " ")
        state = (path / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        continue
    if state != "Z":
        job, token = environment.get("PBS_JOBID", ""), environment.get("JUPYTERHUB_API_TOKEN", "")
        print(json.dumps([int(path.name), uid, job, line[:200], token]))
"""

READ_ROUTES = """
import json, os, urllib.request
token = os.environ["CONFIGPROXY_AUTH_TOKEN"]
request = urllib.request.Request(
    "http://127.0.0.1:8001/api/routes", headers={"Authorization": "token " + token}
)
print(json.dumps(list(json.load(urllib.request.urlopen(request, timeout=10)))))
"""

# Each answers with status 0 when the component serves again.
PROBES = {
    "hub": (HUB, "http://ganymede:8081/ganymede/hub/api/"),
    "proxy": (HUB, "http://127.0.0.1:8000/ganymede/hub/health"),
}
PROBE_HTTP = """
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    # Behind a proxy that serves, the hub may be down.
    sys.exit(0 if sys.argv[2] == "proxy" else f"HTTP {error.code}")
"""


class OutOfReachError(Exception):
    """A host did not do what it was told: frozen, too slow, or the command failed."""


@dataclass(frozen=True)
class Account:
    """A researcher's name, password and number."""

    name: str
    password: str
    uid: int = 0


@dataclass(frozen=True)
class Job:
    """A job in the files of the queue server. `node` is empty until it was placed."""

    id: str
    name: str
    owner: str
    state: str
    node: str
    tag: str
    exit_status: int | None
    submitted: float

    @property
    def live(self) -> bool:
        """Whether it is not over."""
        return self.state in LIVE


@dataclass(frozen=True)
class Claim:
    """What the hub's database says that a server owns."""

    user: str
    server: str
    job_id: str
    tag: str
    running: bool  # its port is known


@dataclass(frozen=True)
class Process:
    """A process of a researcher; `job_id` and `token` are of its environment."""

    node: str
    pid: int
    owner: str
    job_id: str
    command: str
    token: str = field(repr=False)


class World:
    """A rehearsal cluster, as `scripts/demo status --json` describes it."""

    def __init__(self, description: Path) -> None:
        told = json.loads(description.read_text())
        self.url: str = told["url"].rstrip("/")
        self._containers = {name: host["container"] for name, host in told["hosts"].items()}
        self._knobs = threading.Lock()
        self.accounts = [
            Account(user["name"], user["password"]) for user in told["users"] if user["access"]
        ]

    # --- commands ------------------------------------------------------------------------

    def run(self, host: str, *argv: str, stdin: str = "", timeout: float = 20) -> str:
        """Standard output of a command that root runs on a host. Raises OutOfReachError."""
        command = ["docker", "exec", "--interactive", self._containers[host], *argv]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise OutOfReachError(f"{host}: {argv[0]} took more than {timeout:g} s") from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-300:]
            raise OutOfReachError(f"{host}: {argv[0]} ended with {done.returncode}: {said}")
        return done.stdout

    def python(self, host: str, script: str, *argv: str, timeout: float = 20) -> str:
        """Run a script with a host's own Python."""
        return self.run(host, "python3", "-c", script, *argv, timeout=timeout)

    def freeze(self, host: str) -> None:
        """Let everything on a host stand still but its init. Raises OutOfReachError.

        Not `docker pause`: where a `docker exec` is just beginning, Docker waits for the frozen
        process with its own lock held, and can no longer be told to unpause.
        """
        self.run(host, "sh", "-c", "kill -STOP -1")

    def thaw(self, host: str) -> None:
        """Let a frozen host go on; one that is not frozen stays as it is."""
        self.run(host, "sh", "-c", "kill -CONT -1")

    def torque(self, *argv: str, timeout: float = 20) -> str:
        """A command of the queue, as the administrator of its server."""
        return self.run(QUEUE, f"{TORQUE}/bin/{argv[0]}", *argv[1:], timeout=timeout)

    def knob(self, *argv: str) -> str:
        """Turn a knob of the mock Torque."""
        # All knobs are in one file, which is read, changed and written.
        with self._knobs:
            return self.run(QUEUE, f"{TORQUE}/sbin/mock-torque-knob", *argv)

    # --- what there is -------------------------------------------------------------------

    def jobs(self) -> dict[str, Job]:
        """Every job the queue server knows, from its files."""
        found = map(json.loads, self.python(QUEUE, READ_QUEUE).splitlines())
        return {job.id: job for job in map(_job, found)}

    def claims(self) -> dict[tuple[str, str], Claim]:
        """What the hub's database claims, by user and server name."""
        rows = map(json.loads, self.python(HUB, READ_DATABASE).splitlines())
        claims = (_claim(*row) for row in rows)
        return {(claim.user, claim.server): claim for claim in claims if claim is not None}

    def processes(self, node: str) -> list[Process]:
        """The researchers' processes on a host."""
        names = {account.uid: account.name for account in self.accounts}
        rows = map(json.loads, self.python(node, READ_PROCESSES, *map(str, names)).splitlines())
        return [
            Process(node, pid, names[uid], job_id, command.strip(), token)
            for pid, uid, job_id, command, token in rows
        ]

    def routes(self) -> list[str]:
        """What the proxy serves beside the hub, asked of the proxy itself."""
        script = 'set -a; for file; do . "$file"; done; exec python3 -c "$ROUTES"'
        answer = self.run(
            HUB, "env", f"ROUTES={READ_ROUTES}", "bash", "-c", script, "bash", *self._secret_files()
        )
        return [route for route in json.loads(answer) if "/user/" in route]

    def _secret_files(self) -> list[str]:
        told = self.run(
            HUB, "systemctl", "show", "--value", "--property=EnvironmentFiles",
            "jupyterhub-proxy", "jupyterhub-hub",
        )  # fmt: skip
        return sorted({line.split(" (")[0] for line in told.splitlines() if line})

    def hub_secrets(self) -> set[str]:
        """Tokens of proxy and services, and the cookie secret."""
        files = self._secret_files()
        lines = self.run(HUB, "cat", *files).splitlines()
        values = {line.partition("=")[2].strip("\"'") for line in lines if "=" in line}
        values.add(self.run(HUB, "cat", "/var/lib/jupyterhub/jupyterhub_cookie_secret").strip())
        return {value for value in values if len(value) >= 16}

    def serves(self, component: str) -> bool:
        """Whether a component (hub, proxy, queue, a node) works again."""
        try:
            if component in PROBES:
                host, address = PROBES[component]
                self.python(host, PROBE_HTTP, address, component)
            elif component == "queue":
                self.torque("qstat", "-Q")
            elif component in NODES:
                self.run(component, "systemctl", "is-active", "pbs_mom")
                return "down" not in _node_states(self.torque("pbsnodes", "-a"))[component]
        except OutOfReachError:
            return False
        return True

    # --- before and after ----------------------------------------------------------------

    def prepare(self) -> None:
        """Heal what an earlier run left, and make two more researchers."""
        self.heal()
        home, group = self._homes(), self._group()
        for number, name in enumerate(GUESTS):
            password = secrets.token_hex(12)
            for host in (HUB, QUEUE, *NODES):
                add = (
                    f"id -u {name} >/dev/null 2>&1 || useradd --uid {FIRST_GUEST_UID + number}"
                    f" --groups {group} --home-dir {home}/{name} --shell /bin/bash {name}"
                )
                self.run(host, "sh", "-c", add)
            self.run(HUB, "chpasswd", stdin=f"{name}:{password}\n")
            self.run(HUB, "install", "-d", "-m", "0700", "-o", name, "-g", name, f"{home}/{name}")
            self.accounts.append(Account(name, password))
        numbers = {
            account.name: int(self.run(HUB, "id", "-u", account.name)) for account in self.accounts
        }
        self.accounts = [
            Account(account.name, account.password, numbers[account.name])
            for account in self.accounts
        ]
        # Torque looks again at a waiting job only every ten minutes when nothing else happens.
        self.torque("qmgr", "-c", "set server scheduler_iteration = 10")

    def restore(self) -> None:
        """Take away what prepare() made, with the processes that are left of the guests."""
        self.torque("qmgr", "-c", "set server scheduler_iteration = 600")
        for host in (HUB, QUEUE, *NODES):
            for name in GUESTS:
                remove = f"pkill -KILL -u {name}; userdel --force {name} || true"
                self.run(host, "sh", "-c", remove)
        for name in GUESTS:
            self.run(HUB, "rm", "-rf", f"{self._homes()}/{name}")

    def heal(self) -> None:
        """End every fault there may be, whoever made it."""
        for node in NODES:
            self.thaw(node)
        self.knob("reset")
        units = {HUB: ["trqauthd", "jupyterhub-hub", "jupyterhub-proxy"], QUEUE: ["pbs_server"]}
        units |= {node: ["pbs_mom"] for node in NODES}
        for host, names in units.items():
            for unit in names:
                self.run(host, "systemctl", "kill", "--signal=CONT", unit)
                self.run(host, "systemctl", "reset-failed", unit)
                self.run(host, "systemctl", "start", unit, timeout=60)

    def home(self, user: str) -> str:
        """The home of a researcher, on every host."""
        return f"{self._homes()}/{user}"

    def _homes(self) -> str:
        entry = self.run(HUB, "getent", "passwd", self.accounts[0].name)
        return entry.split(":")[5].rpartition("/")[0]

    def _group(self) -> str:
        groups = self.run(HUB, "id", "-Gn", self.accounts[0].name).split()
        return next(group for group in groups if group != self.accounts[0].name)


def _job(told: dict[str, Any]) -> Job:
    tag = TAG.search(told["output_path"])
    return Job(
        id=f"{told['sequence']}.{told['server']}",
        name=told["name"],
        owner=told["user"],
        state=told["state"],
        node=told["allocation"][0][0] if told["allocation"] else "",
        tag=tag[1] if tag else "",
        exit_status=told["exit_status"],
        submitted=told["ctime"],
    )


def _claim(user: str, server: str, state: dict[str, Any]) -> Claim | None:
    # The wrapper keeps the state of the server it started in its own.
    record = state.get("child_state") or state
    job_id, tag = str(record.get("job_id", "")), str(record.get("tag", ""))
    if not (job_id or tag):
        return None
    return Claim(user, server, job_id, tag, running=bool(record.get("port")))


def _node_states(text: str) -> dict[str, str]:
    """Node to state, of `pbsnodes -a`."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return {
        block.split()[0]: re.search(r"state = (\S+)", block)[1]  # type: ignore[index]
        for block in blocks
    }
