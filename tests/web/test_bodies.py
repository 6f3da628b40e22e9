"""Bodies that are too large, clients that are too slow: through real sockets."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from app.web import bodies
from tests.support.asgi_server import serving
from tests.support.middleware_app import LARGEST, Gateway, access_line


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(gateway.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as opened:
        yield opened


async def in_chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_a_body_arrives_as_it_was_sent(client: httpx2.AsyncClient, gateway: Gateway) -> None:
    for content in (b"", b"x" * LARGEST):
        assert (await client.post("/v1/echo/a", content=content)).content == content
    assert (await client.post("/v1/echo/a", content=in_chunks(b"ab", b"", b"cd"))).content == b"abcd"
    assert gateway.received == [b"", b"x" * LARGEST, b"abcd"]


@pytest.mark.parametrize("path", ["/v1/echo/a", "/v1/ignore", "/nowhere"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_a_413_problem_and_no_route_sees_it(
    client: httpx2.AsyncClient, gateway: Gateway, path: str, chunked: bool
) -> None:
    content = in_chunks(b"x" * LARGEST, b"x") if chunked else b"x" * (LARGEST + 1)
    with capture_logs() as logs:
        answer = await client.post(path, content=content)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert answer.json()["code"] == "body_too_large"
    assert answer.json()["detail"] == "The body of a request may have at most 1024 bytes."
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert gateway.received == []
    assert access_line(logs)["status"] == 413


Address = tuple[str, int]


@pytest.fixture
async def impatient() -> AsyncIterator[tuple[Gateway, Address]]:
    """A served gateway that waits very shortly for bodies."""
    gateway = Gateway(body_timeout=0.05)
    async with serving(gateway.app, http="httptools") as address:
        yield gateway, address


async def exchange(address: Address, *pieces: bytes) -> bytes:
    """Everything that the server sends, until it hangs up."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: gateway", *headers, "", ""]).encode()


def parsed(answer: bytes) -> tuple[int, dict[str, str], Any]:
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, json.loads(body) if body else None


@pytest.mark.parametrize("sent", [b"", b"half of it"])
async def test_a_body_that_does_not_arrive_in_time_is_a_408_problem_and_the_end_of_the_connection(
    impatient: tuple[Gateway, Address], sent: bytes
) -> None:
    gateway, address = impatient
    status, headers, problem = parsed(await exchange(address, head("/v1/echo/a", "Content-Length: 1000"), sent))
    assert status == 408
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert (problem["code"], problem["request_id"]) == ("body_timeout", headers["x-request-id"])
    assert problem["detail"] == "The body of the request did not arrive within 0.05 seconds."
    assert gateway.received == []


async def test_a_body_that_drips_is_cut_although_it_never_stops(impatient: tuple[Gateway, Address]) -> None:
    gateway, address = impatient
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head("/v1/echo/a", "Transfer-Encoding: chunked"))
    answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    while not answered.done():
        writer.write(b"1\r\nx\r\n")
        await asyncio.wait([answered], timeout=0.01)
    writer.close()
    assert (await answered).startswith(b"HTTP/1.1 408 ")
    assert gateway.received == []


async def test_a_slow_client_does_not_keep_others_waiting() -> None:
    gateway = Gateway(body_timeout=60)
    async with serving(gateway.app, http="httptools") as address:
        slow = [await asyncio.open_connection(*address) for _ in range(50)]
        for _, writer in slow:
            writer.write(head("/v1/echo/slow", "Content-Length: 1000") + b"x")
        async with httpx2.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", verify=False) as client:
            for _ in range(10):
                assert (await client.post("/v1/echo/a", content=b"quick")).content == b"quick"
        for _, writer in slow:
            writer.close()
    assert gateway.received == [b"quick"] * 10


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten() -> None:
    gateway = Gateway(body_timeout=60)
    dropped = asyncio.Event()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        await gateway.app(scope, receive, send)
        dropped.set()

    with capture_logs() as logs:
        async with serving(watched, http="httptools") as address:
            _, writer = await asyncio.open_connection(*address)
            writer.write(head("/v1/echo/a", "Content-Length: 1000") + b"x")
            await writer.drain()
            writer.close()
            await dropped.wait()
    assert gateway.received == []
    line = access_line(logs)
    assert (line["event"], line["status"]) == ("request dropped", None)


