"""The HTTP clients that requests to providers share, and the addresses that each may reach."""

import asyncio
import errno
import socket
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

import aiohttp
from yarl import URL

from app.infra.addresses import is_metadata, permitted

USER_AGENT: Final = "filmgate"


class Clients:
    """The HTTP clients of a process. Create once inside the running loop, share, close at shutdown.

    ``proxy`` is the URL of the proxy of all connections without another one.
    """

    def __init__(self, *, connections: int = 200, proxy: str | None = None) -> None:
        self.proxy = proxy
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_mark_connected)
        trace.on_connection_reuseconn.append(_mark_connected)
        common: dict[str, Any] = {
            "trace_configs": [trace],
            "timeout": aiohttp.ClientTimeout(total=None),
            "cookie_jar": aiohttp.DummyCookieJar(),
            # No compression: Content-Length is the length of the video. A download that is encoded nevertheless is
            # decoded in bounded pieces.
            "headers": {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            "auto_decompress": False,
        }
        self.shared = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections), **common)
        self.guarded = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, socket_factory=partial(_open, private=False)), **common
        )
        self.private = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, socket_factory=partial(_open, private=True)), **common
        )
        # No keep-alive: if a reused connection closes during the write, it is unknown what the server received.
        self.paid = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), **common)

    async def close(self) -> None:
        await asyncio.gather(*(one.close() for one in (self.shared, self.guarded, self.private, self.paid)))


async def check_host(url: URL, *, private: bool) -> None:
    """Check a result's host before a proxy is asked for it; ``private``: private addresses are allowed.

    A name that does not resolve here is left to the proxy: hosts that need one often know internal names
    only, and the proxy resolves the name once more in any case.

    Raises:
        OSError: it leads to an address that no result may name.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host or "", url.port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return
    for *_, address in found:
        _check(str(address[0]), private=private)


def _check(address: str, *, private: bool) -> None:
    # With an errno: aiohttp shows the text of no other error.
    if private and is_metadata(ip_address(address)):
        raise OSError(errno.EACCES, "the address is a cloud's metadata service, which no result may name")
    if not private and not permitted(ip_address(address)):
        raise OSError(errno.EACCES, "the address is not on the public internet; private_results would allow it")


# Checks the resolved address, which alternative spellings, redirects and DNS rebinding cannot bypass.
def _open(target: aiohttp.AddrInfoType, *, private: bool) -> socket.socket:
    family, kind, protocol, _, address = target
    _check(str(address[0]), private=private)
    return socket.socket(family, kind, protocol)


async def _mark_connected(_session: aiohttp.ClientSession, context: Any, _parameters: Any) -> None:
    context.trace_request_ctx.connected = True
