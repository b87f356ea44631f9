# SPDX-License-Identifier: BSD-3-Clause
"""The faults: what each does to the cluster, for how long, and how it heals.

A fault `holds` things that only one fault may touch at a time, and `breaks` components while it
lasts and until these serve again. All chance is drawn when a fault is made, so that a seed gives
the same faults whatever the cluster does meanwhile.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.timeline import Ledger, Scene
from tests.chaos.world import HUB, NODES, QUEUE, Job, OutOfReachError, World

RECOVERY = 150.0
"""Seconds in which a component must serve again once its fault has ended. A node that was frozen is
counted as down until it reports, 45 s at most."""

AT_ONCE = 4
"""Faults that last at the same time."""

PLACES = (".ganymede", ".local/share/jupyter")
"""Below the home: the job's log, the notebook server's own files."""


@dataclass
class Fault:
    """One fault; `begin` and `end` raise OutOfReachError when a host does not obey."""

    kind: str
    seconds: float
    breaks: tuple[str, ...]
    holds: frozenset[str]
    begin: Callable[[], str]
    """Returns what exactly was done; an empty text when there was nothing to do it to."""
    end: Callable[[], object] = field(default=lambda: None)


class Bench:
    """Makes faults by lot. `dice` decides kind, aim and length."""

    def __init__(self, world: World, ledger: Ledger, dice: random.Random) -> None:
        self.world = world
        self.ledger = ledger
        self.dice = dice
        self._makers: dict[Callable[[], Fault], int] = {
            self.command_fails: 16,
            self.command_is_slow: 8,
            self.command_hangs: 5,
            self.answer_is_nonsense: 10,
            self.submission_is_lost: 8,
            self.jobs_wait: 3,
            self.server_hangs: 4,
            self.server_is_killed: 3,
            self.server_is_down: 2,
            self.server_is_frozen: 2,
            self.trqauthd_is_killed: 2,
            self.mom_is_killed: 4,
            self.mom_is_killed_with_jobs: 2,
            self.mom_is_down: 3,
            self.node_is_frozen: 4,
            self.job_is_killed: 7,
            self.job_is_deleted: 7,
            self.hub_is_killed: 3,
            self.hub_is_killed_in_qsub: 2,
            self.hub_is_restarted: 1,
            self.hub_is_frozen: 3,
            self.proxy_is_killed: 3,
            self.proxy_is_frozen: 1,
            self.disk_is_full: 3,
        }

    def draw(self) -> Fault:
        """The next fault."""
        (maker,) = self.dice.choices(list(self._makers), list(self._makers.values()))
        return maker()

    def _seconds(self) -> float:
        """Mostly short, now and then longer than any timeout of the hub."""
        if self.dice.random() < 0.12:
            return self.dice.uniform(10, 40)
        return self.dice.uniform(1, 6)

    # --- the queue's commands ------------------------------------------------------------

    def _knob(self, kind: str, name: str, value: str, *more: str) -> Fault:
        def begin() -> str:
            self.world.knob(*more, name, value)
            return f"{name} {value!r} {' '.join(more)}".strip()

        return Fault(
            kind,
            self._seconds(),
            ("queue",),
            # The file of the knobs is read, changed and written: one at a time is not enough to
            # ask for, but two of a name never are.
            frozenset({name}),
            begin,
            lambda: self.world.knob(name),
        )

    def command_fails(self) -> Fault:
        """A command says no. None of these means that a job does not exist."""
        answers = {
            "qstat": ["111 qstat: cannot connect to server encina (errno=111) Connection refused",
                      "1 qstat: Bad UID", "214 qstat: Server shutting down", "255 ",
                      "162 qstat: Unknown host"],
            "qsub": ["111 qsub: cannot connect to server encina (errno=111) Connection refused",
                     "190 qsub: Job exceeds queue resource limits MSG=...", "255 ",
                     "175 qsub: Queue is not enabled MSG=queue is disabled"],
            "qdel": ["111 qdel: cannot connect to server encina (errno=111) Connection refused",
                     "224 qdel: Server could not connect to MOM", "255 ", "1 qdel: Bad UID"],
        }  # fmt: skip
        command = self.dice.choices(["qstat", "qsub", "qdel"], [3, 1, 2])[0]
        return self._knob(f"{command} fails", f"fail.{command}", self.dice.choice(answers[command]))

    def command_is_slow(self) -> Fault:
        """A command takes some seconds longer."""
        command = self.dice.choice(["qstat", "qsub", "qdel"])
        return self._knob(
            f"{command} is slow", f"slow.{command}", f"{self.dice.uniform(1, 12):.1f}"
        )

    def command_hangs(self) -> Fault:
        """A command takes longer than the hub waits."""
        command = self.dice.choice(["qstat", "qsub", "qdel"])
        return self._knob(f"{command} hangs", f"slow.{command}", "45")

    def answer_is_nonsense(self) -> Fault:
        """`qstat` ends with success and prints what nobody can use, or an empty table."""
        head = '<?xml version="1.0"?>\n<Data>'
        answers = ["", "nonsense", "<html><body>502 Bad Gateway</body></html>", "\x07\x1b[2J",
                   f"{head}</Data>", f"{head}<Job><Job_Id>12",
                   f"{head}<Job><Job_Id>1.encina</Job_Id><job_st"]  # fmt: skip
        return self._knob("qstat prints nonsense", "output.qstat", self.dice.choice(answers))

    def submission_is_lost(self) -> Fault:
        """`qsub` makes a job whose id never arrives, once."""
        answer = self.dice.choice(["", "nonsense", "12"])
        return self._knob("qsub's answer is lost", "output.qsub", answer, "--times", "1")

    def jobs_wait(self) -> Fault:
        """Nothing starts for a while."""
        return self._knob("jobs wait", "schedule_delay", f"{self.dice.uniform(5, 25):.1f}")

    # --- the queue's daemons -------------------------------------------------------------

    def server_hangs(self) -> Fault:
        """The queue server accepts connections and answers nobody."""
        fault = self._knob("pbs_server hangs", "hang", "on")
        fault.seconds = max(fault.seconds, 3.0)
        return fault

    def server_is_killed(self) -> Fault:
        """kill -9 of the queue server; systemd starts it again after 2 s."""
        return self._killed("pbs_server is killed", QUEUE, "pbs_server", "queue")

    def server_is_down(self) -> Fault:
        """The queue server is stopped for a while."""
        return self._down("pbs_server is down", QUEUE, "pbs_server", "queue")

    def server_is_frozen(self) -> Fault:
        """The queue server does nothing for a while."""
        return self._frozen("pbs_server is frozen", QUEUE, "pbs_server", "queue")

    def trqauthd_is_killed(self) -> Fault:
        """kill -9 of the daemon that qsub, qstat and qdel talk to on the hub's host."""
        return self._killed("trqauthd is killed", HUB, "trqauthd", "queue")

    # --- the nodes -----------------------------------------------------------------------

    def mom_is_killed(self) -> Fault:
        """kill -9 of a node's daemon alone: its jobs go on."""
        node = self.dice.choice(NODES)
        return self._killed("pbs_mom is killed", node, "pbs_mom", node)

    def mom_is_killed_with_jobs(self) -> Fault:
        """kill -9 of a node's daemon and of all that it started."""
        node = self.dice.choice(NODES)
        fault = self._killed("pbs_mom is killed with its jobs", node, "pbs_mom", node, whom="all")
        kill = fault.begin

        def excuse() -> None:
            for job in self.world.jobs().values():
                if job.live and job.node == node:
                    self.ledger.excuse(job.id, f"{node} was killed")

        def begin() -> str:
            excuse()
            done = kill()
            excuse()  # those that were just starting
            return f"{done} with its jobs"

        fault.begin = begin
        return fault

    def mom_is_down(self) -> Fault:
        """A node's daemon is stopped for a while: its jobs go on, the queue cannot reach them."""
        node = self.dice.choice(NODES)
        return self._down("pbs_mom is down", node, "pbs_mom", node)

    def node_is_frozen(self) -> Fault:
        """Everything on a node stands still."""
        node = self.dice.choice(NODES)

        def begin() -> str:
            self.world.freeze(node)
            return f"SIGSTOP to everything on {node}"

        return Fault(
            "node is frozen",
            self._seconds() + 2,
            (node,),
            frozenset({node}),
            begin,
            lambda: self.world.thaw(node),
        )

    # --- jobs ----------------------------------------------------------------------------

    def _one_job(self, kind: str, command: list[str], states: str) -> Fault:
        lot = self.dice.random()

        def begin() -> str:
            users = {account.name for account in self.world.accounts}
            live = sorted(
                (job for job in self.world.jobs().values() if self._is_fair_game(job, users)),
                key=lambda job: job.submitted,
            )
            live = [job for job in live if job.state in states]
            if not live:
                return ""
            job = live[int(lot * len(live))]
            self.ledger.excuse(job.id, kind)
            self.world.torque(*command, job.id, timeout=30)
            return f"{' '.join(command)} {job.id} of {job.owner}"

        return Fault(kind, 0.0, (), frozenset({"jobs"}), begin)

    @staticmethod
    def _is_fair_game(job: Job, users: set[str]) -> bool:
        # What a researcher has of her own is held, and must not be touched by anybody.
        return job.live and job.owner in users and job.state != "H"

    def job_is_killed(self) -> Fault:
        """A running job gets SIGKILL."""
        return self._one_job("job is killed", ["qsig", "-s", "KILL"], "R")

    def job_is_deleted(self) -> Fault:
        """The administrator of the queue deletes a job, running or not."""
        return self._one_job("job is deleted by root", ["qdel"], "QR")

    # --- hub and proxy -------------------------------------------------------------------

    def hub_is_killed(self) -> Fault:
        """kill -9 of the hub; systemd starts it again after 5 s."""
        return self._killed("hub is killed", HUB, "jupyterhub-hub", "hub")

    def hub_is_killed_in_qsub(self) -> Fault:
        """kill -9 of the hub while a submission is under way."""
        fault = self._killed("hub is killed in qsub", HUB, "jupyterhub-hub", "hub")
        fault.holds |= {"slow.qsub"}
        fault.breaks = ("hub", "queue")
        fault.seconds = 4.0
        kill = fault.begin

        def begin() -> str:
            self.world.knob("slow.qsub", "3")
            time.sleep(4)
            return f"slow.qsub 3, {kill()}"

        fault.begin = begin
        fault.end = lambda: self.world.knob("slow.qsub")
        return fault

    def hub_is_restarted(self) -> Fault:
        """What an administrator does after a change."""

        def begin() -> str:
            self.world.run(HUB, "systemctl", "restart", "jupyterhub-hub", timeout=120)
            return "systemctl restart jupyterhub-hub"

        return Fault("hub is restarted", 0.0, ("hub",), frozenset({"jupyterhub-hub"}), begin)

    def hub_is_frozen(self) -> Fault:
        """SIGSTOP of the hub: its clock jumps, its polls and timeouts come late."""
        return self._frozen("hub is frozen", HUB, "jupyterhub-hub", "hub")

    def proxy_is_killed(self) -> Fault:
        """kill -9 of the proxy; systemd starts it again after 1 s."""
        return self._killed("proxy is killed", HUB, "jupyterhub-proxy", "proxy")

    def proxy_is_frozen(self) -> Fault:
        """SIGSTOP of the proxy."""
        return self._frozen("proxy is frozen", HUB, "jupyterhub-proxy", "proxy")

    def _killed(
        self, kind: str, host: str, unit: str, component: str, *, whom: str = "main"
    ) -> Fault:
        def begin() -> str:
            kill = ["systemctl", "kill", f"--kill-whom={whom}", "--signal=KILL", unit]
            self.world.run(host, *kill)
            # Many kills in a row are not a unit that cannot start.
            self.world.run(host, "systemctl", "reset-failed", unit)
            return f"SIGKILL of {unit} on {host}"

        return Fault(kind, 1.0, (component,), frozenset({unit, host} - {HUB, QUEUE}), begin)

    def _down(self, kind: str, host: str, unit: str, component: str) -> Fault:
        def begin() -> str:
            self.world.run(host, "systemctl", "stop", unit, timeout=60)
            return f"{unit} on {host} is stopped"

        return Fault(
            kind,
            self._seconds(),
            (component,),
            frozenset({unit, host} - {HUB, QUEUE}),
            begin,
            lambda: self.world.run(host, "systemctl", "start", unit, timeout=60),
        )

    def _frozen(self, kind: str, host: str, unit: str, component: str) -> Fault:
        def send(signal: str) -> str:
            kill = ["systemctl", "kill", "--kill-whom=main", f"--signal={signal}", unit]
            self.world.run(host, *kill)
            return f"SIG{signal} to {unit} on {host}"

        return Fault(
            kind,
            self.dice.uniform(2, 14),
            (component,),
            frozenset({unit}),
            lambda: send("STOP"),
            lambda: send("CONT"),
        )

    # --- disks ---------------------------------------------------------------------------

    def disk_is_full(self) -> Fault:
        """A folder of a researcher lies on a file system that is full to the last byte.

        On every node /dev/shm (64 MB, of that node alone) is filled by a file, and the folder is
        a link into it; what was open before stays where it was.
        """
        user = self.dice.choice([account.name for account in self.world.accounts])
        folder = f"{self.world.home(user)}/{self.dice.choice(PLACES)}"
        full = f"/dev/shm/full-{user}"  # noqa: S108 - the point is that it is small

        def begin() -> str:
            script = (
                f"install -d -m 0700 -o {user} -g {user} {full};"
                f" cat /dev/zero > /dev/shm/filler 2>/dev/null; true"
            )
            for node in NODES:
                self.world.run(node, "sh", "-c", script)
            move = (
                f"[ ! -d {folder} ] || mv -T {folder} {folder}.kept;"
                f" mkdir -p $(dirname {folder}) && ln -sT {full} {folder}"
            )
            self.world.run(NODES[0], "runuser", "-u", user, "--", "sh", "-c", move)
            return f"{folder} is full"

        def end() -> None:
            back = (
                f"[ ! -L {folder} ] || rm {folder}; [ ! -d {folder}.kept ]"
                f" || mv -T {folder}.kept {folder}"
            )
            self.world.run(NODES[0], "runuser", "-u", user, "--", "sh", "-c", back)
            for node in NODES:
                self.world.run(node, "rm", "-rf", full, "/dev/shm/filler")  # noqa: S108

        return Fault(
            "disk is full", self._seconds() + 10, ("disk", f"disk of {user}"),
            frozenset({"disk", *NODES}), begin, end,
        )  # fmt: skip


