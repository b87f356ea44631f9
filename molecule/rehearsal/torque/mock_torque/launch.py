# SPDX-License-Identifier: BSD-3-Clause
"""Becomes the login shell of a job. The mom starts it with the owner's uid in a new session.

Its argument is JSON: shell, folder, limits [[RLIMIT number, bytes], ...] and kept, the files
that -k puts into the home ({"o": path, "e": path}), and names, the variables of the job (Python
adds one of its own in the C locale).
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

EXEC_FAILED = 254


def open_kept(kept: dict[str, str]) -> None:
    """Standard output and error into files of the home; joined ones are one file."""
    descriptors = {
        path: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        for path in set(kept.values())
    }
    for number, letter in ((1, "o"), (2, "e")):
        if letter in kept:
            os.dup2(descriptors[kept[letter]], number)
    for descriptor in descriptors.values():
        os.close(descriptor)


def main(task: str) -> None:
    """Never returns."""
    plan = json.loads(task)
    shell = plan["shell"]
    try:
        os.chdir(plan["folder"])
        open_kept(plan["kept"])
        for number, size in plan["limits"]:
            resource.setrlimit(number, (size, size))
        environment = {name: os.environ[name] for name in plan["names"]}
        os.execve(shell, [f"-{Path(shell).name}"], environment)  # noqa: S606 - it is a shell
    except OSError as error:
        what = f"exec of shell '{shell}' failed"
        if error.filename == plan["folder"]:
            what = f"chdir to '{plan['folder']}' failed: {error.strerror}"
        os.write(2, f"PBS: {what}\n".encode())
        sys.exit(EXEC_FAILED)


if __name__ == "__main__":
    main(sys.argv[1])
