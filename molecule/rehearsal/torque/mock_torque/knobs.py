# SPDX-License-Identifier: BSD-3-Clause
"""Knobs for tests: server_priv/knobs, written by mock-torque-knob, read at every request."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mock_torque.home import DEFAULT_HOME, Home, read_json, write_json

SCHEDULE_DELAY = 0.5  # seconds

PLAIN = {"schedule_delay", "hang"}
PER_COMMAND = {"fail", "slow", "output"}
COMMANDS = {"qsub", "qstat", "qdel", "pbsnodes", "qmgr", "qsig", "qrls"}
USAGE = """\
schedule_delay SECONDS   a queued job is looked at when it is this old (default 0.5)
hang on                  the server accepts connections and answers nobody
slow.COMMAND SECONDS     COMMAND (qsub, qstat, qdel, pbsnodes, qmgr) takes this much longer
fail.COMMAND 'EXIT TEXT' COMMAND does nothing, writes TEXT to stderr and exits with EXIT
output.COMMAND TEXT      COMMAND does its work, exits 0 and prints TEXT ('' for nothing)
reset                    all knobs back
(no name)                show the knobs
"""


class Knobs:
    """The settings of one server."""

    def __init__(self, home: Home) -> None:
        self.path: Path = home.server_priv / "knobs"

    def all(self) -> dict[str, dict[str, str | int]]:
        """Name to {"value": text, "times": uses left, absent for ever}."""
        return read_json(self.path) if self.path.exists() else {}

    def get(self, name: str) -> str | None:
        """The value of a knob; does not count as a use."""
        setting = self.all().get(name)
        return None if setting is None else str(setting["value"])

    def use(self, name: str) -> str | None:
        """The value of a knob, counted when it was set for a number of times."""
        settings = self.all()
        setting = settings.get(name)
        if setting is None:
            return None
        if "times" in setting:
            left = int(setting["times"]) - 1
            setting["times"] = left
            if left <= 0:
                del settings[name]
            write_json(self.path, settings)
        return str(setting["value"])

    def set(self, name: str, value: str, times: int | None) -> None:
        """Turn one knob."""
        setting: dict[str, str | int] = {"value": value}
        if times is not None:
            setting["times"] = times
        write_json(self.path, {**self.all(), name: setting})

    def unset(self, name: str) -> None:
        """Back to normal."""
        write_json(self.path, {key: item for key, item in self.all().items() if key != name})

    @property
    def schedule_delay(self) -> float:
        """Seconds."""
        return float(self.get("schedule_delay") or SCHEDULE_DELAY)

    @property
    def hangs(self) -> bool:
        """Whether the server plays dead."""
        return self.get("hang") == "on"


def _problem(name: str, value: str) -> str | None:
    kind, dot, command = name.partition(".")
    if (dot and (kind not in PER_COMMAND or command not in COMMANDS)) or (
        not dot and name not in PLAIN
    ):
        return f"unknown knob {name}"
    if name == "hang":
        return None if value in {"on", "off"} else f"hang {value}: write on or off"
    if kind == "fail":
        return None if value.partition(" ")[0].isdigit() else f"{name}: write 'EXIT TEXT'"
    if kind in {"slow", "schedule_delay"}:
        return None if value.replace(".", "", 1).isdigit() else f"{name} {value}: write seconds"
    return None


def main() -> int:
    """Entry point of sbin/mock-torque-knob."""
    parser = argparse.ArgumentParser(
        prog="mock-torque-knob", epilog=USAGE, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-d", dest="home", default=DEFAULT_HOME, help="spool folder")
    parser.add_argument("--times", type=int, help="only for the next TIMES uses")
    parser.add_argument("name", nargs="?")
    parser.add_argument("value", nargs="?", help="leave out to set a knob back")
    options = parser.parse_args()
    knobs = Knobs(Home(options.home))
    if options.name is None:
        for name, setting in knobs.all().items():
            sys.stdout.write(f"{name} {setting['value']}\n")
    elif options.name == "reset":
        knobs.path.unlink(missing_ok=True)
    elif options.value is None:
        knobs.unset(options.name)
    elif problem := _problem(options.name, options.value):
        sys.stderr.write(f"mock-torque-knob: {problem}\n\n{USAGE}")
        return 2
    else:
        knobs.set(options.name, options.value, options.times)
    return 0
