"""HTTP requests to providers: the only module that uses the HTTP client.

There are two kinds of requests. A *paid* request uses a new connection, one absolute deadline and no retry, and its
error tells whether any byte can have been sent. All other requests share keep-alive connections. The credential is sent
to the connection's own origin only, also after redirects. Result URLs with private addresses are refused unless they
are on the connection's own origin or the operator allows them.

    TransportError
    ├── NotSent     no connection was made: the provider has not received the request
    └── NoReply     the request may have been received and executed
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn
from uuid import UUID

import aiohttp
from yarl import URL

from app.infra.proxy import through
from app.providers.decoding import Undecodable, codings_of, decoded
from app.providers.download import Download
from app.providers.http_clients import Clients, check_host
from app.providers.locations import url_of
from app.providers.scrubbing import NOTHING, Scrubber

MAX_REPLY_BYTES = 4 * 1024 * 1024
READ_BYTES = 64 * 1024
MAX_REDIRECTS = 5


class TransportError(Exception):
    """Base class. The text is for operators."""


class NotSent(TransportError):
    """No connection was made (DNS, refused, TLS, connect timeout): nothing was submitted."""


class NoReply(TransportError):
    """A connection was made but no complete reply arrived: the result is unknown."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to a provider. ``path`` is relative to the connection's base URL, or an absolute URL.

    ``authorized`` sends the connection's credential, but never to another origin.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    authorized: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply, read completely. ``headers`` have lower-case names.

    ``body`` is unchanged; in :meth:`json` and :attr:`text` the connection's secrets are redacted.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    scrubber: Scrubber = field(default=NOTHING, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The body as text that the database can store."""
        return self.scrubber.text(text_of(self.body))

    def json(self) -> Any:
        """The decoded body, or None if it is not JSON (NaN and Infinity are not).

        Values that the database cannot store are replaced, so that every reply can be recorded: NUL and lone surrogates
        in text, numbers too large for a float.
        """
        try:
            value = _storable(json.loads(self.body, parse_constant=_reject_constant))
        except (ValueError, RecursionError):
            return None
        # Redact after decoding: in the raw bytes, redaction could cut an escape sequence. Most replies have no secret.
        return self.scrubber.value(value) if self.scrubber.may_contain_secret(self.body) else value


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return text_of(value.encode(errors="surrogatepass"))
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text_of(data: bytes) -> str:
    """Bytes from a provider as text that the database can store."""
    return data.decode(errors="replace").replace("\x00", "\ufffd")


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def json_body(fields: Mapping[str, Any]) -> bytes:
    """Fields as JSON with deterministic bytes: a replay must equal the original."""
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file in a form. ``name`` is the field's, ``filename`` needs no escapes."""

    name: str
    filename: str
    content_type: str
    data: bytes = field(repr=False)


def multipart_body(fields: Mapping[str, str], boundary: UUID, files: Iterable[FilePart] = ()) -> tuple[bytes, str]:
    """Text fields and files as multipart/form-data (RFC 7578): body and content type.

    Deterministic for a given boundary.
    """
    mark = boundary.hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for file in files:
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{file.name}"; filename="{file.filename}"\r\n'
        parts += [f"{head}Content-Type: {file.content_type}\r\n\r\n".encode(), file.data, b"\r\n"]
    return b"".join([*parts, f"--{mark}--\r\n".encode()]), f"multipart/form-data; boundary={mark}"


