"""The one client for every URL that a customer gives us.

It decides about the *address*, at the moment the socket is made and after DNS, so no spelling, no rebinding and no
record of the customer's name server gets around it. A connection that was permitted is kept for a while: its other end
cannot change. It follows no redirect, takes no proxy, cookie or password from its surroundings, never unpacks a reply
and reads only its beginning, all within one deadline.

    GuardError
    ├── InvalidUrl         refused by its text, without a look at the network
    ├── ForbiddenAddress   the host is not on the public internet
    ├── Unreachable        no connection: DNS, refused, TLS
    ├── NoReply            connected, and no whole reply came back
    └── TimedOut           the deadline passed; what happened is not known
"""

import asyncio
import os
import re
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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
from app.settings import WebhookSettings

MAX_URL_LENGTH = 2048
LOOKUPS = 32
#: A connection that nobody uses is closed after so long.
KEEP_SECONDS = 15.0

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,254}}$){_LABEL}(\.{_LABEL})*\.?")


class GuardError(Exception):
    """Base. The text is safe to show to the customer who gave us the URL."""


class InvalidUrl(GuardError):
    """The URL can be refused without a look at the network. The text goes on from "the URL"."""


class ForbiddenAddress(GuardError):
    """The host leads to an address that no customer may make us call. No connection was made."""


class Unreachable(GuardError):
    """No connection could be made."""


class NoReply(GuardError):
    """A connection was made, and broke before the reply was complete."""


class TimedOut(GuardError):
    """The deadline passed before the reply was complete."""


@dataclass(frozen=True, slots=True)
class GuardedReply:
    """One HTTP answer. ``headers`` have lower-case names; of the body only the beginning is read, still packed."""

    status: int
    headers: Mapping[str, str]
    body_excerpt: bytes = field(repr=False)


def check_url(url: str, settings: WebhookSettings) -> None:
    """Refuse what is wrong with a URL's text, early, in words that help. DNS is looked at when it is called.

    Raises:
        InvalidUrl
    """
    _parse(url, settings)


def _parse(url: str, settings: WebhookSettings) -> URL:
    """The URL, read by the very parser that the client uses: two parsers could disagree about the host."""
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
    """The same URL with its path and query untouched: a receiver may have signed them as they stand."""
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
    """POSTs to customers' URLs. Open one per process inside the running loop, and close it at the end."""

    def __init__(self, settings: WebhookSettings, *, resolver: AbstractResolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver or _OwnThreads()
        self._keeping = self._session(keepalive_timeout=KEEP_SECONDS)
        self._once = self._session(force_close=True)

    def _session(self, **connections: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                use_dns_cache=False,
                resolver=self._resolver,
                socket_factory=self._open_socket,
                **connections,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            headers={"accept-encoding": "identity"},
            trace_configs=[_noting_reuse()],
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> GuardedReply:
        """Send one POST within ``settings.timeout`` seconds from DNS to the last byte read.

        Any status is an answer, a redirect too. Of the reply at most ``settings.max_reply_bytes`` are read. A kept
        connection may have been closed by the other side just then; the POST is sent once more over a new one, so the
        receiver must be able to know a second copy for what it is. There is never a third.

        Raises:
            InvalidUrl, ForbiddenAddress: nothing was sent.
            Unreachable, NoReply, TimedOut: as their names say.
        """
        target = _parse(url, self._settings)
        try:
            async with asyncio.timeout(self._settings.timeout):
                use = _Use()
                try:
                    return await self._post(self._keeping, target, headers, body, use)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    if not use.kept:
                        raise
                return await self._post(self._once, target, headers, body, _Use())
        except TimeoutError as error:
            raise TimedOut(f"no complete answer within {self._settings.timeout:g} seconds") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _explained(error) from error

    async def _post(
        self, session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str], body: bytes, use: "_Use"
    ) -> GuardedReply:
        async with session.post(
            url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=use
        ) as response:
            use.kept = False  # there is an answer: what breaks from now on is not the connection's age
            excerpt = await _beginning(response, self._settings.max_reply_bytes)
            return GuardedReply(response.status, _lower(response.headers), excerpt)

    async def close(self) -> None:
        await self._keeping.close()
        await self._once.close()
        await self._resolver.close()

    def _open_socket(self, target: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = target
        if not permitted(ip_address(address[0]), self._settings.allowed_networks):
            raise _Refused
        return socket.socket(family, kind, protocol)


@dataclass(slots=True)
class _Use:
    """Of a connection, by one POST. ``kept``: another POST went over it before."""

    kept: bool = False


def _noting_reuse() -> aiohttp.TraceConfig:
    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
        context.trace_request_ctx.kept = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace


class _Refused(OSError):
    """Raised where the client expects a socket. One text for all, so that the client does not merge several of them."""

    def __init__(self) -> None:
        super().__init__("the address is not on the public internet")


class _OwnThreads(AbstractResolver):
    """The system's resolver, in threads of its own.

    A look-up cannot be stopped. In the loop's shared threads, a few names with a slow name server would hold up
    everybody else's look-ups, those of the providers too.
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
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, _Refused):
            return ForbiddenAddress("the host does not lead to the public internet")
        return Unreachable(_why_unreachable(error))
    if isinstance(error, ValueError):
        return InvalidUrl("must be a valid URL")
    return NoReply("the connection broke before the answer was complete")


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
