# SPDX-License-Identifier: BSD-3-Clause
"""A researcher at the hub, by HTTP: log in, start a server, compute in its kernel, stop."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import requests
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

TIMEOUT = 10  # seconds for one request
SERVER = "scenario"  # the named server of the tests
KERNEL = "jh-ganymede-pygms-3.11"  # Jupyter lists names in lower case
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """What `look` finds, as soon as it finds something; fails after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


class Researcher:
    """One account at the hub."""

    def __init__(self, url: str, name: str, password: str) -> None:
        self.url = url
        self.name = name
        self.password = password
        self.session = requests.Session()

    def log_in(self) -> requests.Response:
        """Send the login form; the page that answers."""
        self.session.get(f"{self.url}/hub/login", timeout=TIMEOUT)
        return self.session.post(
            f"{self.url}/hub/login",
            data={
                "username": self.name,
                "password": self.password,
                "_xsrf": self.session.cookies.get("_xsrf", path="/ganymede/hub/"),
            },
            timeout=TIMEOUT,
        )

    def use_token(self, seconds: int = 3600) -> None:
        """Draw a token with the login's cookie and use it from now on; it lasts so long."""
        answer = self.session.post(
            f"{self.url}/hub/api/users/{self.name}/tokens",
            json={"note": "test", "expires_in": seconds},
            headers={"X-XSRFToken": self.session.cookies.get("_xsrf", path="/ganymede/hub/") or ""},
            timeout=TIMEOUT,
        )
        answer.raise_for_status()
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"token {answer.json()['token']}"

    def start(self, server: str, options: dict[str, Any]) -> requests.Response:
        """Ask for a named server by REST."""
        address = f"{self.url}/hub/api/users/{self.name}/servers/{server}"
        return self.session.post(address, json=options, timeout=60)

    def stop(self, server: str) -> requests.Response:
        """Ask for the end of a named server."""
        address = f"{self.url}/hub/api/users/{self.name}/servers/{server}"
        return self.session.delete(address, timeout=60)

    def server(self, server: str) -> dict[str, Any] | None:
        """What the hub says of a named server; None when it knows none."""
        answer = self.session.get(f"{self.url}/hub/api/users/{self.name}", timeout=TIMEOUT)
        answer.raise_for_status()
        found: dict[str, Any] | None = answer.json()["servers"].get(server)
        return found

    def wait_ready(self, server: str, seconds: float = 120) -> None:
        """Wait until the hub calls a named server ready."""
        wait_for(f"{server} ready", lambda: (self.server(server) or {}).get("ready"), seconds)

    def address(self, server: str) -> str:
        """Where a server is found behind the proxy; the default one has no name."""
        return f"{self.url}/user/{self.name}/{server}".rstrip("/")

    def get(self, server: str, path: str) -> requests.Response:
        """GET something of a notebook server, through the proxy."""
        return self.session.get(f"{self.address(server)}/{path}", timeout=TIMEOUT)

    def start_kernel(self, server: str, kernel: str) -> str:
        """Start a kernel; its id."""
        address = f"{self.address(server)}/api/kernels"
        answer = self.session.post(address, json={"name": kernel}, timeout=60)
        answer.raise_for_status()
        identity: str = answer.json()["id"]
        return identity

    def kernel_action(self, server: str, kernel: str, action: str) -> None:
        """Ask the notebook server to `interrupt` or `restart` a kernel."""
        address = f"{self.address(server)}/api/kernels/{kernel}/{action}"
        self.session.post(address, timeout=60).raise_for_status()

    def compute(self, server: str, kernel: str, code: str) -> str:
        """What `code` prints in a kernel, over its websocket. Raises AssertionError."""
        printed = ""
        for message in self.run_cell(server, kernel, code):
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
            if message["msg_type"] == "error":
                raise AssertionError("\n".join(message["content"]["traceback"]))
        return printed.strip()

    def run_cell(self, server: str, kernel: str, code: str, **headers: str) -> list[dict[str, Any]]:
        """All that a kernel answers to a cell. Raises AssertionError."""
        return asyncio.run(self._run_cell(server, kernel, code, headers))

    async def _run_cell(
        self, server: str, kernel: str, code: str, headers: dict[str, str]
    ) -> list[dict[str, Any]]:
        address = f"{self.address(server)}/api/kernels/{kernel}/channels"
        request = HTTPRequest(
            address.replace("http", "ws", 1),
            headers=headers | {"Authorization": str(self.session.headers["Authorization"])},
            connect_timeout=30,
        )
        # A picture is larger than what tornado takes by itself.
        socket = await websocket_connect(request, max_message_size=2**26)
        identity = uuid.uuid4().hex
        header = {"msg_id": identity, "msg_type": "execute_request", "version": "5.3"}
        header |= {"username": self.name, "session": uuid.uuid4().hex, "date": ""}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await socket.write_message(json.dumps(message | {"channel": "shell", "buffers": []}))
        answers = []
        try:
            async with asyncio.timeout(60):
                while text := await socket.read_message():
                    answer = json.loads(text)
                    if answer["parent_header"].get("msg_id") != identity:
                        continue
                    answers.append(answer)
                    # The reply itself may overtake what was printed; "idle" comes last.
                    if answer["content"].get("execution_state") == "idle":
                        return answers
        finally:
            socket.close()
        raise AssertionError("the kernel's channel was closed before it answered")
