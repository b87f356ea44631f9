# SPDX-License-Identifier: BSD-3-Clause
"""What the queue server says, read by the hub's own code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "roles/jupyterhub/files"))

from custom_pbs_spawner.scheduler import (  # noqa: E402 - the line above
    JobState,
    UnreadableError,
)
from custom_pbs_spawner.torque import parse_jobs  # noqa: E402
from custom_pbs_spawner.torque_site import shows_all_jobs  # noqa: E402

WAITING = {JobState.QUEUED, JobState.HELD, JobState.COMPLETED}


def running_jobs(text: str) -> list[dict[str, Any]]:
    """The jobs that occupy a node, from `qstat -x`: id, owner, when they began (0: not known).

    A job that cannot be read counts as running.

    Raises:
        AnsibleFilterError: the answer makes no sense.
    """
    try:
        jobs = parse_jobs(text)
    except UnreadableError as error:
        raise AnsibleFilterError(f"It is not known which jobs run: {error}.") from error
    return [
        {"id": job.id, "owner": job.owner, "started": job.started or 0}
        for job in jobs.values()
        if job.state not in WAITING
    ]


class FilterModule:
    """The filters of the playbooks."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names of the filters."""
        return {"running_jobs": running_jobs, "shows_all_jobs": shows_all_jobs}
