# SPDX-License-Identifier: BSD-3-Clause
"""The extension of the notebook server that ties in what is beside it."""

from __future__ import annotations

from typing import Any

from ganymede_dask import DaskJobs
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web


class NoClusters(APIHandler):
    """Tells JupyterLab's dask panels that the server runs no cluster: the kernels do.

    In the place of dask-labextension's own handler, which would bring dask into each server.
    """

    @web.authenticated
    async def get(self) -> None:
        """Answer with the list of clusters."""
        self.finish("[]")


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "ganymede_extension"}]


def _load_jupyter_server_extension(app: Any) -> None:
    DaskJobs(parent=app).prepare()
    address = url_path_join(app.web_app.settings["base_url"], "dask/clusters/?")
    app.web_app.add_handlers(".*$", [(address, NoClusters)])
