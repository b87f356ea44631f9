# SPDX-License-Identifier: BSD-3-Clause
"""trqauthd: tells the queue server who asks.

A command writes its request into a unix socket. The kernel tells whose process that is
(SO_PEERCRED); the request travels on with this identity, proven with the shared key. What the
command itself says about its user counts for nothing.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import struct

from mock_torque import daemon, wire
from mock_torque.framing import LENGTH, MAXIMUM_BODY
from mock_torque.home import Home

UCRED = struct.Struct("3i")  # pid, uid, gid

log = logging.getLogger(__name__)


class Relay:
    """One trqauthd."""

    def __init__(self, home: Home, hostname: str) -> None:
        self.home = home
        self.hostname = hostname
        self.key = home.key()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one command."""
        try:
            peer: socket.socket = writer.get_extra_info("socket")
            _, uid, _ = UCRED.unpack(
                peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
            )
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            if length > MAXIMUM_BODY:
                return
            request = json.loads(await reader.readexactly(length))
            body = json.dumps(await self.relay(uid, request)).encode()
            writer.write(LENGTH.pack(len(body)) + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            log.info("command hung up: %s", error)
        finally:
            writer.close()

    async def relay(self, uid: int, request: wire.Message) -> wire.Message:
        """The server's reply, or why there is none."""
        account = self.home.account_of_uid(uid)
        if account is None:
            return {"connect_error": errno.EPERM, "server": "", "address": ""}
        default, port = self.home.server()
        server = request.pop("server", None) or default
        identity = {"user": account.name, "uid": uid, "host": self.hostname}
        try:
            address = await _resolve(server)
        except socket.gaierror:
            return {"unresolved": server, "server": server}
        failure = {"server": server, "address": address}
        try:
            peer = wire.Peer(address, port, self.key, f"pbs_server@{server}")
            reply = await peer.ask({"identity": identity, "request": request})
        except wire.NotAuthenticError:
            return {"refused": True, **failure}
        except asyncio.IncompleteReadError:  # the server died meanwhile
            return {"connect_error": errno.ECONNRESET, **failure}
        except OSError as error:
            return {"connect_error": error.errno or errno.ECONNREFUSED, **failure}
        return {**reply, "server": server}


async def _resolve(name: str) -> str:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


async def run(home: Home, hostname: str) -> None:
    """Serve until terminated."""
    # Renamed when it is ready: no command meets a socket that does not listen yet.
    unready = home.socket.with_suffix(".new")
    unready.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(
        Relay(home, hostname).connection, path=unready, backlog=128
    )
    unready.chmod(0o666)  # every user of the host may ask
    unready.replace(home.socket)
    log.info("trqauthd of %s for server %s", hostname, home.server()[0])
    daemon.ready()
    async with server:
        await daemon.until_terminated()
    home.socket.unlink(missing_ok=True)


def main() -> int:
    """Entry point of sbin/trqauthd."""
    options = daemon.parser("trqauthd").parse_args()
    daemon.start_logging()
    asyncio.run(run(Home(options.home), options.hostname))
    return 0
