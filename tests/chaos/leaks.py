# SPDX-License-Identifier: BSD-3-Clause
"""Where a secret could be read by somebody it does not belong to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from tests.chaos.world import HUB, NODES, QUEUE, SPY, TORQUE, OutOfReachError, Process, World

FOLDERS = ("/oceano", "/var", "/run", "/tmp", "/etc", "/dev/shm", "/opt/jupyterhub/run")  # noqa: S108
LOGS = ("/oceano/gmeteo/users/*/.ganymede", "/var/log")
DATABASE = "/var/lib/jupyterhub/jupyterhub.sqlite*"

# Reads {"secrets": {value: [owner, name]}, "folders": [...], "since": epoch, "commands": [[...]],
# "processes": bool} and prints a line for each place where one is found. Run by a spy, it sees what
# any account sees; run by root with "foreign", it looks at what a process has of others.
SEARCH = r"""
import glob, json, os, pathlib, pwd, subprocess, sys
task = json.load(sys.stdin)
secrets = {value.encode(): owner for value, owner in task["secrets"].items()}

def search(place, data, reader=None):
    for value, (owner, name) in secrets.items():
        if value in data and owner != reader:
            print(json.dumps([place, name]))

def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(4_000_000)
    except OSError:
        return b""

for pattern in task["folders"]:
    for top in glob.glob(pattern):
        if os.path.isfile(top):
            search(top, read(top))
        for folder, _, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    changed = os.lstat(path).st_mtime
                except OSError:
                    continue
                if changed >= task["since"] and not os.path.islink(path) and os.path.isfile(path):
                    search(path, read(path))
for path in glob.glob("/proc/[0-9]*") if task["processes"] else []:
    try:
        owner = pwd.getpwuid(os.stat(path).st_uid).pw_name
    except (OSError, KeyError):
        continue
    if path == f"/proc/{os.getpid()}":
        continue
    # Root may read everything: then it matters what a researcher's process has of others.
    if os.getuid() == 0 and owner not in task["people"]:
        continue
    reader = owner if os.getuid() == 0 else None
    search(f"environment of a process of {owner}", read(path + "/environ"), reader)
    search(f"command line of a process of {owner}", read(path + "/cmdline"))
for command in task["commands"]:
    done = subprocess.run(command, capture_output=True, timeout=40)
    search(" ".join(command[:2]), done.stdout + done.stderr)
"""


class Search:
    """Knows the secrets of a run and looks for them. What it prints are names, never values."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._begun = time.time() - 60
        self._secrets: dict[str, tuple[str, str]] = {}
        self.add("root", "a secret of the hub", world.hub_secrets())

    def add(self, owner: str, name: str, values: Iterable[str]) -> None:
        """These values may be known to `owner` alone."""
        self._secrets |= dict.fromkeys(values, (owner, name))

    def learn(self, processes: list[Process]) -> None:
        """Each server has a token of its own, which its processes carry."""
        for process in processes:
            if process.token:
                self.add(process.owner, f"{process.owner}'s server token", [process.token])

    def find(self) -> dict[str, str]:
        """Place to what was found there, empty when nothing was; hosts out of reach are left out.

        As an account that has no business with the hub: files, processes, the queue. As root: logs
        and the database, where no secret may be at all, and what each researcher's processes hold.
        """
        asked: dict[str, tuple[str, list[str], dict[str, Any]]] = {}
        for host in (HUB, QUEUE, *NODES):
            commands = [[f"{TORQUE}/bin/qstat", "-f"]] if host == HUB else []
            asked[f"{host} as {SPY}"] = host, ["runuser", "-u", SPY, "--"], {
                "folders": FOLDERS, "commands": commands, "processes": True,
            }  # fmt: skip
        journal = ["journalctl", "--no-pager", "--output=cat", f"--since=@{self._begun:.0f}"]
        asked["logs and database"] = HUB, [], {
            "folders": [*LOGS, DATABASE], "commands": [journal], "processes": True,
        }  # fmt: skip
        for node in NODES:
            asked[f"processes on {node}"] = node, [], {
                "folders": [], "commands": [], "processes": True,
            }  # fmt: skip
        found: dict[str, str] = {}
        for place, (host, prefix, task) in asked.items():
            try:
                found[place] = self._search(host, prefix, task)
            except OutOfReachError:
                continue
        return found

    def _search(self, host: str, prefix: list[str], task: dict[str, Any]) -> str:
        people = [account.name for account in self._world.accounts]
        told = {"secrets": self._secrets, "since": self._begun, "people": people, **task}
        command = [*prefix, "python3", "-c", SEARCH]
        lines = self._world.run(host, *command, stdin=json.dumps(told), timeout=60).splitlines()
        places = sorted({f"{name} in {place}" for place, name in map(json.loads, lines)})
        return "; ".join(places[:5])
