# SPDX-License-Identifier: BSD-3-Clause
"""How the commands reach the server: through trqauthd, which adds who asks."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from typing import Any

from mock_torque import errors
from mock_torque.framing import LENGTH
from mock_torque.home import DEFAULT_HOME, Home

Reply = dict[str, Any]


class CannotConnectError(Exception):
    """No server. ``code`` is an errno or a PBS error number, ``server`` the name tried.

    ``complaint`` is what the PBS library prints at each attempt.
    """

    def __init__(self, code: int, server: str, complaint: str) -> None:
        self.code = code
        self.server = server
        self.complaint = complaint
        super().__init__(errors.TEXTS.get(code) or os.strerror(code))


class RequestError(Exception):
    """The server refused: ``code`` is the PBS error number, str() its sentence."""

    def __init__(self, code: int, message: str, version: str) -> None:
        self.code = code
        self.version = version
        super().__init__(message)

    @property
    def exit_status(self) -> int:
        """Exit status of the command."""
        return errors.exit_status(self.code)


def say(text: str) -> None:
    """Write to stderr."""
    _write(sys.stderr.buffer, text)


def put(text: str) -> None:
    """Write to stdout; bytes that are no UTF-8 leave as they came."""
    _write(sys.stdout.buffer, text)


def _write(stream: Any, text: str) -> None:
    stream.write(text.encode("utf-8", "surrogateescape"))
    stream.flush()


class Client:
    """Requests of one command."""

    def __init__(self, command: str, *, attempts: int = 1, server: str | None = None) -> None:
        self.command = command
        self.attempts = attempts
        self.quiet = False
        self.server = server or os.environ.get("PBS_DEFAULT") or None
        self.home = Home(os.environ.get("PBS_HOME", DEFAULT_HOME))

    def ask(self, kind: str, **request: Any) -> Reply:
        """The server's reply; raises RequestError, CannotConnectError, SystemExit (a knob)."""
        message = {"type": kind, "command": self.command, "server": self.server, **request}
        failure: CannotConnectError | None = None
        for _ in range(self.attempts):
            try:
                return self._checked(self._exchange(message))
            except CannotConnectError as error:
                failure = error
                if not self.quiet:
                    say(error.complaint)
        raise failure or ValueError("no attempt")

    def _exchange(self, message: Reply) -> Reply:
        body = json.dumps(message).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(str(self.home.socket))
                connection.sendall(LENGTH.pack(len(body)) + body)
                (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
                reply: Reply = json.loads(_receive(connection, length))
            except OSError:
                complaint = f"socket_connect_unix failed: {errors.NO_TRQAUTHD}\n"
                raise CannotConnectError(errors.NO_TRQAUTHD, "(null)", complaint) from None
        return reply

    @staticmethod
    def _checked(reply: Reply) -> Reply:
        if "knob" in reply:
            knob = reply["knob"]
            put(knob.get("stdout") or "")
            if knob.get("stderr"):
                say(f"{knob['stderr']}\n")
            raise SystemExit(knob["exit"])
        if "error" in reply:
            put(reply.get("stdout", ""))
            raise RequestError(reply["error"], reply["message"], reply["version"])
        _check_connection(reply)
        return reply


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return bytes(data)


def _check_connection(reply: Reply) -> None:
    """Raise CannotConnectError when trqauthd could not reach the server."""
    server = reply.get("server", "")
    if "unresolved" in reply:
        raise CannotConnectError(
            errors.BAD_HOST,
            server,
            f"Can not resolve name for server {server}. (rc = -1 - )\n"
            f"Cannot resolve specified server host '{server}'.\n",
        )
    where = f"\nUnable to communicate with {server}({reply.get('address')})\n"
    if "refused" in reply:
        text = errors.TEXTS[errors.BAD_HOST]
        raise CannotConnectError(
            errors.BAD_HOST,
            server,
            f"pbs_connect received error code {errors.BAD_HOST} ('{text}') from trqauthd\n"
            f"{where}Cannot resolve specified server host '{server}'.\n",
        )
    if "connect_error" in reply:
        code = reply["connect_error"]
        if code != errno.EHOSTUNREACH:
            where += f"Cannot connect to specified server host '{server}'.\n"
        raise CannotConnectError(code, server, where)


def no_server(command: str, error: CannotConnectError) -> int:
    """Print the sentence of ``command`` for a missing server; its exit status."""
    say(f"{command}: cannot connect to server {error.server} (errno={error.code}) {error}\n")
    return errors.exit_status(error.code)
