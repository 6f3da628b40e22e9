"""Clients that stop in the middle of a head or stop reading, and bytes that are neither head nor body."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.web.limits import MAX_PIPELINED, bounded
from tests.support.asgi_server import serving

NEVER = 3600.0
CHUNK = b"x" * 8_000_000  # more than the sockets of both sides hold


class App:
    """Answers "ok", or with a stream that has no end."""

    def __init__(self) -> None:
        self.stream_ended = asyncio.Event()
        self.bodies: list[bytes] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/stream":
            await self._stream(receive, send)
            return
        self.entered.set()
        await self.gate.wait()
        body, more = b"", True
        while more and (message := await receive())["type"] == "http.request":
            body += message["body"]
            more = message["more_body"]
        if more:
            return
        self.bodies.append(body)
        self.headers.append(dict(scope["headers"]))
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


# What is not body ----------------------------------------------------------------------------------------------------

POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
async def patient(app: App) -> AsyncIterator[tuple[str, int]]:
    async with serving(app, http=bounded(head_timeout=NEVER, write_timeout=NEVER), timeout_keep_alive=3600) as address:
        yield address


async def whole_reply_to(address: tuple[str, int], *parts: bytes) -> bytes:
    """The only reply to these bytes; the connection must end after it."""
    reader, writer = await asyncio.open_connection(*address)
    sending = asyncio.create_task(send_all(writer, parts))
    reply = await reader.read()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.close()
    return reply


async def reply_to(address: tuple[str, int], *parts: bytes) -> tuple[int, bytes]:
    """Its status and body."""
    head, _, body = (await whole_reply_to(address, *parts)).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def send_all(writer: asyncio.StreamWriter, parts: tuple[bytes, ...]) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()


async def test_trailers_are_dropped(patient: tuple[str, int], app: App) -> None:
    reader, writer = await asyncio.open_connection(*patient)
    trailers = b"Authorization: Bearer fgk_x\r\nX-Request-Id: y\r\nHost: z\r\n"
    writer.write(POST + b"2\r\nhi\r\n0\r\n" + trailers + b"\r\n" + GET)
    await answer(reader)
    await answer(reader)
    writer.close()
    assert app.bodies == [b"hi", b""]
    assert app.headers == [{b"host": b"x", b"transfer-encoding": b"chunked"}, {b"host": b"x"}]


async def test_small_chunks_are_no_abuse(patient: tuple[str, int], app: App) -> None:
    reader, writer = await asyncio.open_connection(*patient)
    writer.write(POST + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n")
    assert (await answer(reader)).endswith(b"ok")
    writer.close()
    assert app.bodies == [b"x" * 200_000]


LARGE = 1_000_000
REFUSED = {
    "many trailers": (431, "headers_too_large", (POST, b"2\r\nhi\r\n0\r\n", b"a: b\r\n" * 1000)),
    "a long trailer": (400, "malformed_request", (POST, b"2\r\nhi\r\n0\r\n", b"a: ", b"x" * LARGE, b"\r\n")),
    "a long name of a trailer": (400, "malformed_request", (POST, b"2\r\nhi\r\n0\r\n", b"x" * LARGE)),
    "a long chunk extension": (400, "malformed_request", (POST, b"2;x=", b"x" * LARGE)),
    "many chunk extensions": (400, "malformed_request", (POST, *[b"1;x=" + b"x" * 5000 + b"\r\ny\r\n"] * 200)),
    "a long size of a chunk": (400, "malformed_request", (POST, b"0" * LARGE)),
    "many headers": (431, "headers_too_large", (b"GET / HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n" * 300, b"\r\n")),
    "a long header": (431, "headers_too_large", (b"GET / HTTP/1.1\r\nHost: x\r\na: ", b"x" * LARGE)),
    "a long path": (431, "headers_too_large", (b"GET /", b"x" * LARGE, b" HTTP/1.1\r\nHost: x\r\n\r\n")),
    "line ends and no request": (431, "headers_too_large", (b"\r\n" * LARGE,)),
    "two Host headers": (400, "malformed_request", (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",)),
    "no Host header": (400, "malformed_request", (b"GET / HTTP/1.1\r\n\r\n",)),
    "two Host headers in HTTP/1.0": (400, "malformed_request", (b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",)),
    "another protocol": (400, "malformed_request", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",)),
    "a body of two lengths": (400, "malformed_request", (POST[:-2] + b"Content-Length: 3\r\n\r\n",)),
}


@pytest.mark.parametrize(("status", "code", "sent"), REFUSED.values(), ids=REFUSED)
async def test_what_is_not_body_has_limits_and_a_problem_says_so(
    patient: tuple[str, int], app: App, status: int, code: str, sent: tuple[bytes, ...]
) -> None:
    head, _, body = (await whole_reply_to(patient, *sent)).partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (int(head.split()[1]), problem["status"], problem["code"]) == (status, status, code)
    assert f"X-Request-Id: {problem['request_id']}".lower().encode() in head.lower().split(b"\r\n")
    assert problem["detail"]
    assert app.bodies == []


async def test_an_old_client_needs_no_host(patient: tuple[str, int]) -> None:
    assert await reply_to(patient, b"GET / HTTP/1.0\r\n\r\n") == (200, b"ok")


SIZED, CHUNKED = b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
WEBSOCKET = b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET])
@pytest.mark.parametrize(
    "parts",
    [
        (SIZED + b"hello",),
        (SIZED, b"hello"),
        (SIZED[:-2], SIZED[-2:] + b"he", b"llo"),
        (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",),
        (CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n"),
    ],
)
async def test_a_wish_for_another_protocol_costs_no_body(
    patient: tuple[str, int], app: App, upgrade: bytes, parts: tuple[bytes, ...]
) -> None:
    reader, writer = await asyncio.open_connection(*patient)
    for _ in range(2):
        await send_all(writer, (b"POST / HTTP/1.1\r\nHost: x\r\n" + upgrade + parts[0], *parts[1:]))
        assert (await answer(reader)).startswith(b"HTTP/1.1 200")
    assert app.bodies == [b"hello"] * 2
    assert not {b"upgrade", b"http2-settings"} & app.headers[0].keys()
    writer.close()


async def test_the_request_after_such_a_wish_is_read(patient: tuple[str, int], app: App) -> None:
    status, rest = await reply_to(patient, b"POST / HTTP/1.1\r\nHost: x\r\n" + H2C + SIZED + b"hello" + LAST)
    assert (status, rest.count(b"HTTP/1.1 200")) == (200, 1)
    assert app.bodies == [b"hello", b""]


@pytest.mark.parametrize("target", [b"/x", b"x:80"])
async def test_connect_is_refused_with_what_follows(patient: tuple[str, int], app: App, target: bytes) -> None:
    status, body = await reply_to(patient, b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    assert (status, json.loads(body)["code"]) == (400, "malformed_request")
    assert app.bodies == []


async def test_a_refusal_does_not_break_into_a_response(patient: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*patient)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n")
    rest = await reader.read()
    writer.close()
    assert b"HTTP/1.1 400" not in rest


async def test_a_refused_request_leaves_the_response_to_the_one_before(patient: tuple[str, int], app: App) -> None:
    app.gate.clear()
    reader, writer = await asyncio.open_connection(*patient)
    writer.write(GET)
    await app.entered.wait()
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n")
    await writer.drain()
    app.gate.set()
    reply = await reader.read()
    writer.close()
    assert reply.startswith(b"HTTP/1.1 200")  # a refusal may follow it, where it came later


async def test_a_connection_may_not_pipeline_without_end(patient: tuple[str, int], app: App) -> None:
    app.gate.clear()
    reader, writer = await asyncio.open_connection(*patient)
    writer.write(GET * 1000)
    await app.entered.wait()
    app.gate.set()
    reply = await reader.read()
    writer.close()
    # Those that were accepted may have been executed: they have their responses.
    assert reply.count(b"HTTP/1.1 200") == len(app.bodies) == 1 + MAX_PIPELINED


@pytest.mark.parametrize("size", [100, 14_000, 30_000])
async def test_wishes_in_one_packet_are_no_abuse(patient: tuple[str, int], app: App, size: int) -> None:
    wish = b"POST / HTTP/1.1\r\nHost: x\r\n" + H2C + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    reader, writer = await asyncio.open_connection(*patient)
    writer.write(GET + wish * 6 + LAST)
    reply = await reader.read()
    writer.close()
    assert reply.count(b"HTTP/1.1 200") == 8
    assert app.bodies == [b"", *[b"x" * size] * 6, b""]


async def test_a_request_that_is_refused_in_its_body_is_not_executed(patient: tuple[str, int], app: App) -> None:
    app.gate.clear()
    reader, writer = await asyncio.open_connection(*patient)
    writer.write(GET * 3 + POST + b"2\r\nhi\r\nwhat\r\n")
    await app.entered.wait()
    app.gate.set()
    reply = await reader.read()
    writer.close()
    assert reply.count(b"HTTP/1.1 200") == len(app.bodies) == 3