class Injector:
    """Lets faults loose, a few at once, and sees each to its end."""

    def __init__(self, scene: Scene, seed: str, pause: float) -> None:
        self._world = scene.world
        self._ledger = scene.ledger
        self._timeline = scene.timeline
        self._dice = random.Random(f"{seed}/faults")  # noqa: S311 - reproducible is the point
        self._bench = Bench(scene.world, scene.ledger, self._dice)
        self._pause = pause
        self._held: set[str] = set()
        self._changed = threading.Condition()
        self._active = 0
        self._undecided = 0  # begun, and not yet known whether there was anything to act upon
        self.injected = 0
        self.failures: list[str] = []
        """Faults whose components did not serve again in time."""

    def storm(self, faults: int, stop: threading.Event) -> None:
        """Inject so many faults, then wait until all have healed."""
        goal = self.injected + faults
        while not stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._active < AT_ONCE)
                self._changed.wait_for(
                    lambda: self._undecided == 0 or self.injected + self._undecided < goal
                )
                if self.injected >= goal:
                    break
            fault = self._bench.draw()
            stop.wait(self._dice.uniform(0.2, 1.8) * self._pause)
            if self._take(fault):
                threading.Thread(target=self._see_through, args=[fault], daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._active == 0)

    def _take(self, fault: Fault) -> bool:
        """Hold what the fault needs; False when another one has it."""
        with self._changed:
            if self._held & fault.holds:
                return False
            self._held |= fault.holds
            self._active += 1
            self._undecided += 1
            return True

    def _see_through(self, fault: Fault) -> None:
        try:
            with self._ledger.broken(fault.breaks):
                self._inject(fault)
        finally:
            with self._changed:
                self._held -= fault.holds
                self._active -= 1
                self._changed.notify_all()

    def _inject(self, fault: Fault) -> None:
        try:
            done = fault.begin()
        except OutOfReachError as error:
            self._timeline.write("no fault", fault=fault.kind, why=str(error))
            done = ""
        with self._changed:
            self._undecided -= 1
            self.injected += bool(done)
            self._changed.notify_all()
        if done:
            self._timeline.write(
                "fault", fault=fault.kind, seconds=round(fault.seconds, 1), what=done
            )
            self._timeline.count("faults", fault.kind)
            time.sleep(fault.seconds)
        self._heal(fault)
        if done:
            self._timeline.write("healed", fault=fault.kind, what=done)

    def _heal(self, fault: Fault) -> None:
        """End the fault and wait until all that it broke serves again."""
        deadline = time.monotonic() + RECOVERY
        broken = [name for name in fault.breaks if "disk" not in name]
        ended, why = False, ""
        while time.monotonic() < deadline:
            try:
                if not ended:
                    fault.end()
                    ended = True
            except OutOfReachError as error:
                if why != str(error):
                    why = str(error)
                    self._timeline.write("not healed yet", fault=fault.kind, why=why)
            broken = [name for name in broken if not self._world.serves(name)]
            if ended and not broken:
                return
            time.sleep(0.5)
        self._timeline.write("not healed", fault=fault.kind, components=broken)
        self.failures.append(f"{fault.kind}: {', '.join(broken)} did not serve again")
