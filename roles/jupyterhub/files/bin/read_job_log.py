#!/usr/bin/python3 -I
# SPDX-License-Identifier: BSD-3-Clause
"""Print the end of one job's log, as the researcher whose job it was.

    sudo -n -u RESEARCHER read_job_log.py 17.encina

Prints at most the last 8 KiB of ~/.ganymede/logs/17.encina.log. Takes nothing but a job's id, and
opens nothing but a regular file: whatever else its owner has put there, a link, a pipe or a
device, is not read and cannot make this wait. Exit status: 0 printed, 1 there is no such log or it
cannot be read, 2 wrong use. A file system that hangs ends it by SIGALRM.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import stat
import sys
from pathlib import Path

LOGS = ".ganymede/logs"
MAX_BYTES = 8192
TIMEOUT_S = 5
JOB_ID = re.compile(r"[0-9]{1,12}\.[A-Za-z0-9][A-Za-z0-9.-]{0,250}", re.ASCII)
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def tail(path: Path) -> bytes:
    """The last bytes of a regular file. Raises OSError, also for anything else than that."""
    descriptor = os.open(path, FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        return os.pread(descriptor, MAX_BYTES, max(0, status.st_size - MAX_BYTES))
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not JOB_ID.fullmatch(arguments[0]):
        print("usage: read_job_log.py <number>.<server>", file=sys.stderr)
        return 2
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    try:
        text = tail(home / LOGS / f"{arguments[0]}.log")
    except OSError as error:
        print(f"read_job_log.py: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(text)
    return 0


if __name__ == "__main__":
    # Not a handler in Python, which would have to wait for the call that hangs.
    signal.alarm(TIMEOUT_S)
    sys.exit(main(sys.argv[1:]))
