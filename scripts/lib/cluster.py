# SPDX-License-Identifier: BSD-3-Clause
"""A rehearsal cluster as it stands: containers, address, passwords, health.

python3 scripts/lib/cluster.py NAME      the same as JSON, for the tests
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from machine import DOCKER, PlainError, cache, output

LABEL = "ganymede.cluster"
RESEARCHERS = ("meteo1", "meteo2")
OUTSIDER = "outsider"

# What has to run on a host of that name.
UNITS = {
    "ganymede": ["jupyterhub-hub", "jupyterhub-proxy", "trqauthd"],
    "encina": ["pbs_server"],
    "node01": ["pbs_mom"],
    "node02": ["pbs_mom"],
}


@dataclass(frozen=True)
class Host:
    """One container of the cluster."""

    name: str
    container: str
    identity: str
    image: str
    running: bool
    address: str
    cache: str  # the folder with what its cluster needs
    port: int | None  # where port 8000 is published on 127.0.0.1

    @staticmethod
    def from_inspection(facts: dict[str, Any]) -> Host:
        """Read what `docker inspect` says of a container."""
        network = facts["NetworkSettings"]
        labels = facts["Config"]["Labels"]
        wanted = facts["HostConfig"]["PortBindings"] or {}
        published = network["Ports"].get("8000/tcp") or wanted.get("8000/tcp") or []
        return Host(
            name=labels["ganymede.host"],
            container=facts["Name"].lstrip("/"),
            identity=facts["Id"],
            image=facts["Config"]["Image"],
            running=facts["State"]["Running"],
            cache=labels.get("ganymede.cache", ""),
            address=next((n["IPAddress"] for n in network["Networks"].values()), ""),
            port=int(published[0]["HostPort"] or 0) or None if published else None,
        )

    def run(self, *command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """Run a command on the host as root; `timeout` in seconds."""
        return subprocess.run(
            [DOCKER, "exec", self.container, *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def health(self) -> str:
        """`ok`, or what is wrong."""
        if not self.running:
            return "stopped"
        try:
            states = self.run("systemctl", "is-active", *UNITS[self.name]).stdout.split()
        except subprocess.TimeoutExpired:
            return "does not answer"
        wrong = [
            f"{unit} is {state}"
            for unit, state in zip(UNITS[self.name], states, strict=False)
            if state != "active"
        ]
        return ", ".join(wrong) or ("ok" if states else "not set up")


class Cluster:
    """The cluster of one name (demo, or a Molecule scenario)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = cache() / "clusters" / name

    def hosts(self) -> dict[str, Host]:
        """The hosts there are, by name."""
        found = output([DOCKER, "ps", "--all", "--quiet", "--filter", f"label={LABEL}={self.name}"])
        if not found:
            return {}
        facts = json.loads(output([DOCKER, "inspect", *found.split()]))
        return {host.name: host for host in sorted(map(Host.from_inspection, facts), key=_order)}

    def host(self, name: str) -> Host:
        """The host called `name`.

        Raises:
            PlainError: there is none, or it is stopped.
        """
        hosts = self.hosts()
        if not hosts:
            raise PlainError("There is no cluster: call scripts/demo first.")
        if name not in hosts:
            raise PlainError(f"There is no host {name!r}: write one of {', '.join(hosts)}.")
        if not hosts[name].running:
            raise PlainError(f"{name} is stopped: call scripts/demo to start it.")
        return hosts[name]

    def require_own(self) -> None:
        """Stop when the cluster of this name was built from another cache folder.

        Raises:
            PlainError: it was; its passwords and packages are there.
        """
        for host in self.hosts().values():
            if host.cache not in {"", str(cache())}:
                raise PlainError(
                    f"The cluster {self.name} of this machine keeps its files in {host.cache}: set"
                    f" GANYMEDE_CACHE to that folder, or call scripts/{self.name} destroy first."
                )

    def port(self) -> int | None:
        """The port of 127.0.0.1 where the hub is published."""
        return next((host.port for host in self.hosts().values() if host.port), None)

    def password(self, user: str) -> str:
        """The password of an account, as it was drawn when the cluster was prepared."""
        file = self.state / f"password-{user}"
        return file.read_text().strip() if file.exists() else ""

    def status(self) -> dict[str, Any]:
        """Address, accounts, hosts and their health."""
        hosts = self.hosts()
        users = [
            {"name": user, "password": self.password(user), "access": user in RESEARCHERS}
            for user in (*RESEARCHERS, OUTSIDER)
            if self.password(user)
        ]
        return {
            "url": next(
                (f"http://127.0.0.1:{h.port}/ganymede" for h in hosts.values() if h.port), None
            ),
            "users": users,
            "hosts": {
                host.name: {
                    "container": host.container,
                    "address": host.address,
                    "running": host.running,
                    "health": host.health(),
                }
                for host in hosts.values()
            },
        }


def hub_version(port: int) -> str | None:
    """The version of the hub behind `port` of this machine, None when none answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ganymede/hub/api/")
        answer = connection.getresponse().read()
        version: str = json.loads(answer)["version"]
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()
    return version


def _order(host: Host) -> int:
    names = list(UNITS)
    return names.index(host.name) if host.name in names else len(names)


def main() -> None:
    """Print the cluster of the given name as JSON."""
    print(json.dumps(Cluster(sys.argv[1]).status(), indent=2))


if __name__ == "__main__":
    main()
