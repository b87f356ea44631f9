# SPDX-License-Identifier: BSD-3-Clause
"""A batch system of real processes in a temporary folder: server, moms, trqauthds, commands."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mock_torque.client import Client
from mock_torque.formatting import values
from mock_torque.home import Home
from mock_torque.knobs import Knobs

SOURCE = Path(__file__).parents[3] / "molecule" / "rehearsal" / "torque"
SERVER = "localhost"  # the only name that every host resolves
PATIENCE = 40.0  # seconds until a condition counts as never fulfilled
FIRST_UID = 54321
USERS = {"velezj": FIRST_UID, "rhea": FIRST_UID + 1, "ghost": FIRST_UID + 2}
SETUP = """\
create queue tintel
set queue tintel queue_type = Execution
set queue tintel resources_max.walltime = 24:00:00
set queue tintel resources_max.mem = 8gb
set queue tintel resources_max.ncpus = 4
set queue tintel resources_default.walltime = 01:00:00
set queue tintel resources_default.nodes = 1
set queue tintel enabled = True
set queue tintel started = True
create queue long
set queue long queue_type = Execution
set queue long resources_max.walltime = 168:00:00
set queue long resources_default.walltime = 24:00:00
set queue long resources_default.nodes = 1
set queue long enabled = True
set queue long started = True
create queue himem queue_type=Execution,resources_max.walltime=48:00:00,resources_max.mem=64gb
set queue himem resources_default.walltime = 01:00:00
set queue himem resources_default.nodes = 1
set queue himem enabled = True
set queue himem started = True
set server default_queue = tintel
set server query_other_jobs = True
set server submit_hosts = jhub
"""
MOM_CONFIG = """\
$check_poll_time 0.5
$status_update_time 0.5
$copy_retry_time 0.05
"""
T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str


def wait_for(condition: Callable[[], T], what: str) -> T:
    """The first true value of ``condition``."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE:.0f} s: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class Host:
    """The spool folder of one host."""

    def __init__(self, system: System, name: str) -> None:
        self.name = name
        self.home = system.root / name
        template = system.installed / "var/spool/torque"
        shutil.copytree(template, self.home)
        (self.home / "server_name").write_text(f"{SERVER}:{system.port}\n")
        (self.home / "auth_key").write_text(system.key)
        (self.home / "auth_key").chmod(0o600)
        self.know(*system.users)

    def know(self, *users: str) -> None:
        """The accounts of this host."""
        rows = [
            f"{user}:x:{USERS[user]}:{USERS[user]}::{self.home.parent}/homes/{user}:/bin/bash\n"
            for user in users
        ]
        (self.home / "accounts").write_text("".join(rows))


