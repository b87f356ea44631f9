# SPDX-License-Identifier: BSD-3-Clause
"""A notebook server is asked to shut down; what answers may be anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from custom_pbs_spawner.notebook import shut_down

pytestmark = pytest.mark.asyncio

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers each request in its own way; its address, and what it was sent."""
    requests: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/ganymede/user/ana/", requests
    finally:
        listener.close()


def text(content: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()

    return answer


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.3)


async def pour(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


async def endless_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x" * 0x10000)
        await writer.drain()


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"202 Accepted"])
async def test_agreement(status: bytes) -> None:
    async with server(text(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n")) as (
        url,
        sent,
    ):
        assert await shut_down(url, "secret", 5)
    (request,) = sent
    assert request.startswith(b"POST /ganymede/user/ana/api/shutdown HTTP/1.1\r\n")
    assert b"\r\nAuthorization: token secret\r\n" in request
    assert b"\r\nContent-Length: 0\r\n" in request


@pytest.mark.parametrize("status", [b"403 Forbidden", b"404 Not Found", b"500 Oh"])
async def test_refusal(status: bytes) -> None:
    async with server(text(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")) as (url, _):
        assert not await shut_down(url, "secret", 5)


async def test_token_follows_no_redirect() -> None:
    async with server(text(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as (other, stolen):
        answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: " + other.encode() + b"\r\n\r\n"
        async with server(text(answer)) as (url, sent):
            assert not await shut_down(url, "secret", 5)
        assert (len(sent), stolen) == (1, [])


ODD: dict[str, Answer] = {
    "nothing at all": hang,
    "a byte now and then": drip,
    "too much": pour,
    "too much header": endless_header,
    "no HTTP": text(b"220 mail.example ESMTP\r\n"),
    "an early end": text(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"),
    "a wrong length": text(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    "a huge length": text(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n"),
    "broken chunks": text(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "binary": text(bytes(range(256)) * 8),
    "an end at once": text(b""),
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_odd_answers_hold_nobody_up(answer: Answer) -> None:
    async with server(answer) as (url, _):
        start = time.monotonic()
        assert not await shut_down(url, "secret", 1)
        assert time.monotonic() - start < 5


async def test_nobody_there() -> None:
    assert not await shut_down("http://127.0.0.1:1/", "secret", 1)


async def test_the_loop_goes_on_meanwhile() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    task = asyncio.create_task(beat())
    async with server(pour) as (url, _):
        await shut_down(url, "secret", 1)
    async with server(hang) as (url, _):
        await shut_down(url, "secret", 1)
    task.cancel()
    assert beats > 20
