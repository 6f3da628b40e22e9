"""Clients that stop in the middle of a head, and clients that stop reading."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.web.timeouts import bounded
from tests.support.asgi_server import serving

NEVER = 3600.0
CHUNK = b"x" * 8_000_000  # more than the sockets of both sides hold


class App:
    """Answers "ok", or with a stream that has no end."""

    def __init__(self) -> None:
        self.stream_ended = asyncio.Event()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/stream":
            await self._stream(receive, send)
            return
        message = await receive()
        self.bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _stream(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        gone = asyncio.create_task(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            await asyncio.sleep(0)
        self.stream_ended.set()


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def strict(app: App) -> AsyncIterator[tuple[str, int]]:
    async with serving(app, http=bounded(head_timeout=0.05, write_timeout=NEVER), timeout_keep_alive=3600) as address:
        yield address


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def answer(reader: asyncio.StreamReader) -> bytes:
    top = await reader.readuntil(b"\r\n\r\n")
    return top + await reader.readexactly(2)


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_that_brings_no_whole_head_is_closed(strict: tuple[str, int], app: App, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection(*strict)
    writer.write(sent)
    assert await reader.read() == b""
    writer.close()
    assert app.bodies == []


async def test_a_head_that_drips_is_cut_although_it_never_stops(strict: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*strict)
    writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
    closed = asyncio.create_task(reader.read())
    while not closed.done():
        writer.write(b"x")
        await asyncio.wait([closed], timeout=0.01)
    writer.close()
    await asyncio.gather(closed, return_exceptions=True)


@pytest.mark.parametrize("sent", [b"\r\n", b"G", b"GET / HTTP/1.1\r\n"])
async def test_bytes_between_requests_do_not_keep_a_connection_open(app: App, sent: bytes) -> None:
    protocol = bounded(head_timeout=NEVER, write_timeout=NEVER)
    async with serving(app, http=protocol, timeout_keep_alive=3600) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GET)
        assert (await answer(reader)).endswith(b"ok")
        protocol.head_timeout = 0.05  # type: ignore[attr-defined]  # from the next head on
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()


async def test_a_connection_in_use_outlives_the_time_for_a_head(app: App) -> None:
    async with serving(app, http=bounded(head_timeout=1, write_timeout=NEVER), timeout_keep_alive=3600) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GET)
        await answer(reader)
        idle_reader, idle_writer = await asyncio.open_connection(*address)
        assert await idle_reader.read() == b""  # the time is over for this one, which came later
        idle_writer.close()
        writer.write(GET)
        assert (await answer(reader)).endswith(b"ok")
        writer.close()
    assert len(app.bodies) == 2


async def test_a_client_that_stops_reading_is_cut_and_its_response_ends(app: App) -> None:
    async with serving(app, http=bounded(head_timeout=NEVER, write_timeout=0.05)) as address:
        deaf = socket.create_connection(address)
        deaf.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.stream_ended.wait()
        deaf.close()


async def test_a_client_that_reads_gets_as_much_as_it_wants(app: App) -> None:
    async with serving(app, http=bounded(head_timeout=NEVER, write_timeout=NEVER)) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(50_000_000)
        assert not app.stream_ended.is_set()
        writer.close()
        await app.stream_ended.wait()