class Transport:
    """Requests to one connection, with its base URL, credential headers and timeouts.

    ``proxy`` is the URL of the connection's own, or DIRECT; by default it is that of the clients.
    """

    def __init__(
        self,
        clients: Clients,
        base_url: str,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 30,
        private_results: bool = False,
        secrets: Iterable[str] = (),
        proxy: str | None = None,
    ) -> None:
        self._clients = clients
        self._base_url = base_url.rstrip("/")
        self._origin = URL(base_url).origin()
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._private_results = private_results
        self._proxy = through(clients.proxy if proxy is None else proxy)
        self._scrubber = Scrubber(secrets)

    async def send(self, call: Call, *, fresh: bool = False) -> Reply:
        """Send a free request: status, cancel, list. ``fresh`` uses a new connection.

        Raises:
            NotSent, NoReply: the request may be retried after either.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        return await self._exchange(self._clients.paid if fresh else self._clients.shared, call, deadline)

    async def send_paid(self, call: Call, deadline: float) -> Reply:
        """Send a paid request once, over a new connection, before ``deadline`` (event-loop time).

        Raises:
            NotSent: proven not sent; it may be sent again.
            NoReply: it may have been accepted and must not be sent again.
        """
        if deadline <= asyncio.get_running_loop().time():
            raise NotSent("the deadline passed before the request was sent")
        return await self._exchange(self._clients.paid, call, deadline)

    @asynccontextmanager
    async def stream(self, call: Call, *, fresh: bool = False) -> AsyncIterator[Download]:
        """Stream a large reply. Redirects are followed; credentials and address rules are applied to each origin anew.

        ``fresh`` uses a new connection for requests to the connection's origin.

        Raises:
            NotSent, NoReply: when opening; :meth:`Download.chunks` raises NoReply if the stream breaks off.
        """
        response = await self._open(call, fresh=fresh)
        try:
            headers = _lower(response.headers)
            yield Download(response.status, headers, _body(response, codings_of(headers)))
        finally:
            response.close()

    async def _open(self, call: Call, *, fresh: bool) -> aiohttp.ClientResponse:
        trace = SimpleNamespace(connected=False)
        try:
            url = self._url(call)
            for _ in range(1 + MAX_REDIRECTS):
                client = await self._client_for(url, fresh=fresh)
                response = await client.request(
                    call.method,
                    url,
                    headers=self._headers_for(call, url),
                    allow_redirects=False,
                    trace_request_ctx=trace,
                    **self._proxy,
                    timeout=aiohttp.ClientTimeout(
                        connect=self._timeout, sock_connect=self._timeout, sock_read=self._timeout
                    ),
                )
                location = response.headers.get("location")
                if response.status not in (301, 302, 303, 307, 308) or location is None:
                    return response
                response.close()
                url = url_of(location, url)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._classified(error, connected=trace.connected) from error
        raise NoReply(f"more than {MAX_REDIRECTS} redirects")

    async def _exchange(self, client: aiohttp.ClientSession, call: Call, deadline: float) -> Reply:
        trace = SimpleNamespace(connected=False)
        try:
            url = self._url(call)
            async with (
                asyncio.timeout_at(deadline),
                client.request(
                    call.method,
                    url,
                    headers=self._headers_for(call, url),
                    data=call.body or None,
                    allow_redirects=False,
                    trace_request_ctx=trace,
                    **self._proxy,
                ) as response,
            ):
                body = await _read_capped(response)
                headers = self._scrubber.value(_lower(response.headers))
                return Reply(response.status, headers, body, self._scrubber)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._classified(error, connected=trace.connected) from error

    def _classified(self, error: BaseException, *, connected: bool) -> TransportError:
        # The text of an error may quote received data.
        return _classified(self._scrubber.value(_described(error)), connected=connected)

    def _url(self, call: Call) -> URL:
        absolute = call.path.startswith(("http://", "https://"))
        url = url_of(call.path) if absolute else URL(self._base_url + call.path)
        return url.update_query(call.query) if call.query else url

    async def _client_for(self, url: URL, *, fresh: bool) -> aiohttp.ClientSession:
        if url.origin() == self._origin:
            return self._clients.paid if fresh else self._clients.shared
        if self._proxy:
            # The socket leads to the proxy: only the address of the result's host can be checked.
            await check_host(url, private=self._private_results)
            return self._clients.shared
        return self._clients.private if self._private_results else self._clients.guarded

    def _headers_for(self, call: Call, url: URL) -> dict[str, str]:
        own = call.authorized and url.origin() == self._origin
        return {**self._headers, **call.headers} if own else dict(call.headers)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _classified(text: str, *, connected: bool) -> TransportError:
    # Decided by the connection, not by the class of the exception: ReadError was observed with and without a charge.
    return NoReply(text) if connected else NotSent(text)


async def _body(response: aiohttp.ClientResponse, codings: Iterable[str]) -> AsyncIterator[bytes]:
    try:
        async for chunk in decoded(response.content.iter_any(), codings):
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError, Undecodable) as error:
        raise _classified(_described(error), connected=True) from error


async def _read_capped(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while piece := await response.content.read(READ_BYTES):
        body += piece
        if len(body) > MAX_REPLY_BYTES:
            raise ValueError(f"the reply is longer than {MAX_REPLY_BYTES} bytes")
    return bytes(body)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
