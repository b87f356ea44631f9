# SPDX-License-Identifier: BSD-3-Clause
"""A job as the server knows it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from mock_torque import resources

# Substates that managers see beside the state's letter.
WAITING = 30
HELD = 20
QUEUED = 10
SENDING = 40
RUNNING = 42
EXITING = 50
EXITING_AFTER_RESTART = 52
COMPLETE = 59


@dataclass
class Job:
    """Times are epoch seconds; ``resources`` is the Resource_List in the order shown."""

    sequence: int
    server: str
    name: str
    user: str
    group: str
    owner_host: str
    queue: str
    script: str  # base64
    variables: str  # Variable_List as shown
    resources: dict[str, str]
    ctime: float
    mtime: float
    state: str = "Q"
    substate: int = QUEUED
    etime: float | None = None
    execution_time: int | None = None
    output_path: str = ""
    error_path: str = ""
    join: str = "n"
    keep: str = "n"
    mail_points: str = "a"
    mail_users: str | None = None
    priority: int = 0
    rerunable: bool = True
    account: str | None = None
    shell: str | None = None
    umask: str | None = None
    work_dir: str | None = None
    submit_args: str = ""
    submit_host: str = ""
    init_work_dir: str = ""
    queue_rank: int = 0
    # where it runs: [[node, [slot, ...]], ...]; the script runs on the first node
    allocation: list[tuple[str, list[int]]] = field(default_factory=list)
    session_id: int | None = None
    comment: str | None = None
    start_time: float | None = None
    start_count: int = 0
    used: dict[str, str] = field(default_factory=dict)
    exit_status: int | None = None
    comp_time: float | None = None
    total_runtime: float | None = None
    sched_hint: str | None = None
    finished_at: float | None = None  # also for a job that never ran: keep_completed counts
    delete_requested: bool = False
    kill_delay: int | None = None

    @property
    def id(self) -> str:
        """``N.server``."""
        return f"{self.sequence}.{self.server}"

    @property
    def owner(self) -> str:
        """``user@submit host``."""
        return f"{self.user}@{self.owner_host}"

    @property
    def node(self) -> str | None:
        """The node that runs the script."""
        return self.allocation[0][0] if self.allocation else None

    @property
    def cores(self) -> int:
        """Slots taken."""
        return sum(len(slots) for _, slots in self.allocation)

    @property
    def memory(self) -> int:
        """Bytes asked for by ``-l mem``; 0 when not asked for."""
        return resources.size_bytes(self.resources.get("mem", "0"))

    def set_state(self, state: str, substate: int) -> None:
        """Change the state and note the time."""
        self.state = state
        self.substate = substate
        self.mtime = time.time()

    def to_json(self) -> dict[str, Any]:
        """For the file of the job."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Job:
        """Inverse of to_json."""
        job = cls(**content)
        job.allocation = [(node, slots) for node, slots in job.allocation]
        return job
