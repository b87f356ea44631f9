# SPDX-License-Identifier: BSD-3-Clause
"""How daemons of different hosts talk: one request and one reply for each TCP connection.

    server to client    nonce, 32 random bytes
    client to server    frame(request)
    server to client    frame(reply)

    frame = length of the body (4 bytes), HMAC-SHA256 (32 bytes), body (JSON)

The HMAC is taken with the shared key over a label, the nonce and the body. The label names the
direction and the service, so a frame is good for one service, one connection and one direction:
a recorded one cannot be replayed. Nothing is encrypted, as in TORQUE.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mock_torque.framing import LENGTH, MAXIMUM_BODY

Message = dict[str, Any]
Handler = Callable[[Message, str], Awaitable[Message]]

NONCE_BYTES = 32
MAC_BYTES = 32
REFUSED = 0  # the length that answers a frame with a wrong HMAC
PATIENCE = 30.0  # seconds which an unproven peer may take for its request

log = logging.getLogger(__name__)


class NotAuthenticError(Exception):
    """The peer does not have the shared key."""


def _mac(key: bytes, label: str, nonce: bytes, body: bytes) -> bytes:
    return hmac.digest(key, label.encode() + b"\0" + nonce + body, hashlib.sha256)


def seal(key: bytes, label: str, nonce: bytes, message: Message) -> bytes:
    """The frame of ``message``."""
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + _mac(key, label, nonce, body) + body


async def read_sealed(
    reader: asyncio.StreamReader, key: bytes, label: str, nonce: bytes
) -> Message:
    """The message of the next frame; raises NotAuthenticError unless its HMAC is right."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length == REFUSED:
        raise NotAuthenticError("refused by the peer")
    if length > MAXIMUM_BODY:
        raise NotAuthenticError(f"a frame of {length} bytes")
    mac = await reader.readexactly(MAC_BYTES)
    body = await reader.readexactly(length)
    if not hmac.compare_digest(mac, _mac(key, label, nonce, body)):
        raise NotAuthenticError("wrong HMAC")
    message: Message = json.loads(body)
    return message


@dataclass(frozen=True)
class Peer:
    """A service (``pbs_server@encina``, ``pbs_mom@node01``) at an address."""

    host: str
    port: int
    key: bytes
    service: str

    async def ask(self, message: Message) -> Message:
        """The reply; without a time limit.

        Raises OSError, asyncio.IncompleteReadError (the peer hung up) and NotAuthenticError.
        """
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            nonce = await reader.readexactly(NONCE_BYTES)
            writer.write(seal(self.key, f"request {self.service}", nonce, message))
            await writer.drain()
            return await read_sealed(reader, self.key, f"reply {self.service}", nonce)
        finally:
            writer.close()


async def serve(port: int, key: bytes, service: str, handle: Handler) -> asyncio.Server:
    """Listen on all addresses; ``handle`` gets each proven message and its sender's address."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str(writer.get_extra_info("peername")[0])
        try:
            nonce = secrets.token_bytes(NONCE_BYTES)
            writer.write(nonce)
            await writer.drain()
            async with asyncio.timeout(PATIENCE):
                message = await read_sealed(reader, key, f"request {service}", nonce)
            reply = await handle(message, peer)
            writer.write(seal(key, f"reply {service}", nonce, reply))
            await writer.drain()
        except NotAuthenticError as error:
            log.warning("request from %s refused: %s", peer, error)
            writer.write(LENGTH.pack(REFUSED))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.info("connection from %s: %s", peer, error or type(error).__name__)
        finally:
            writer.close()

    return await asyncio.start_server(connection, port=port, backlog=128)