async def test_a_declared_size_that_is_too_large_is_refused_before_a_byte_of_it_is_sent() -> None:
    gateway = Gateway(body_timeout=60)
    async with serving(gateway.app, http="httptools") as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(head("/v1/echo/a", "Content-Length: 1000000000", "Expect: 100-continue"))
        top = await reader.readuntil(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in top
        writer.close()


@pytest.mark.parametrize("framing", ["Content-Length: 3000000", "Transfer-Encoding: chunked"])
async def test_a_client_that_sends_all_before_it_listens_still_gets_its_413(framing: str) -> None:
    gateway = Gateway(body_timeout=60)
    body = b"x" * 3_000_000
    if framing.startswith("Transfer"):
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with serving(gateway.app, http="httptools") as address:
        status, _, problem = parsed(await exchange(address, head("/v1/echo/a", framing), body))
    assert (status, problem["code"]) == (413, "body_too_large")
    assert gateway.received == []


async def test_one_that_never_stops_sending_is_cut_after_its_413(impatient: tuple[Gateway, Address]) -> None:
    _, address = impatient
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head("/v1/echo/a", "Content-Length: 1000000000000"))
    top = await reader.readuntil(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 413 ")
    with pytest.raises(ConnectionError):  # noqa: PT012  # the server hangs up on one of these writes
        while True:
            writer.write(b"x" * 2048)
            await writer.drain()
            await asyncio.sleep(0)
    writer.close()


async def test_a_connection_serves_many_requests_with_bodies() -> None:
    gateway = Gateway()
    async with serving(gateway.app, http="httptools") as address:
        reader, writer = await asyncio.open_connection(*address)
        for path in ("/v1/echo/a", "/v1/ignore", "/nowhere", "/v1/echo/b"):
            writer.write(head(path, "Content-Length: 4") + b"body")
            top = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", top)
            assert length is not None
            await reader.readexactly(int(length[1]))
            assert b"connection: close" not in top.lower()
        writer.close()
    assert gateway.received == [b"body", b"", b"body"]


async def test_a_response_that_breaks_off_is_not_passed_off_as_whole() -> None:
    gateway = Gateway()
    async with serving(gateway.app, http="httptools") as address:
        with capture_logs() as logs:
            answer = await exchange(address, head("/v1/breaks-off", method="GET"))
    assert b"some" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"hunter2" not in answer
    assert access_line(logs)["status"] == 200


@pytest.mark.parametrize(
    "sent", [head("/v1/stream", method="GET"), head("/v1/stream", "Content-Length: 4") + b"body"], ids=["GET", "POST"]
)
async def test_a_long_response_ends_when_its_client_leaves(sent: bytes) -> None:
    gateway = Gateway()
    async with serving(gateway.app, http="httptools") as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        await reader.readexactly(100_000)
        writer.close()
        await gateway.stream_ended.wait()


LARGE = b"x" * 1000


async def posting(
    address: Address, path: str, body: bytes, *, source: str = "127.0.0.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from ``source`` that has sent a head that declares a large body, and the bytes of ``body``."""
    reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0))
    writer.write(head(path, f"Content-Length: {len(LARGE)}", "Connection: close") + body)
    await writer.drain()
    return reader, writer


async def test_large_bodies_of_one_caller_take_turns_and_no_other_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGE_BODY_BYTES", len(LARGE))
    monkeypatch.setattr(bodies, "LARGE_AT_ONCE", 1)
    gateway = Gateway(body_timeout=60)
    async with serving(gateway.app, http="httptools") as address:
        slow_reader, slow = await posting(address, "/v1/echo/slow", LARGE[:-1])
        next_reader, next_ = await posting(address, "/v1/echo/next", LARGE)
        other_reader, other = await posting(address, "/v1/echo/other", LARGE, source="127.0.0.2")
        assert b"x-name: other" in await other_reader.read()
        small = await exchange(address, head("/v1/echo/small", "Content-Length: 3", "Connection: close"), b"abc")
        assert b"x-name: small" in small
        assert gateway.received == [LARGE, b"abc"]
        slow.write(LARGE[-1:])
        assert b"x-name: slow" in await slow_reader.read()
        assert b"x-name: next" in await next_reader.read()
        for writer in (slow, next_, other):
            writer.close()


async def test_a_large_body_whose_turn_does_not_come_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGE_BODY_BYTES", len(LARGE))
    monkeypatch.setattr(bodies, "LARGE_AT_ONCE", 1)
    gateway = Gateway(body_timeout=0.05)
    async with serving(gateway.app, http="httptools") as address:
        stream, first = await posting(address, "/v1/stream", LARGE)
        await stream.readuntil(b"\r\n\r\n")
        refused, second = await posting(address, "/v1/echo/a", LARGE)
        status, headers, problem = parsed(await refused.read())
        assert (status, problem["code"], headers["retry-after"]) == (503, "unavailable", "2")
        assert gateway.received == []
        first.close()
        second.close()
