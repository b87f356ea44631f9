# SPDX-License-Identifier: BSD-3-Clause
"""What Torque says of its nodes and its server, for the check of the tables before a deployment.

Also imported on the control node: standard library only. Checked against 6.1.3.
"""

from __future__ import annotations

import re

_CORES = re.compile(r"<np>([0-9]{1,6})</np>", re.ASCII)
_SETTING = re.compile(r"^set server (\w+) \+?= (.*)$", re.MULTILINE)


def most_cores(text: str) -> int | None:
    """The cores of the largest node in the output of `pbsnodes -x`; None where no node is."""
    return max((int(cores) for cores in _CORES.findall(text)), default=None)


def shows_all_jobs(text: str, user: str) -> bool:
    """Whether an account sees other people's jobs, from `qmgr -c 'print server'`.

    It does where `query_other_jobs` is true (as it comes, it is not), and as a manager or an
    operator, who are written `user@host`.
    """
    settings = _SETTING.findall(text)
    if ("query_other_jobs", "True") in settings:
        return True
    privileged = ",".join(value for name, value in settings if name in ("managers", "operators"))
    return user in {entry.strip().partition("@")[0] for entry in privileged.split(",")}
