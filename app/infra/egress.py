"""The guarded HTTP client for all URLs that customers supply (SSRF protection).

It checks the *address* when the socket is created, after DNS, so that no spelling, DNS rebinding or record of the
customer's name server can bypass the check. A permitted connection is kept alive for a while: its peer cannot change.
The client follows no redirects, takes no proxy, cookie or password from the environment, never decompresses a response
and reads only its beginning, all within one deadline.

    GuardError
    ├── InvalidUrl         rejected by its text, without network access
    ├── ForbiddenAddress   the host is not on the public internet
    ├── Unreachable        no connection: DNS, refused, TLS
    ├── NoReply            connected, but no complete response
    └── TimedOut           the deadline passed; the receiver may have processed the request
"""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.infra.addresses import literal, permitted
from app.infra.proxy import through
from app.settings import WebhookSettings

MAX_URL_LENGTH = 2048
LOOKUPS = 32
#: Idle connections are closed after this time.
KEEP_SECONDS = 15.0
MOST_REDIRECTS = 5

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,254}}$){_LABEL}(\.{_LABEL})*\.?")


class GuardError(Exception):
    """Base. The message is safe to show to the customer who supplied the URL."""


class InvalidUrl(GuardError):
    """The URL is rejected without network access. The message continues the sentence "The URL …"."""


class ForbiddenAddress(GuardError):
    """The host resolves to an address that customers may not call. No connection was made."""


class Unreachable(GuardError):
    """No connection could be made."""


class NoReply(GuardError):
    """The connection broke before the response was complete."""


class TimedOut(GuardError):
    """The deadline passed before the response was complete."""


@dataclass(frozen=True, slots=True)
class GuardedReply:
    """An HTTP response. ``headers`` have lower-case names; ``body_excerpt`` is its beginning, not decompressed."""

    status: int
    headers: Mapping[str, str]
    body_excerpt: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Download:
    """An HTTP response that is being received, not decompressed. ``chunks`` is read once."""

    status: int
    chunks: AsyncIterator[bytes]


def check_url(url: str, settings: WebhookSettings) -> None:
    """Validate the text of a URL when it is submitted. DNS is checked when it is called.

    Raises:
        InvalidUrl
    """
    _parse(url, settings)


def _parse(url: str, settings: WebhookSettings) -> URL:
    """Parse the URL with the HTTP client's own parser: two parsers could disagree about the host."""
    if len(url) > MAX_URL_LENGTH:
        raise InvalidUrl(f"must be at most {MAX_URL_LENGTH} characters long")
    if not url.isprintable() or " " in url or "\\" in url:
        raise InvalidUrl("must not contain spaces, backslashes or control characters")
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
    except (ValueError, IndexError):  # IndexError: yarl trips over "https://][x@"
        raise InvalidUrl("must be a valid URL") from None
    if parsed.scheme not in ({"https", "http"} if settings.allow_http else {"https"}):
        raise InvalidUrl("must start with https://")
    if not host or not port:
        raise InvalidUrl("must name a host and, where it names a port, one from 1 to 65535")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise InvalidUrl("must not contain a user name or a password")
    if "#" in url:
        raise InvalidUrl("must not contain a fragment (#…)")
    _check_host(host, settings)
    return _as_given(url, parsed)


def _as_given(url: str, parsed: URL) -> URL:
    """The same URL with path and query unchanged: the receiver may have signed them."""
    if not url.isascii():
        return parsed
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return URL(f"{parsed.origin()}{parts.path or '/'}{query}", encoded=True)


def _check_host(host: str, settings: WebhookSettings) -> None:
    try:
        address = literal(host)
    except ValueError:
        raise InvalidUrl("must name its host, or write its address in full, such as 8.8.8.8") from None
    if address is None and not _HOST_NAME.fullmatch(host):
        raise InvalidUrl("must name a valid host")
    if address is not None and not permitted(address, settings.allowed_networks):
        raise InvalidUrl("must lead to the public internet; its host is a private or reserved address")


