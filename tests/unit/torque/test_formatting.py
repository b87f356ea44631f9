# SPDX-License-Identifier: BSD-3-Clause
"""Line folding of ``qstat -f``, verbatim from 6.1.3."""

from __future__ import annotations

import pytest
from mock_torque.formatting import full

PATH = "/usr/local/bin:/usr/local/sbin:/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
FOLDED = [
    ("Variable_List",
     f"PBS_O_QUEUE=tintel,PBS_O_HOME=/home/velezj,PBS_O_LOGNAME=velezj,PBS_O_PATH={PATH},"
     "PBS_O_MAIL=/var/mail/velezj,PBS_O_SHELL=/bin/bash,JUPYTERHUB_API_TOKEN=s3cr3t,"
     "PBS_O_WORKDIR=/home/velezj,PBS_O_HOST=encina,PBS_O_SERVER=encina",
     "    Variable_List = PBS_O_QUEUE=tintel,PBS_O_HOME=/home/velezj,\n"
     "\tPBS_O_LOGNAME=velezj,\n"
     "\tPBS_O_PATH=/usr/local/bin:/usr/local/sbin:/usr/local/bin:/usr/bin:/bi\n"
     "\tn:/usr/local/games:/usr/games,PBS_O_MAIL=/var/mail/velezj,\n"
     "\tPBS_O_SHELL=/bin/bash,JUPYTERHUB_API_TOKEN=s3cr3t,\n"
     "\tPBS_O_WORKDIR=/home/velezj,PBS_O_HOST=encina,PBS_O_SERVER=encina\n"),
    ("submit_args",
     "-q tintel -l walltime=1:00:00,nodes=1:ppn=1,mem=100mb -N jupyterhub-singleuser "
     "-v JUPYTERHUB_API_TOKEN",
     "    submit_args = -q tintel -l walltime=1:00:00,nodes=1:ppn=1,\n"
     "\tmem=100mb -N jupyterhub-singleuser -v JUPYTERHUB_API_TOKEN\n"),
    ("comment", "Not Running: Not enough of the right type of nodes are available",
     "    comment = Not Running: Not enough of the right type of nodes are available\n"),
    ("state_count",
     "Transit:0 Queued:0 Held:0 Waiting:0 Running:1 Exiting:0 Complete:4 ",
     "    state_count = Transit:0 Queued:0 Held:0 Waiting:0 Running:1 Exiting:0 Comp\n"
     "\tlete:4 \n"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), FOLDED, ids=lambda item: item[:12])
def test_folding(name: str, value: str, expected: str) -> None:
    assert full("Job Id: 1.encina", [(name, None, value)]) == f"Job Id: 1.encina\n{expected}\n"
