# SPDX-License-Identifier: BSD-3-Clause
"""The cluster of the walk, and what an attacker or a fault does to it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import requests

from tests.hub_client import Researcher
from tests.pitfalls.bed import BedError, prepared, reached
from tests.walk.cluster import HOMES, TORQUE, Cluster

KNOB = f"{TORQUE}/sbin/mock-torque-knob"
SERVER = "pitfall"


class Rehearsal(Cluster):
    """A running cluster whose hosts obey root."""

    def put(self, path: str, text: str) -> None:
        """A file of root on the hub's host; only sudo insists on its mode."""
        mode = "0440" if "sudoers" in path else "0644"
        self.run(
            "ganymede", "install", "-D", "-o", "root", "-m", mode, "/dev/stdin", path, stdin=text
        )

    def restart(self, *units: str) -> None:
        """Restart services of the hub's host and wait until the hub answers through the proxy."""
        self.run("ganymede", "systemctl", "daemon-reload")
        self.run("ganymede", "systemctl", "restart", *units)
        prepared("the hub answers", self.answers, 150)

    def answers(self) -> bool:
        """Whether the hub answers through the proxy."""
        try:
            return requests.get(f"{self.url}/hub/health", timeout=2).ok
        except requests.RequestException:
            return False

    def knob(self, name: str, *value: str) -> None:
        """Set a knob of the queue; without a value set it back."""
        self.run("encina", KNOB, name, *value)

    def clear(self) -> None:
        """Everything works; nobody has a server, a job or a process."""
        self.run("encina", KNOB, "reset")
        for node in ("node01", "node02"):
            self.run(node, "systemctl", "start", "pbs_mom")
        for account in self.accounts.values():
            if account.access:
                Resident(self, account.name).stop_all()
        for name in [a.name for a in self.accounts.values() if a.access]:
            for job in self.jobs(name):
                self.run("encina", f"{TORQUE}/bin/qdel", job.id, check=False)
            prepared("no job is left", lambda name=name: not self.jobs(name), 60)  # type: ignore[misc]
            for node in ("node01", "node02"):
                self.run(node, "pkill", "-9", "-u", name, check=False)

    def as_user(self, host: str, user: str, *command: str, stdin: str = "") -> Done:
        """Run a command on a host as one of its accounts."""
        done = subprocess.run(
            ["docker", "exec", "-i", "-u", user, self._containers[host], *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


class Done:
    """How a command ended and what it printed."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


class Resident(Researcher):
    """A researcher with an account in the cluster: a browser, a token, a shell on each host."""

    def __init__(self, cluster: Rehearsal, name: str) -> None:
        super().__init__(cluster.url, name, cluster.accounts[name].password)
        self.cluster = cluster
        self.home = f"{HOMES}/{name}"
        answer = self.log_in()
        if "/hub/login" in answer.url:
            raise BedError(f"{name} cannot log in: {answer.status_code}")
        self.use_token()

    def begin(self, profile: str = "tintel", server: str = SERVER) -> None:
        """Ask for a server."""
        answer = self.start(server, {"profile": profile})
        if answer.status_code not in (201, 202):
            raise BedError(f"the start was refused: {answer.status_code} {answer.text}")

    def run(self, profile: str = "tintel", server: str = SERVER) -> str:
        """A server that runs; the id of its job."""
        self.begin(profile, server)
        prepared("the server is ready", lambda: (self.server(server) or {}).get("ready"), 150)
        return self.cluster.jobs(self.name)[-1].id

    def job(self) -> Any:
        """Her newest job."""
        return self.cluster.jobs(self.name)[-1]

    def stop_all(self) -> None:
        """Stop and remove all her servers."""
        answer = self.session.get(f"{self.url}/hub/api/users/{self.name}", timeout=10)
        for name in answer.json().get("servers", {}):
            path = f"servers/{name}" if name else "server"
            self.session.delete(
                f"{self.url}/hub/api/users/{self.name}/{path}",
                json={"remove": True} if name else None,
                timeout=60,
            )
        prepared("her servers are gone", lambda: not self._active(), 90)

    def _active(self) -> list[str]:
        answer = self.session.get(f"{self.url}/hub/api/users/{self.name}", timeout=10)
        return [n for n, s in answer.json()["servers"].items() if s["ready"] or s["pending"]]

    def processes(self) -> list[str]:
        """Her processes on the nodes."""
        return [
            line
            for node in ("node01", "node02")
            for line in self.cluster.processes(node, self.name)
        ]

    def page(self, server: str = SERVER) -> str:
        """What the hub shows at the address of her server."""
        return self.session.get(f"{self.url}/hub/user/{self.name}/{server}/", timeout=10).text


def seconds(what: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.monotonic()
    what()
    return time.monotonic() - begun


__all__ = ["SERVER", "Done", "Rehearsal", "Resident", "reached", "seconds"]