class System:
    """One server, some nodes, the server's own submit host and another one (``jhub``)."""

    users = ("velezj", "rhea")

    def __init__(self, root: Path, installed: Path) -> None:
        self.root = root
        root.chmod(0o755)  # users must reach homes and sockets
        self.installed = installed
        self.programs = installed / "usr/local/torque"
        self.port = free_port()
        self.key = secrets.token_hex(16)
        for user, uid in USERS.items():
            home = root / "homes" / user
            home.mkdir(parents=True)
            home.chmod(0o700)
            os.chown(home, uid, uid)
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.server_host = Host(self, SERVER)
        self.nodes: dict[str, Host] = {}
        self.ports: dict[str, int] = {}
        self.hosts = {SERVER: self.server_host}
        (self.server_priv / "setup.qmgr").write_text(SETUP)

    @property
    def server_priv(self) -> Path:
        return self.server_host.home / "server_priv"

    def home_of(self, user: str) -> Path:
        return self.root / "homes" / user

    # --- daemons

    def _start(self, name: str, program: str, *arguments: object) -> None:
        log = (self.root / f"{name}.log").open("ab")
        path = self.programs / "sbin" / program
        self.daemons[name] = subprocess.Popen(
            [path, *map(str, arguments)], stderr=log, stdin=subprocess.DEVNULL
        )

    def start(self, *, nodes: dict[str, str]) -> None:
        """Start everything; ``nodes`` maps a name to its words in server_priv/nodes."""
        rows = []
        for name, words in nodes.items():
            self.ports[name] = free_port()
            rows.append(f"{name} {words} mom_service_port={self.ports[name]}\n")
            self.nodes[name] = Host(self, name)
            (self.nodes[name].home / "mom_priv/config").write_text(MOM_CONFIG)
        (self.server_priv / "nodes").write_text("".join(rows))
        self.set_knob("schedule_delay", "0.05")
        self.start_server()
        for name in nodes:
            self.start_mom(name)
        self.start_trqauthd(SERVER)
        for name in nodes:
            self.wait_node(name, "free")

    def start_server(self) -> None:
        self._start("server", "pbs_server", "-d", self.server_host.home)
        wait_for(self._answers, "the server answers")

    def _answers(self) -> bool:
        assert self.daemons["server"].poll() is None, self.log("server")
        with contextlib.suppress(OSError), socket.create_connection((SERVER, self.port), 1) as peer:
            return bool(peer.recv(1))
        return False

    def start_trqauthd(self, name: str) -> None:
        if name not in self.hosts:
            self.hosts[name] = Host(self, name)
        home = self.hosts[name].home
        self._start(f"trqauthd-{name}", "trqauthd", "-d", home, "-H", name)
        wait_for((home / "trqauthd.sock").exists, "trqauthd's socket")

    def start_mom(self, name: str) -> None:
        home = self.nodes[name].home
        self._start(name, "pbs_mom", "-d", home, "-H", name, "-M", self.ports[name])

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a daemon and wait for it."""
        daemon = self.daemons.pop(name)
        daemon.send_signal(number)
        daemon.wait(PATIENCE)

    def clear(self) -> None:
        """Purge all jobs and set the knobs back; the moms stop what still runs."""
        (self.server_priv / "knobs").unlink(missing_ok=True)
        self.set_knob("schedule_delay", "0.05")
        client = self._client()
        (result,) = client.ask("jobs", targets=[""])["results"]
        for job in result["jobs"]:
            client.ask("delete", id=job["id"], purge=True)
        for home in (self.home_of(user) for user in self.users):
            for path in home.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def shut_down(self) -> None:
        """Stop all daemons and what the tests' users still run."""
        for daemon in self.daemons.values():
            daemon.send_signal(signal.SIGCONT)
            daemon.kill()
            daemon.wait()
        for uid in USERS.values():
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    if entry.name.isdigit() and entry.stat().st_uid == uid:
                        os.kill(int(entry.name), signal.SIGKILL)
            for copy in Path("/tmp").glob("qsub.*"):  # noqa: S108 - qsub's own place
                if copy.stat().st_uid == uid:
                    copy.unlink()

    # --- commands

    def run(  # noqa: PLR0913
        self, user: str, *words: str, stdin: str | bytes = "", host: str = SERVER,
        cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = PATIENCE,
    ) -> Result:  # fmt: skip
        """Run a command of bin/ as ``user`` (or root) on ``host``."""
        account: dict[str, object] = {}
        if user != "root":
            account = {"user": USERS[user], "group": USERS[user], "extra_groups": []}
        home = self.home_of(user) if user != "root" else self.root
        environment = {
            "HOME": str(home), "LOGNAME": user, "SHELL": "/bin/bash", "PATH": "/usr/bin:/bin",
            "PBS_HOME": str(self.hosts[host].home), **(env or {}),
        }  # fmt: skip
        done = subprocess.run(
            [self.programs / "bin" / words[0], *words[1:]],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True, cwd=cwd or home, env=environment, timeout=timeout,
            check=False, **account,  # type: ignore[call-overload]
        )  # fmt: skip
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def submit(self, script: str, *options: str, user: str = "velezj") -> str:
        """The id of a job that must be accepted."""
        result = self.run(user, "qsub", *options, stdin=script)
        assert (result.code, result.err) == (0, ""), result
        return result.out.strip()

    def qmgr(self, line: str) -> None:
        result = self.run("root", "qmgr", "-c", line)
        assert (result.code, result.err) == (0, ""), result

    def knob(self, *words: str) -> None:
        program = self.programs / "sbin/mock-torque-knob"
        subprocess.run([program, "-d", self.server_host.home, *words], check=True)

    def set_knob(self, name: str, value: str) -> None:
        """The same without a process."""
        Knobs(Home(self.server_host.home)).set(name, value, None)

    # --- what the system shows

    def job(self, name: str, user: str = "root") -> dict[str, str]:
        """Attributes of ``qstat -x``, {} when the job is not known."""
        if user == "root":
            return self._own_query(name)
        result = self.run(user, "qstat", "-x", name)
        return attributes(result.out)[0] if result.code == 0 else {}

    def _client(self) -> Client:
        """Asks as root without a process: tests ask often."""
        client = Client("test")
        client.home = Home(self.server_host.home)
        return client

    def _own_query(self, name: str) -> dict[str, str]:
        (result,) = self._client().ask("jobs", targets=[name])["results"]
        if not result.get("jobs"):
            return {}
        return {"Job_Id": name, **values(result["jobs"][0]["attributes"])}

    def state(self, name: str) -> str:
        return self.job(name).get("job_state", "")

    def wait_state(self, name: str, state: str) -> dict[str, str]:
        """Attributes of the job once it is in ``state``."""

        def reached() -> dict[str, str] | None:
            job = self.job(name)
            return job if job.get("job_state") == state else None

        try:
            found = wait_for(reached, f"{name} in {state}")
        except AssertionError as error:
            logs = "".join(self.log(path.stem) for path in self.root.glob("*.log"))
            raise AssertionError(f"{error}: {self.job(name)}\n{logs}") from error
        assert found is not None
        return found

    def finished(self, script: str, *options: str) -> dict[str, str]:
        """Submit, wait for C, the attributes."""
        return self.wait_state(self.submit(script, *options), "C")

    def node_state(self, name: str) -> str:
        (node,) = self._client().ask("nodes", names=[name])["nodes"]
        return values(node["attributes"])["state"]

    def wait_node(self, name: str, state: str) -> None:
        wait_for(lambda: self.node_state(name) == state, f"{name} {state}")

    def output(self, job: dict[str, str], letter: str = "o", user: str = "velezj") -> str:
        """The delivered file with the default name."""
        number = job["Job_Id"].partition(".")[0]
        return (self.home_of(user) / f"{job['Job_Name']}.{letter}{number}").read_text()


def parse(document: str) -> ET.Element:
    """The XML of a command of this repository."""
    return ET.fromstring(document)  # noqa: S314 - our own output


def attributes(document: str) -> list[dict[str, str]]:
    """One flat dictionary for each Job: ``Resource_List.mem`` for the children."""
    jobs = []
    for job in parse(document).iter("Job"):
        flat: dict[str, str] = {}
        for element in job:
            flat[element.tag] = element.text or ""
            flat |= {f"{element.tag}.{child.tag}": child.text or "" for child in element}
        jobs.append(flat)
    return jobs


def tags(document: str) -> list[str]:
    """Names of the elements of the first job, in order."""
    job = next(parse(document).iter("Job"))
    return [element.tag for element in job]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def install(root: Path) -> None:
    """Install into a folder that every user can reach."""
    root.chmod(0o755)
    subprocess.run([SOURCE / "install", root], check=True)


@contextlib.contextmanager
def running_system(root: Path, installed: Path, nodes: dict[str, str]) -> Iterator[System]:
    """A started system that is gone afterwards."""
    system = System(root, installed)
    try:
        system.start(nodes=nodes)
        yield system
    finally:
        system.shut_down()
