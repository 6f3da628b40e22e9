"""Handlers behind a real HTTP server, and answers that a test writes down."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Say:
    """One answer, as it goes over the wire."""

    text: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        """The answer as aiohttp's."""
        content_type = None if self.status == 204 else "application/json"
        return web.Response(text=self.text, status=self.status, headers=self.headers, content_type=content_type)


@asynccontextmanager
async def serving(
    app: web.Application,
    host: str = "127.0.0.1",
    *,
    handler_cancellation: bool = False,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[str]:
    """The URL of the application on a free port of a loopback address, over TLS with a context for it."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=handler_cancellation)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=ssl_context).start()
        yield f"{'https' if ssl_context else 'http'}://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def every_request(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.Application:
    """An application with one handler for all it is asked."""
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", handle)
    return app
