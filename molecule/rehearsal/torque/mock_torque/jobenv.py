# SPDX-License-Identifier: BSD-3-Clause
"""The environment, limits and files with which a job starts."""

from __future__ import annotations

import resource
import secrets

from mock_torque import resources
from mock_torque.home import Account
from mock_torque.job import Job
from mock_torque.state import VERSION
from mock_torque.variables import split_list

PATH = "/usr/local/bin:/usr/bin:/bin"  # until /etc/profile sets it
MOM_RM_PORT = 15003


def environment(job: Job, account: Account, auxiliary: str) -> dict[str, str]:
    """Variables of the job. ``auxiliary`` is the folder of the node file.

    What the submitter passed by -v comes first, so that he cannot forge what Torque sets.
    """
    (_, slots), *_ = job.allocation
    limit = job.resources.get("walltime")
    variables = {
        "PATH": PATH,
        **split_list(job.variables),
        "ENVIRONMENT": "BATCH",
        "HOME": account.home,
        "LOGNAME": account.name,
        "USER": account.name,
        "SHELL": account.shell,
        "PBS_ENVIRONMENT": "PBS_BATCH",
        "PBS_GPUFILE": f"{auxiliary}//{job.id}gpu",
        "PBS_JOBCOOKIE": secrets.token_hex(16).upper(),
        "PBS_JOBID": job.id,
        "PBS_JOBNAME": job.name,
        "PBS_MICFILE": f"{auxiliary}//{job.id}mic",
        "PBS_MOMPORT": str(MOM_RM_PORT),
        "PBS_NODEFILE": f"{auxiliary}//{job.id}",
        "PBS_NODENUM": "0",
        "PBS_NP": str(job.cores),
        "PBS_NUM_NODES": str(len(job.allocation)),
        "PBS_NUM_PPN": str(len(slots)),
        "PBS_QUEUE": job.queue,
        "PBS_TASKNUM": "1",
        "PBS_VERSION": f"TORQUE-{VERSION}",
        "PBS_VNODENUM": "0",
    }
    if limit is not None:
        variables["PBS_WALLTIME"] = str(resources.seconds(limit))
    return variables


# Which limits of the kernel, per process, each resource sets.
LIMITS = {
    "mem": (resource.RLIMIT_DATA, resource.RLIMIT_RSS),
    "pmem": (resource.RLIMIT_DATA, resource.RLIMIT_RSS),
    "vmem": (resource.RLIMIT_AS,),
    "pvmem": (resource.RLIMIT_AS,),
}


def kernel_limits(job: Job) -> dict[int, int]:
    """RLIMIT number to bytes; the smallest wins."""
    limits: dict[int, int] = {}
    for name, numbers in LIMITS.items():
        if name not in job.resources:
            continue
        size = resources.size_bytes(job.resources[name])
        for number in numbers:
            limits[number] = min(size, limits.get(number, size))
    return limits
