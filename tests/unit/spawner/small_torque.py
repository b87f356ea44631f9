# SPDX-License-Identifier: BSD-3-Clause
"""A queue in a directory: qsub, qstat, qdel and a sudo that really run jobs as this user.

Jobs start at once on `localhost`. What a test wants to go wrong it writes into a knob.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_MOCK_TORQUE = Path(__file__).parents[3] / "molecule" / "rehearsal" / "torque"

_PROGRAM = """\
#!{python}
import json, os, re, signal, subprocess, sys, time
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, {mock_torque!r})
from mock_torque.variables import expand, split_list

root = Path({root!r})
name = Path(sys.argv[0]).name


def knob(what):
    path = root / f"knob-{{what}}"
    return path.read_text() if path.exists() else ""


def load(number):
    return json.loads((root / f"{{number}}.job").read_text())


def save(number, **changes):
    path = root / f"{{number}}.job"
    job = {{**(json.loads(path.read_text()) if path.exists() else {{}}), **changes}}
    fresh = path.with_suffix(f".{{os.getpid()}}")
    fresh.write_text(json.dumps(job))
    fresh.rename(path)


def record():
    call = {{"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "time": time.time()}}
    with (root / "calls").open("a") as calls:
        calls.write(json.dumps(call) + "\\n")


def fail(status, text):
    print(text, file=sys.stderr)
    sys.exit(status)


def disturb():
    how = knob(name)
    if how == "hang":
        time.sleep(3600)
    if how.startswith("slow"):
        time.sleep(float(how.split()[1]))
        # "slow 3" or "slow-fail 3 190 why"
        how = how.replace(f"slow-fail {{how.split()[1]}}", "fail")
    if how.startswith("fail"):
        fail(int(how.split()[1]), " ".join(how.split()[2:]))
    if how.startswith("print"):
        print(how[6:])
        sys.exit(0)


def sudo():
    if sys.argv[1] not in ("-n", "-E") or sys.argv[2] != "-u":
        fail(1, "sudo: a password is required")
    user = sys.argv[3]
    # As a rule with SETENV has it, -E hands the caller's environment on.
    environment = dict(os.environ) if sys.argv[1] == "-E" else {{}}
    environment |= {{"USER": user, "HOME": f"{{root}}/home/{{user}}", "PATH": "/usr/bin:/bin"}}
    os.execve(sys.argv[4], sys.argv[4:], environment)


def qsub():
    disturb()
    script = sys.stdin.read()
    number = len(list(root.glob("*.script"))) + 1
    while True:
        path = root / f"{{number}}.script"
        try:
            path.touch(0o700, exist_ok=False)
            break
        except FileExistsError:
            number += 1
    path.write_text(script)
    names = re.findall("^#PBS -v (.+)$", script, re.MULTILINE)
    output = re.findall("^#PBS -o (.+)$", script, re.MULTILINE)
    variables = ",".join(expand(names[0], os.environ)) if names else None
    save(
        number,
        owner=os.environ["USER"],
        home=os.environ["HOME"],
        state="Q",
        Variable_List=variables,
        Output_Path=f"ganymede:{{output[0]}}" if output else None,
    )
    if knob("lose"):
        # The job is there and its number is lost.
        begin(number)
        fail(int(knob("lose")), "qsub: End of File")
    if knob("schedule") != "hold":
        begin(number)
    if knob(name).startswith("late"):
        # The job is there before the answer.
        time.sleep(float(knob(name).split()[1]))
    print(f"{{number}}.encina")


def begin(number):
    save(number, state="R")
    subprocess.Popen(
        [sys.executable, str(root / "bin" / "run"), str(number)],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def run():
    number = sys.argv[1]
    job = load(number)
    environment = {{
        "PBS_JOBID": f"{{number}}.encina",
        "HOME": job["home"],
        "USER": job["owner"],
        "PATH": "/usr/bin:/bin",
        **split_list(job["Variable_List"] or ""),
    }}
    with (root / f"{{number}}.output").open("w") as output:
        process = subprocess.Popen(
            [str(root / f"{{number}}.script")],
            cwd=job["home"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        save(number, pid=process.pid)
        status = process.wait()
    save(number, state="C", exit_status=status if status >= 0 else 256 - status)


def qstat():
    disturb()
    wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
    jobs = []
    for path in sorted(root.glob("*.job")):
        number = path.stem
        job = load(number)
        if not (knob("forget") and job["state"] == "C"):
            jobs.append((f"{{number}}.encina", job))
    if wanted:
        jobs = [pair for pair in jobs if pair[0] == wanted[0]]
        if not jobs:
            fail(153, f"qstat: Unknown Job Id Error {{wanted[0]}}")
    parts = []
    hidden = knob("hide")
    if hidden and "USER" not in os.environ:
        if wanted and hidden == "6.1.3":
            fail(159, f"qstat: Unauthorized Request  {{wanted[0]}}")
        jobs = []
    elif hidden:
        jobs = [pair for pair in jobs if pair[1]["owner"] == os.environ["USER"]]
    if hidden == "4.2.10" and not jobs:
        sys.exit(0)
    for job_id, job in jobs:
        fields = {{
            "Job_Id": job_id,
            "Job_Name": "jupyterhub-singleuser",
            "Job_Owner": job["owner"] + "@ganymede",
            "job_state": job["state"],
            "queue": "tintel",
            "comment": job.get("comment"),
            "exit_status": job.get("exit_status"),
            "start_count": job.get("start_count"),
            "Output_Path": job["Output_Path"],
            "exec_host": None if job["state"] == "Q" else job.get("exec_host", "localhost/0"),
            # Torque shows it to a job's owner and to its operators.
            "Variable_List": job["Variable_List"]
            if os.environ.get("USER") in (job["owner"], "operator")
            else None,
        }}
        body = "".join(
            f"<{{key}}>{{escape(str(value))}}</{{key}}>"
            for key, value in fields.items()
            if value is not None
        )
        parts.append(f"<Job>{{body}}</Job>")
    print('<?xml version="1.0"?>')
    print(f"<Data>{{''.join(parts)}}</Data>")


def qdel():
    disturb()
    number = sys.argv[1].split(".")[0]
    if not (root / f"{{number}}.job").exists():
        fail(153, f"qdel: nonexistent job id: {{sys.argv[1]}}")
    job = load(number)
    if job["state"] == "C":
        fail(170, "qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE")
    if job["state"] == "Q":
        save(number, state="C")
    elif "pid" in job:
        os.killpg(job["pid"], signal.SIGTERM)


def pbsnodes():
    disturb()
    state = "down" if knob("node_down") else "free"
    print(f"<Data><Node><name>localhost</name><state>{{state}}</state></Node></Data>")


def read_job_log():
    disturb()
    log = Path(os.environ["HOME"], ".ganymede", "logs", f"{{sys.argv[1]}}.log")
    print(log.read_text()[-8192:])


if name != "run":
    record()
if name == "begin":
    begin(sys.argv[1])
else:
    globals()[name]()
"""


PROGRAMS = ("sudo", "qsub", "qstat", "qdel", "pbsnodes", "read_job_log", "run", "begin")


class SmallTorque:
    """The directory, and what tests ask of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        (root / "home").mkdir()
        text = _PROGRAM.format(python=sys.executable, root=str(root), mock_torque=str(_MOCK_TORQUE))
        for name in PROGRAMS:
            path = self.bin / name
            path.write_text(text)
            path.chmod(0o755)

    def home(self, user: str) -> Path:
        path = self.root / "home" / user
        path.mkdir(exist_ok=True)
        return path

    def knob(self, name: str, value: str = "") -> None:
        """Set a knob; an empty value takes it away."""
        path = self.root / f"knob-{name}"
        if value:
            path.write_text(value)
        else:
            path.unlink(missing_ok=True)

    def reset(self) -> None:
        """Take all knobs away."""
        for path in self.root.glob("knob-*"):
            path.unlink()

    def calls(self, name: str = "") -> list[dict[str, Any]]:
        """The commands that ran, oldest first; of one name only where it is given."""
        path = self.root / "calls"
        if not path.exists():
            return []
        # A line without its end is still being written.
        lines = path.read_text().splitlines(keepends=True)
        calls = [json.loads(line) for line in lines if line.endswith("\n")]
        return [call for call in calls if not name or Path(call["argv"][0]).name == name]

    def job(self, number: int) -> dict[str, Any]:
        """What the queue keeps of a job."""
        job: dict[str, Any] = json.loads((self.root / f"{number}.job").read_text())
        return job

    def numbers(self) -> list[int]:
        """The numbers of all jobs that were ever submitted."""
        return sorted(int(path.stem) for path in self.root.glob("*.job"))

    def jobs(self) -> list[int]:
        """The numbers of the jobs that are not over."""
        return [number for number in self.numbers() if self.job(number)["state"] != "C"]

    def kill(self, number: int) -> None:
        """End a job without asking the queue."""
        os.killpg(self.job(number)["pid"], signal.SIGKILL)

    def change(self, number: int, **fields: Any) -> None:
        """Overwrite fields of a job, for instance its state or the scheduler's comment."""
        (self.root / f"{number}.job").write_text(json.dumps({**self.job(number), **fields}))

    def script(self, number: int) -> str:
        """The script that was submitted."""
        return (self.root / f"{number}.script").read_text()

    def start(self, number: int) -> None:
        """Let a job run that `schedule` held."""
        subprocess.run([str(self.bin / "begin"), str(number)], check=True)

    def end_all(self) -> None:
        """Kill what still runs."""
        for number in self.jobs():
            pid = self.job(number).get("pid")
            if pid:
                os.killpg(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and any("pid" in self.job(n) for n in self.jobs()):
            time.sleep(0.05)
