"""How bytes reach a provider: the one place that knows the HTTP client.

Two kinds of requests. A *paid* one gets a fresh connection, one absolute deadline and no second try, and its error
says whether a byte can have left. Every other one shares kept-alive connections.

    TransportError
    ├── NotSent     proven: no connection was made, so the provider has seen nothing
    └── NoReply     anything may have happened at the other side
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import aiohttp
from yarl import URL

MAX_REPLY_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024


class TransportError(Exception):
    """Base. The text is for operators."""


class NotSent(TransportError):
    """No connection was made (DNS, refused, TLS, time-out while connecting): nothing was bought."""


class NoReply(TransportError):
    """A connection was made and no whole reply came back: the outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to a provider. ``path`` is relative to the connection's base URL, or a whole URL.

    ``authorized`` says whether the connection's credential goes along: never to a signed result URL elsewhere.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    authorized: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer, read whole. ``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The decoded body, or None when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def json_body(fields: Mapping[str, Any]) -> bytes:
    """Fields as JSON, the same bytes every time: a replay must equal the original."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def multipart_body(fields: Mapping[str, str], boundary: UUID) -> tuple[bytes, str]:
    """Text fields as multipart/form-data: (body, content type). RFC 7578, the same bytes for the same boundary."""
    mark = boundary.hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return f"{''.join(parts)}--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


class Transport:
    """Requests to one connection: its base URL, its credential headers, its time-outs."""

    def __init__(
        self,
        clients: "Clients",
        base_url: str,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 30,
    ) -> None:
        self._clients = clients
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers or {})
        self._timeout = timeout

    async def send(self, call: Call) -> Reply:
        """A request that costs nothing: status, cancel, list.

        Raises:
            NotSent, NoReply: as their names say; either may be tried again.
        """
        return await self._exchange(self._clients.shared, call, self._timeout)

    async def send_paid(self, call: Call, timeout: float) -> Reply:
        """A request that buys something: sent once, on a fresh connection, within ``timeout`` seconds in all.

        Raises:
            NotSent: proven; it may be sent again.
            NoReply: it may have been accepted; it must not be sent again.
        """
        return await self._exchange(self._clients.paid, call, timeout)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator["Download"]:
        """A large answer, as it arrives.

        Raises:
            NotSent, NoReply: also from the iteration, when the stream breaks off.
        """
        trace = SimpleNamespace(connected=False)
        try:
            async with self._clients.shared.request(
                call.method,
                self._url(call),
                headers=self._headers_for(call),
                trace_request_ctx=trace,
                timeout=aiohttp.ClientTimeout(sock_connect=self._timeout, sock_read=self._timeout),
            ) as response:
                yield Download(response.status, _lower(response.headers), response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _classified(error, connected=trace.connected) from error

    async def _exchange(self, client: aiohttp.ClientSession, call: Call, timeout: float) -> Reply:
        trace = SimpleNamespace(connected=False)
        try:
            async with (
                asyncio.timeout(timeout),
                client.request(
                    call.method,
                    self._url(call),
                    params=call.query or None,
                    headers=self._headers_for(call),
                    data=call.body or None,
                    allow_redirects=False,
                    trace_request_ctx=trace,
                ) as response,
            ):
                body = await _read_capped(response)
                return Reply(response.status, _lower(response.headers), body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _classified(error, connected=trace.connected) from error

    def _url(self, call: Call) -> URL:
        absolute = call.path.startswith(("http://", "https://"))
        return URL(call.path if absolute else self._base_url + call.path, encoded=absolute)

    def _headers_for(self, call: Call) -> dict[str, str]:
        return {**self._headers, **call.headers} if call.authorized else dict(call.headers)


@dataclass(frozen=True, slots=True)
class Download:
    """A streamed answer: its status and headers are known, its body is still arriving."""

    status: int
    headers: Mapping[str, str]
    _response: aiohttp.ClientResponse = field(repr=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, in pieces as they come."""
        async for chunk in self._response.content.iter_any():
            yield chunk


class Clients:
    """The two HTTP clients of a process. Open once, share, close at the end."""

    def __init__(self, *, connections: int = 200) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_mark_connected)
        trace.on_connection_reuseconn.append(_mark_connected)
        common: dict[str, Any] = {
            "trace_configs": [trace],
            "timeout": aiohttp.ClientTimeout(total=None),
            "cookie_jar": aiohttp.DummyCookieJar(),
            "auto_decompress": True,
        }
        self.shared = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections), **common)
        # A kept-alive connection may be closed by the other side just as we write: then nobody knows what was read.
        self.paid = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), **common)

    async def close(self) -> None:
        await asyncio.gather(self.shared.close(), self.paid.close())


async def _mark_connected(_session: aiohttp.ClientSession, context: Any, _parameters: Any) -> None:
    context.trace_request_ctx.connected = True


def _classified(error: BaseException, *, connected: bool) -> TransportError:
    # The exception's class cannot tell: ReadError came back both with 0 and with 1 charge. The connection can.
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return NoReply(text) if connected else NotSent(text)


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    body = await response.content.read(MAX_REPLY_BYTES + 1)
    while len(body) <= MAX_REPLY_BYTES and (more := await response.content.read(MAX_REPLY_BYTES)):
        body += more
    if len(body) > MAX_REPLY_BYTES:
        raise ValueError(f"the reply is longer than {MAX_REPLY_BYTES} bytes")
    return body


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
