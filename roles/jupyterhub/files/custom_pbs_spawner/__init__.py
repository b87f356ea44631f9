# SPDX-License-Identifier: BSD-3-Clause
"""Notebooks as jobs of the researcher who logged in: JupyterHub spawners for a Torque queue.

The control node imports the table and queue modules of this package to check what an
administrator wrote, without JupyterHub being installed; the spawners are therefore loaded
only when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from custom_pbs_spawner.login import SystemAuthenticator
    from custom_pbs_spawner.menu import ProfileMenuSpawner
    from custom_pbs_spawner.spawner import CustomPBSSpawner

__all__ = ["CustomPBSSpawner", "ProfileMenuSpawner", "SystemAuthenticator"]

_HOME = {
    "CustomPBSSpawner": "custom_pbs_spawner.spawner",
    "ProfileMenuSpawner": "custom_pbs_spawner.menu",
    "SystemAuthenticator": "custom_pbs_spawner.login",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
