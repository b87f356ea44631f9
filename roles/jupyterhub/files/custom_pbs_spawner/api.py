# SPDX-License-Identifier: BSD-3-Clause
"""`POST /hub/api/batchspawner`: a job tells the hub on which port its server listens.

Replaces batchspawner's handler. One integer is taken, from the server it belongs to, once,
while that server starts; whatever else arrives changes nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import batchspawner.api
from jupyterhub.apihandlers import APIHandler, default_handlers
from tornado import web

from custom_pbs_spawner.record import MAX_PORT, MIN_PORT

if TYPE_CHECKING:
    from custom_pbs_spawner.spawner import CustomPBSSpawner

PATH = r"/api/batchspawner"
MAX_BODY = 256


class PortHandler(APIHandler):
    """Answers 201, or 4xx with nothing changed and one line in the log."""

    @web.authenticated
    def post(self) -> None:
        token = self.get_auth_token()
        spawner = self._starting_server(token) if token else None
        if spawner is None:
            self._refuse(403, "not the token of a server of this user")
        port = self._port()
        if not spawner.report_port(port):
            self._refuse(409, "the server is not starting, or has reported its port already")
        self.set_status(201)
        self.finish(json.dumps({"message": "BatchSpawner data configured"}))

    def _starting_server(self, token: str) -> CustomPBSSpawner | None:
        """The server of the current user that was given this token. Services have none."""
        wrappers = dict(getattr(self.current_user, "spawners", {})).values()
        for wrapper in wrappers:
            spawner = getattr(wrapper, "child_spawner", None) or wrapper
            if hasattr(spawner, "report_port") and spawner.owns_token(token):
                found: CustomPBSSpawner = spawner
                return found
        return None

    def _port(self) -> int:
        """The port of a body `{"port": N}` that has nothing else in it."""
        body: Any = None
        if len(self.request.body) <= MAX_BODY:
            try:
                body = json.loads(self.request.body)
            except ValueError:
                self._refuse(400, "the body is not JSON")
        if not isinstance(body, dict) or set(body) != {"port"}:
            self._refuse(400, 'the body is not {"port": N}')
        port = body["port"]
        # bool is a kind of int in Python.
        if type(port) is not int or not MIN_PORT <= port <= MAX_PORT:
            self._refuse(400, f"the port is not a whole number from {MIN_PORT} to {MAX_PORT}")
        return port

    def _refuse(self, status: int, why: str) -> NoReturn:
        raise web.HTTPError(status, f"Port report refused: {why}")


def install() -> None:
    """Put this handler in the place of batchspawner's, before the hub builds its routes."""
    stock = (PATH, batchspawner.api.BatchSpawnerAPIHandler)
    ours = (PATH, PortHandler)
    default_handlers[:] = [entry for entry in default_handlers if entry not in (stock, ours)]
    default_handlers.append(ours)
