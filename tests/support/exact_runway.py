"""A provider in Runway's dialect that says exactly what a test wants, and counts what it was asked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from app.settings import Settings

ORDER: Mapping[str, Any] = {"model": "runway/gen4.5", "seconds": 2, "size": "1280x720"}
ACCEPTED = '{"id": "task-1"}'
RUNNING = '{"id": "task-1", "status": "RUNNING", "progress": 0.5}'


@dataclass(frozen=True, slots=True)
class Say:
    """One answer, as it goes over the wire."""

    text: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Upstream:
    """``create``, ``status`` and ``delete`` are what it says from now on; None hangs until the test ends."""

    def __init__(self) -> None:
        self.url = ""
        self.create: Say | None = Say(ACCEPTED)
        self.status: Say | None = Say(RUNNING)
        self.delete: Say | None = Say("", 204)
        self.asked: Counter[str] = Counter()
        self._over = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked[request.method] += 1
        say = {"POST": self.create, "GET": self.status, "DELETE": self.delete}[request.method]
        if say is None:
            await self._over.wait()
            return web.Response(status=503)
        content_type = None if say.status == 204 else "application/json"
        return web.Response(text=say.text, status=say.status, headers=say.headers, content_type=content_type)

    def release(self) -> None:
        """End every answer that hangs."""
        self._over.set()


@asynccontextmanager
async def running_upstream() -> AsyncIterator[Upstream]:
    """One on a free loopback port."""
    upstream = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", upstream.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield upstream
    finally:
        upstream.release()
        await runner.cleanup()


def served_by(settings: Settings, upstream: Upstream, **connection: object) -> Settings:
    """The same gateway with this provider behind Runway's models."""
    changed = settings.connections["sandbox-runway"].model_copy(update={"base_url": upstream.url, **connection})
    return settings.model_copy(update={"connections": {"sandbox-runway": changed}})
