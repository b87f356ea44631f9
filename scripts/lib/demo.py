# SPDX-License-Identifier: BSD-3-Clause
"""scripts/demo after the bootstrap: the rehearsal cluster from its image to its notebook."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import environment
from cluster import RESEARCHERS, UNITS, Cluster, hub_version
from machine import (
    DOCKER,
    REPOSITORY,
    PlainError,
    Stages,
    cache,
    fingerprint,
    follow,
    interrupt_on_termination,
    last_line,
    only_one,
    output,
    require_space,
    say,
)

NAME = "demo"
DEFAULT_PORT = 8000
DISK_GB = (
    8  # image 0.5, packages of the offline mirror 2, environments 3, the control node's Python 1
)
READY_TIMEOUT = 120  # seconds

REHEARSAL = "molecule/rehearsal"
PLAYBOOKS = f"{REHEARSAL}/playbooks"
CLUSTER_INPUTS = [f"{REHEARSAL}/cluster.yml", PLAYBOOKS, "inventory/rehearsal/hosts.yml"]
SITE_INPUTS = [
    "ansible.cfg",
    "environments",
    "group_vars",
    "inventory/rehearsal",
    "playbooks",
    "plugins",
    "requirements",
    "roles",
]
DATA_INPUTS = [f"{PLAYBOOKS}/data.yml", f"{REHEARSAL}/data", "notebooks"]


class Demo:
    """The cluster `demo` and the way there."""

    def __init__(self) -> None:
        self.cluster = Cluster(NAME)
        self.stages = Stages(self.cluster.state / "stages.json")

    def up(self, port: int | None) -> None:
        """Build what is missing, start what is stopped, and say how to get in."""
        self.cluster.require_own()
        port = port or self.cluster.port() or DEFAULT_PORT
        self._require_port(port)
        require_space(DISK_GB if not self.cluster.hosts() else 1, "The demo")
        print(f"Ganymede on this machine (what is built once is kept in {cache()})")
        self.stages.do("Python environment", environment.stamp("control"), self._environment)
        self.stages.do("image of the hosts", None, self._image)
        self.stages.do("offline mirror", None, self._build_mirror)
        self.stages.do("hosts", self._hosts_stamp(port), lambda: self._create(port))
        self.stages.do("accounts and queue", self._stamp(CLUSTER_INPUTS), self._prepare)
        self.stages.do("site.yml", self._stamp(SITE_INPUTS, self._mirror()), self._site)
        self.stages.do("data and notebook", self._stamp(DATA_INPUTS), self._data)
        self._wait()
        self._print_access()

    def _require_port(self, port: int) -> None:
        if any(host.port == port and host.running for host in self.cluster.hosts().values()):
            return
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise PlainError(
                    f"Port {port} of 127.0.0.1 is in use: call scripts/demo --port N."
                ) from error

    def _environment(self) -> None:
        environment.install("control")

    def _image(self) -> None:
        self._script("image", [f"{REHEARSAL}/image/build"], timeout=1800)
        self.image = last_line(self._log("image"))

    def _mirror(self) -> str:
        """The mirror in use, by its hash."""
        current = cache() / "mirror" / "current"
        return current.resolve().name if current.exists() else ""

    def _build_mirror(self) -> None:
        self._script("mirror", [f"{REHEARSAL}/image/mirror", self.image], timeout=3600)

    def _hosts_stamp(self, port: int) -> str | None:
        running = [host for host in self.cluster.hosts().values() if host.running]
        if {host.name for host in running if host.image == self.image} != set(UNITS):
            return None
        return fingerprint(CLUSTER_INPUTS, self.image, str(port))

    def _stamp(self, inputs: list[str], *more: str) -> str:
        # A host made anew has lost what was done on it.
        identities = [host.identity for host in self.cluster.hosts().values()]
        return fingerprint(inputs, *identities, *more)

    def _create(self, port: int) -> None:
        self._playbook("create", f"{PLAYBOOKS}/create.yml", GANYMEDE_PORT=str(port))

    def _prepare(self) -> None:
        self._playbook("prepare", f"{PLAYBOOKS}/prepare.yml")

    def _site(self) -> None:
        self._playbook("site", "playbooks/site.yml")

    def _data(self) -> None:
        self._playbook("data", f"{PLAYBOOKS}/data.yml")

    def _log(self, name: str) -> Path:
        return cache() / "log" / f"{NAME}-{name}.log"

    def _script(self, name: str, command: list[str], timeout: float) -> None:
        """Run a script whose last line is its result, or one sentence about what is wrong."""
        log = self._log(name)
        command = [str(REPOSITORY / command[0]), *command[1:]]
        if follow(
            command, log, environment.variables(), timeout, on_line=lambda line: say(f"    {line}")
        ):
            raise PlainError(f"{last_line(log)} (Everything it said: {log})")

    def _playbook(self, name: str, playbook: str, **variables: str) -> None:
        task = "(none yet)"

        def show(line: str) -> None:
            nonlocal task
            if line.startswith("TASK ["):
                task = line.removeprefix("TASK [").rstrip("* ]")
                say(f"    {task}")

        command = [
            str(environment.folder() / "bin" / "ansible-playbook"),
            "--inventory=inventory/rehearsal",
            f"--extra-vars=rehearsal_name={NAME}",
            playbook,
        ]
        log = self._log(name)
        if follow(command, log, environment.variables(**variables), 3600, on_line=show):
            raise PlainError(
                f"{playbook} stopped at the task {task!r}: read the end of {log}, mend it and call"
                " scripts/demo again; it goes on from here."
            )

    def _wait(self) -> None:
        port = self.cluster.port()
        end = time.monotonic() + READY_TIMEOUT
        while port is None or hub_version(port) is None:
            if time.monotonic() > end:
                raise PlainError("The hub does not answer: see scripts/demo logs ganymede.")
            time.sleep(0.5)

    def _print_access(self) -> None:
        print(f"Ready after {self.stages.elapsed()}.\n")
        print(f"  Address   {self.cluster.status()['url']}")
        for user in RESEARCHERS:
            print(f"  User      {user}   password {self.cluster.password(user)}")
        print("\n  scripts/demo status | stop (keeps everything) | destroy (takes it away)")

    def status(self, *, as_json: bool) -> None:
        """Print address, users, hosts and health."""
        status = self.cluster.status()
        if as_json:
            print(json.dumps(status, indent=2))
            return
        if not status["hosts"]:
            print("There is no cluster. scripts/demo builds it.")
            return
        version = hub_version(self.cluster.port() or DEFAULT_PORT)
        print(status["url"], f"JupyterHub {version} answers" if version else "no answer", sep="  ")
        for user in status["users"]:
            note = "" if user["access"] else "(no access to the hub)"
            print(f"  {user['name']:<10} {user['password']}   {note}")
        for name, host in status["hosts"].items():
            print(f"  {name:<10} {host['address']:<14} {host['health']}   ({host['container']})")

    def stop(self) -> None:
        """Stop the hosts; homes, accounts and environments stay."""
        running = [host.container for host in self.cluster.hosts().values() if host.running]
        if running:
            output([DOCKER, "stop", "--time", "20", *running], timeout=120)
        print("Stopped. scripts/demo starts it again.")

    def destroy(self) -> None:
        """Take the cluster away, with homes and passwords."""
        if not environment.is_ready("control"):
            environment.install("control")
        self._playbook("destroy", f"{PLAYBOOKS}/destroy.yml")
        print(f"Gone. The image and {cache()} stay for the next time.")

    def logs(self, host: str) -> None:
        """Show the journal of a host."""
        self._on(host, "journalctl", "--no-pager", "--lines=300")

    def shell(self, host: str) -> None:
        """Open a shell of root on a host."""
        self._on(host, "bash", "--login")

    def _on(self, host: str, *command: str) -> None:
        flags = ["--interactive", "--tty"] if sys.stdin.isatty() else ["--interactive"]
        container = self.cluster.host(host).container
        subprocess.run([DOCKER, "exec", *flags, container, *command], check=False)


def port_number(word: str) -> int:
    """A TCP port that an ordinary program may listen on."""
    if word.isdecimal() and 1 <= int(word) <= 65535:  # noqa: PLR2004 - the range of ports
        return int(word)
    raise argparse.ArgumentTypeError(f"{word!r} is not a port: write a number from 1 to 65535")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description="Ganymede in containers on this machine."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    up = verbs.add_parser("up", help="build and start the cluster (the default)")
    up.add_argument(
        "--port",
        type=port_number,
        default=os.environ.get("GANYMEDE_PORT"),
        help=f"port on 127.0.0.1 (default: GANYMEDE_PORT, the last one, or {DEFAULT_PORT})",
    )
    status = verbs.add_parser("status", help="address, users, hosts, health")
    status.add_argument("--json", action="store_true", help="for programs")
    verbs.add_parser("stop", help="stop the hosts and keep everything")
    verbs.add_parser("destroy", help="take the cluster away, with homes and passwords")
    for verb, text in (("logs", "the journal of a host"), ("shell", "a root shell on a host")):
        verbs.add_parser(verb, help=text).add_argument("host", metavar="HOST")
    words = sys.argv[1:]
    if not words or words[0].startswith("--port"):
        words = ["up", *words]
    return parser.parse_args(words)


def main() -> int:
    """Do what the command line asks; the exit status."""
    asked = arguments()
    demo = Demo()
    interrupt_on_termination()
    try:
        match asked.verb:
            case "up":
                with only_one("demo"):
                    demo.up(asked.port)
            case "status":
                demo.status(as_json=asked.json)
            case "stop":
                with only_one("demo"):
                    demo.stop()
            case "destroy":
                with only_one("demo"):
                    demo.destroy()
            case "logs":
                demo.logs(asked.host)
            case "shell":
                demo.shell(asked.host)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has enough, as in `status | head`. Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except PlainError as problem:
        say("")
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("")
        print("Interrupted: scripts/demo goes on from here when called again.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
