# SPDX-License-Identifier: BSD-3-Clause
"""The rehearsal's hub with the released spawner classes, as their documentation configures them.

Everything else is the real configuration. For tests that compare; no site is built with this.
"""

import json
from pathlib import Path

import batchspawner  # noqa: F401 - asked for by its documentation: the job's report needs it

RUN = Path("/opt/jupyterhub/run")
TORQUE = "/usr/local/torque/bin"
NOTEBOOK = "/software/jupyterhub/envs/notebook/current/bin"

load_subconfig(str(RUN / "jupyterhub_config.py"))  # type: ignore[name-defined]  # noqa: F821
c = get_config()  # type: ignore[name-defined]  # noqa: F821

# Not the database of the other classes: neither should read the other's state.
c.JupyterHub.db_url = "sqlite:////var/lib/jupyterhub/stock.sqlite"
c.JupyterHub.authenticator_class = "pam"
c.JupyterHub.template_paths = []
c.JupyterHub.last_activity_interval = 300
c.JupyterHub.spawner_class = "wrapspawner.ProfilesSpawner"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 60
c.Spawner.poll_interval = 10
c.Spawner.cmd = [f"{NOTEBOOK}/jupyterhub-singleuser"]
# Where the kernels are.
c.Spawner.environment = {
    "JUPYTER_PATH": "/software/jupyterhub/share/jupyter",
    "JUPYTER_CONFIG_PATH": "/software/jupyterhub/etc/jupyter",
}

c.BatchSpawnerBase.exec_prefix = "/usr/bin/sudo -E -u {username}"
c.BatchSpawnerBase.batchspawner_singleuser_cmd = f"{NOTEBOOK}/python -m batchspawner.singleuser"
c.TorqueSpawner.batch_submit_cmd = f"{TORQUE}/qsub"
c.TorqueSpawner.batch_query_cmd = f"{TORQUE}/qstat -x {{job_id}}"
c.TorqueSpawner.batch_cancel_cmd = f"{TORQUE}/qdel {{job_id}}"
# The released script, with a folder of the job's own: sudo keeps the hub's, which is closed.
c.TorqueSpawner.batch_script = """#!/bin/sh
#PBS -q {queue}
#PBS -l walltime={runtime}
#PBS -l nodes=1:ppn={nprocs}
#PBS -l mem={memory}
#PBS -N jupyterhub-singleuser
#PBS -d {homedir}
#PBS -o {homedir}/
#PBS -e {homedir}/
#PBS -v {keepvars}

set -eu

{prologue}
{cmd}
{epilogue}
"""
c.ProfilesSpawner.profiles = [
    (
        row["display_name"],
        row["key"],
        "batchspawner.TorqueSpawner",
        {
            "req_queue": row["queue"],
            "req_nprocs": str(row["cores"]),
            "req_memory": row["memory"],
            "req_runtime": str(row["walltime"]),
        },
    )
    for row in json.loads((RUN / "profiles.json").read_text())["profiles"]
]
