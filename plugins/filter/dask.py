# SPDX-License-Identifier: BSD-3-Clause
"""From the profile table to the settings of dask: workers as jobs of the researcher's own."""

from __future__ import annotations

import copy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "roles/jupyterhub/files"))

from custom_pbs_spawner.profiles import Profile  # noqa: E402 - the line above

FOLDER = "$HOME/.ganymede/dask"
"""Below the home, which hub and nodes share: certificate and logs of the workers."""
KEPT_LOGS = 20
ACTIVATED = ("GANYMEDE_ENVIRONMENT", "GANYMEDE_MODULES")
"""Variables of a kernel: what start-kernel activated for it."""

# What dask_jobqueue asks for in each section, https://jobqueue.dask.org/en/latest/configuration.html
COMMON: dict[str, Any] = {
    "name": "dask-worker",
    "processes": 1,
    "python": None,
    "interface": None,
    # Seconds after which a worker that finds no scheduler ends, and its job with it.
    "death-timeout": 60,
    "local-directory": None,
    "shared-temp-directory": None,
    "extra": None,
    "worker-command": "distributed.cli.dask_worker",
    # A worker's dashboard has no login, and shows what it computes: without this, on all addresses.
    "worker-extra-args": ["--dashboard-address", "localhost:0"],
    "shebang": "#!/bin/bash",
    "account": None,
    "env-extra": None,
    "job-extra": None,
    # Torque's own files would come back into the folder of the notebook; the log is the prologue's.
    "job-extra-directives": ["-r n", "-j oe", "-o /dev/null", f"-v {','.join(ACTIVATED)}"],
    "job-directives-skip": [],
    "log-directory": None,
    # Without TLS whoever reaches the scheduler's port has the researcher's account. The dashboard
    # is for the notebook server beside it, which asks for a login.
    "scheduler-options": {"protocol": "tls://", "dashboard_address": "localhost:0"},
}

OLD_NAMES = {
    "job-extra": "job-extra-directives",
    "env-extra": "job-script-prologue",
    "extra": "worker-extra-args",
    "header-skip": "job-directives-skip",
    "project": "account",
}
"""Names before dask_jobqueue 0.8. Later releases warn of each old one that they find."""
NEW_ONLY = {*OLD_NAMES.values(), "python", "worker-command"}


def dask_settings(
    profiles: list[dict[str, Any]], tls: dict[str, str], wrapper: str
) -> dict[str, Any]:
    """Settings of dask: `PBSCluster()` has the first profile, `config_name=<key>` each of them.

    `tls` has environment variables for the workers; `$HOME` in them is the researcher's.
    `wrapper` is start-kernel, which activates the workers as it did their notebook's kernel.
    """
    rows = map(Profile.model_validate, profiles)
    sections = {row.key: _section(row, tls, wrapper) for row in rows}
    # A copy, or YAML would write references.
    first = copy.deepcopy(next(iter(sections.values()), {}))
    return {
        "distributed": {
            "dashboard": {"link": "{JUPYTERHUB_SERVICE_PREFIX}proxy/{port}/status"},
        },
        "jobqueue": {"pbs": first, **sections},
    }


def old_dask_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings (`dask_settings`) for dask_jobqueue before 0.8, as 0.7.4 reads them."""
    sections = {
        name: {key: value for key, value in section.items() if key not in NEW_ONLY}
        | {old: section[new] for old, new in OLD_NAMES.items()}
        for name, section in settings.get("jobqueue", {}).items()
    }
    return {**settings, "jobqueue": sections} if settings else {}


def _section(profile: Profile, tls: dict[str, str], wrapper: str) -> dict[str, Any]:
    resources = f"nodes=1:ppn={profile.cores},mem={profile.memory_text}"
    return {
        **copy.deepcopy(COMMON),
        "queue": profile.queue,
        "cores": profile.cores,
        "memory": f"{profile.memory} B",
        "resource-spec": resources,
        "walltime": profile.walltime_text,
        "job-script-prologue": [*_prologue(profile.cores, tls), *_activation(wrapper)],
    }


def _prologue(cores: int, tls: dict[str, str]) -> list[str]:
    """Lines of the worker's job before the worker: its log, the threads of numpy, TLS."""
    threads = [f"{name}_NUM_THREADS={cores}" for name in ("OMP", "OPENBLAS", "MKL")]
    return [
        f'logs="{FOLDER}"; mkdir -p "$logs"',
        'exec >> "$logs/worker.$PBS_JOBID.log" 2>&1 < /dev/null',
        f'ls -1t "$logs"/worker.*.log | tail -n +{KEPT_LOGS + 1} | '
        'while IFS= read -r old; do rm -f "$old"; done',
        f"export {' '.join(threads)}",
        *(f'export {name}="{value}"' for name, value in tls.items()),
    ]


def _activation(wrapper: str) -> list[str]:
    """Lines that give the worker what its notebook's kernel was activated with, or end its job.

    All variables anew, for activation also takes some away; by a file, for what activation leaves
    running would hold a pipe open.
    """
    environment, modules = ACTIVATED
    options = f'${{{environment}:+--environment "${environment}"}} '
    options += f'${{{modules}:+--module "${modules}"}}'
    exports = f'{shlex.quote(wrapper)} {options} -- /bin/bash -c \'export -p > "$0"\' "$exports"'
    return [
        f'if [ -n "${{{environment}:-}}${{{modules}:-}}" ]; then',
        "  exports=$(mktemp) || exit 1",
        f'  {exports} || {{ rm -f "$exports"; exit 1; }}',
        '  unset $(compgen -e); . "$exports"; rm -f "$exports"',
        "fi",
    ]


class FilterModule:
    """The filters of the playbooks."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names of the filters."""
        return {"dask_settings": dask_settings, "old_dask_settings": old_dask_settings}
