# SPDX-License-Identifier: BSD-3-Clause
"""The job script: its directives, and the copy that qsub makes of it."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

COPY_FOLDER = "/tmp"  # noqa: S108 - where qsub puts it; mkstemp makes the file 0600


def directives(script: bytes, prefix: str) -> list[str]:
    """Words of all directive lines before the first executable line."""
    words: list[str] = []
    for raw in script.decode("utf-8", "surrogateescape").splitlines():
        line = raw.strip()
        if line.startswith(prefix) and not line[len(prefix) :][:1].isalnum():
            words += _split(line.removeprefix(prefix))
        elif line and not line.startswith("#"):
            break
    return words


def _split(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that does not end
        words = text.split()
    # "#PBS garbage" is accepted and means nothing.
    return words if words and words[0].startswith("-") else []


def read(path: str | None) -> bytes:
    """The script of a file, or of standard input; raises OSError."""
    content = sys.stdin.buffer.read() if path is None else Path(path).read_bytes()
    return content.replace(b"\r\n", b"\n")


class ScriptCopy:
    """``/tmp/qsub.XXXXXX``: TORQUE leaves it behind when a directive is wrong."""

    def __init__(self, script: bytes) -> None:
        """Raises OSError with the name of the copy when /tmp cannot be written."""
        with tempfile.NamedTemporaryFile(prefix="qsub.", dir=COPY_FOLDER, delete=False) as file:
            file.write(script)
        self.path = Path(file.name)

    def remove(self) -> None:
        """The server has the script, or has refused it."""
        self.path.unlink(missing_ok=True)
