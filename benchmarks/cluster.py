# SPDX-License-Identifier: BSD-3-Clause
"""The mock Torque on this machine, with a count of each command that somebody runs.

Only inside a sandbox, whose ports, accounts and host names it uses and with which it ends.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "molecule" / "rehearsal" / "torque"
SERVER, NODE = "encina", "node01"
COMMANDS = ("qsub", "qstat", "qdel", "pbsnodes")
PATIENCE = 30.0  # seconds
# On a cluster queue server, nodes and jobs have processors of their own, and the commands are
# small C programs: here they do not take the hub's processor when it wants it.
# The lowest priority, wherever one begins: a hub's commands inherit the hub's.
ELSEWHERE = ("/usr/bin/nice", "-n", "39")
SETUP = """\
create queue tintel queue_type=Execution
set queue tintel resources_default.walltime = 01:00:00
set queue tintel enabled = True
set queue tintel started = True
set server default_queue = tintel
set server query_other_jobs = True
"""

# Each is one program that writes one line, and then becomes the real one.
COMMAND = """\
#!/bin/sh
echo {name} >> {calls}
export PBS_HOME={spool}
exec {elsewhere} {programs}/bin/{name} "$@"
"""
# In the place of sudo, which many machines with containers lack: changes to the account and
# keeps the environment only when asked to. It is cheaper than sudo, which asks PAM and its rules.
SUDO = """\
#!/bin/sh
echo sudo >> {calls}
environment="/usr/bin/env -i PATH=/usr/bin:/bin LANG=C"
while :; do
  case $1 in
    -E) environment= ;;
    -n) ;;
    -u) user=$2; shift ;;
    *) break ;;
  esac
  shift
done
exec $environment /usr/bin/setpriv --reuid="$user" --regid="$user" --init-groups \\
  --inh-caps=-all --ambient-caps=-all -- "$@"
"""


class Cluster:
    """Queue server, one node and a submit host; `bin` is what a hub calls."""

    def __init__(self, root: Path, slots: int) -> None:
        self.root = root
        root.mkdir()
        root.chmod(0o755)
        self.bin = root / "bin"
        self._calls = root / "calls"
        self._installed = root / "installed"
        self._programs = self._installed / "usr/local/torque"
        self.spool = self._installed / "var/spool/torque"
        self._install(slots)

    def _install(self, slots: int) -> None:
        self._installed.mkdir(mode=0o755)
        subprocess.run([SOURCE / "install", self._installed], check=True)
        (self.spool / "server_name").write_text(SERVER)
        key = self.spool / "auth_key"
        key.touch(mode=0o600)
        key.write_text(secrets.token_hex(16))
        (self.spool / "server_priv/nodes").write_text(f"{NODE} np={slots}\n")
        (self.spool / "server_priv/setup.qmgr").write_text(SETUP)
        self._calls.touch()
        self._calls.chmod(0o666)  # every user's commands write here
        self.bin.mkdir()
        for name in COMMANDS:
            self._script(name, COMMAND)
        self._script("sudo", SUDO)

    def _script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(
            text.format(
                name=name,
                calls=self._calls,
                spool=self.spool,
                programs=self._programs,
                elsewhere=" ".join(ELSEWHERE),
            )
        )
        path.chmod(0o755)

    def start(self) -> None:
        """Start the daemons and wait until jobs can run."""
        self.delay(0.05)
        self._start("pbs_server", "-d", self.spool)
        self._start("pbs_mom", "-d", self.spool, "-H", NODE)
        self._start("trqauthd", "-d", self.spool, "-H", SERVER)
        deadline = time.monotonic() + PATIENCE
        while "state = free" not in self._nodes():
            if time.monotonic() > deadline:
                raise SystemExit(f"The mock Torque does not start; its logs are in {self.root}.")
            time.sleep(0.1)

    def _start(self, program: str, *arguments: object) -> None:
        with (self.root / f"{program}.log").open("ab") as log:
            subprocess.Popen(
                [*ELSEWHERE, self._programs / "sbin" / program, *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def _nodes(self) -> str:
        return subprocess.run(
            [self._programs / "bin/pbsnodes"], env={"PBS_HOME": str(self.spool)},
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        ).stdout  # fmt: skip

    def delay(self, seconds: float) -> None:
        """How long a job has to have waited before it may run."""
        knob = self._programs / "sbin/mock-torque-knob"
        subprocess.run([knob, "-d", self.spool, "schedule_delay", str(seconds)], check=True)

    def calls(self) -> Counter[str]:
        """How often each command was run until now."""
        return Counter(self._calls.read_text().split())