class GuardedClient:
    """Sends POST requests to customers' URLs. Open one per process inside the running loop; close it at the end.

    With a ``proxy`` (its URL), the socket leads there. The host's addresses are then looked up and checked before the
    proxy is asked; it resolves the name once more, and must itself refuse what is inside.
    """

    def __init__(
        self, settings: WebhookSettings, *, resolver: AbstractResolver | None = None, proxy: str | None = None
    ) -> None:
        self.settings = settings
        self._proxy = through(proxy)
        self._resolver = resolver or _ThreadedResolver()
        self._keeping = self._session(keepalive_timeout=KEEP_SECONDS)
        self._once = self._session(force_close=True)

    def _session(self, **connections: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                use_dns_cache=False,
                resolver=self._resolver,
                socket_factory=None if self._proxy else self._open_socket,
                **connections,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"accept-encoding": "identity"},
            trace_configs=[_trace_reuse()],
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> GuardedReply:
        """Send one POST within ``settings.timeout`` seconds from DNS to the last byte read.

        Any status is a success here, also a redirect. At most ``settings.max_reply_bytes`` of the body are read. If the
        receiver closes a reused connection, the POST is sent a second time over a new one (never a third time), so the
        receiver must be able to recognise duplicates.

        Raises:
            InvalidUrl, ForbiddenAddress: nothing was sent.
            Unreachable, NoReply, TimedOut: see the module.
        """
        target = _parse(url, self.settings)
        try:
            async with asyncio.timeout(self.settings.timeout):
                if self._proxy:
                    await self._check_addresses(target)
                use = _Use()
                try:
                    return await self._post(self._keeping, target, headers, body, use)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    if not use.kept:
                        raise
                return await self._post(self._once, target, headers, body, _Use())
        except TimeoutError as error:
            raise TimedOut(f"no complete response within {self.settings.timeout:g} seconds") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _explained(error) from error

    async def _post(
        self, session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str], body: bytes, use: "_Use"
    ) -> GuardedReply:
        async with session.post(
            url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=use, **self._proxy
        ) as response:
            use.kept = False  # a response has started: a later failure is not due to the reuse of the connection
            excerpt = await _beginning(response, self.settings.max_reply_bytes)
            return GuardedReply(response.status, _lower(response.headers), excerpt)

    @asynccontextmanager
    async def get(self, url: str, *, timeout: float) -> AsyncIterator[Download]:
        """Send one GET without credentials. Redirects are followed, each target checked like the first.

        ``timeout`` is in seconds, from DNS to the end of the block.

        Raises:
            InvalidUrl, ForbiddenAddress: the URL, or one that it leads to, may not be called.
            Unreachable, NoReply, TimedOut: see the module. Also while ``chunks`` are read.
        """
        target = _parse(url, self.settings)
        try:
            async with asyncio.timeout(timeout):
                for _ in range(MOST_REDIRECTS + 1):
                    if self._proxy:
                        await self._check_addresses(target)
                    async with self._once.get(
                        target, allow_redirects=False, trace_request_ctx=_Use(), **self._proxy
                    ) as response:
                        location = response.headers.get("Location") if 300 <= response.status < 400 else None
                        if location is None:
                            yield Download(response.status, response.content.iter_any())
                            return
                        target = _parse(str(target.join(URL(location))), self.settings)
                raise Unreachable(f"it redirects more than {MOST_REDIRECTS} times")
        except TimeoutError as error:
            raise TimedOut(f"no complete response within {timeout:g} seconds") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _explained(error) from error

    async def close(self) -> None:
        await self._keeping.close()
        await self._once.close()
        await self._resolver.close()

    async def _check_addresses(self, target: URL) -> None:
        """All of them: the proxy may take any."""
        host = target.raw_host or ""
        if literal(host) is None:
            for found in await self._resolver.resolve(host, target.port or 0, socket.AF_UNSPEC):
                self._check_address(found["host"])

    def _check_address(self, address: str) -> None:
        if not permitted(ip_address(address), self.settings.allowed_networks):
            raise _AddressForbidden

    def _open_socket(self, target: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = target
        self._check_address(str(address[0]))
        return socket.socket(family, kind, protocol)


@dataclass(slots=True)
class _Use:
    """The use of a connection by one POST. ``kept``: the connection is reused."""

    kept: bool = False


def _trace_reuse() -> aiohttp.TraceConfig:
    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
        context.trace_request_ctx.kept = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace


class _AddressForbidden(OSError):
    """Raised by the socket factory. Always the same message, so that aiohttp does not combine several errors."""

    def __init__(self) -> None:
        super().__init__("the address is not on the public internet")


class _ThreadedResolver(AbstractResolver):
    """The system's resolver, in a separate thread pool.

    A look-up cannot be cancelled. In the event loop's default pool, a few names with a slow name server would delay all
    other look-ups, including those of the providers.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="look-up")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=0)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _beginning(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= limit:
            response.close()  # the rest may be endless
            break
    return bytes(body[:limit])


def _explained(error: Exception) -> GuardError:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, _AddressForbidden):
        return ForbiddenAddress("the host does not lead to the public internet")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unreachable(_why_unreachable(error))
    if isinstance(error, socket.gaierror):
        return Unreachable("the host name could not be resolved")
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Unreachable(f"the way out is closed: the proxy responded with HTTP {error.status}")
    if isinstance(error, ValueError):
        return InvalidUrl("must be a valid URL")
    return NoReply("the connection broke before the response was complete")


def _why_unreachable(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name could not be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "it cannot be verified")
        return f"the certificate was refused: {reason}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "a TLS connection could not be made"
    number = error.os_error.errno
    return f"no connection could be made: {os.strerror(number).lower() if number else 'several addresses failed'}"


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
