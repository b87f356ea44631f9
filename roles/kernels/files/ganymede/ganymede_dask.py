# SPDX-License-Identifier: BSD-3-Clause
"""Lets the notebooks of a server start dask workers as jobs: commands, settings, a certificate.

Runs in the notebook server's own Python; the kernels inherit what it sets.
"""

from __future__ import annotations

import os
import ssl
import time
from pathlib import Path
from threading import Thread

from traitlets import Dict, Unicode
from traitlets.config import LoggingConfigurable

RENEWED_BEFORE = 30 * 24 * 3600
"""Seconds before its end at which a certificate is replaced."""
ACTIVATED = ("GANYMEDE_ENVIRONMENT", "GANYMEDE_MODULES")
"""Variables of a kernel that tell its workers what to activate; start-kernel fills them."""


class DaskJobs(LoggingConfigurable):
    """What a notebook needs for `dask_jobqueue.PBSCluster`."""

    torque_bin = Unicode(help="Directory of qsub and qdel on the nodes.").tag(config=True)
    settings_directory = Unicode(help="Where dask's settings for everybody are.").tag(config=True)
    certificate = Unicode(help="The researcher's certificate and key; may contain $HOME.").tag(
        config=True
    )
    environment = Dict(
        key_trait=Unicode(), value_trait=Unicode(), help="Variables of the kernels, with $HOME."
    ).tag(config=True)

    def prepare(self) -> None:
        """Set the environment of the kernels; see to the certificate meanwhile."""
        os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{self.torque_bin}"
        os.environ["DASK_ROOT_CONFIG"] = self.settings_directory
        for name in ACTIVATED:
            # Set in any case: Torque spoils a list of names for -v in which one is not.
            os.environ[name] = ""
        for name, value in self.environment.items():
            os.environ[name] = os.path.expandvars(value)
        Thread(target=self._certify, daemon=True).start()

    def _certify(self) -> None:
        path = Path(os.path.expandvars(self.certificate))
        try:
            if not is_valid(path):
                # Only the first server of a researcher needs it, and it takes long to import.
                from ganymede_certificate import write_certificate  # noqa: PLC0415

                write_certificate(path)
        except OSError as error:
            self.log.warning("Dask workers cannot be started from here: %s", error)


def is_valid(path: Path) -> bool:
    """Whether there is a certificate that stays valid for a while."""
    try:
        certificates = ssl.create_default_context(cafile=path).get_ca_certs()
    except (FileNotFoundError, ssl.SSLError):
        return False
    ends = [ssl.cert_time_to_seconds(str(item["notAfter"])) for item in certificates]
    return bool(ends) and min(ends) > time.time() + RENEWED_BEFORE
