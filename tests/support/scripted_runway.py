"""A provider in Runway's dialect that says what a test wants.

``Upstream`` has one answer for each method; ``Studio`` keeps a book: many renders at once, each with a scripted end.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from app.connection_settings import ConnectionSettings, ModelSettings
from app.settings import Settings
from tests.support.http_server import Say, every_request, serving
from tests.support.sample_videos import video

ORDER: Mapping[str, Any] = {"model": "runway/gen4.5", "seconds": 2, "size": "1280x720"}
ACCEPTED = '{"id": "task-1"}'
UNDER_WAY = '{"id": "task-1", "status": "RUNNING", "progress": 0.5}'

MAIN, OTHER, UNPRICED = "studio/main", "studio/other", "studio/unpriced"
FACTS = {
    "provider": "runway",
    "upstream": "main",
    "seconds": [1, 2, 4],
    "default_seconds": 1,
    "sizes": ["128x96", "160x96"],
    "default_size": "128x96",
    "options": ["contentModeration"],
    "usd_per_second": "0.10",
    "typical_seconds": 10,
}
OTHER_FACTS = {
    **FACTS,
    "upstream": "other",
    "seconds": [1, 2],
    "sizes": ["128x96", "96x128"],
    "options": [],
    "usd_per_second": "0.20",
}
MODELS = {MAIN: FACTS, OTHER: OTHER_FACTS, UNPRICED: {**FACTS, "usd_per_second": None}}

RUNNING: Mapping[str, Any] = {"status": "RUNNING", "progress": 0.5}
SUCCEEDED: Mapping[str, Any] = {"status": "SUCCEEDED"}
FORGOTTEN: Mapping[str, Any] = {}
FAILED_FREE: Mapping[str, Any] = {"status": "FAILED", "failureCode": "INTERNAL", "cost": {"credits": 0}}

BUSY = Say('{"error": "Too many requests."}', 429)
DENIED = Say('{"error": "Invalid API key."}', 401)
BROKE = Say('{"error": "You do not have enough credits to run this task."}', 400)
BAD_INPUT = Say('{"error": "Validation of body failed: ratio must be another one."}', 400)
BAD_PROMPT = Say('{"error": "The prompt violates our content policy."}', 400)


def busy_for(seconds: int) -> Say:
    return Say(BUSY.text, 429, {"Retry-After": str(seconds)})


class Upstream:
    """``create``, ``status`` and ``delete`` are what it says from now on; None hangs until the test ends."""

    def __init__(self) -> None:
        self.url = ""
        self.create: Say | None = Say(ACCEPTED)
        self.status: Say | None = Say(UNDER_WAY)
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
        return say.response()

    def release(self) -> None:
        """End every answer that hangs."""
        self._over.set()


@asynccontextmanager
async def running_upstream() -> AsyncIterator[Upstream]:
    """One on a free loopback port."""
    upstream = Upstream()
    async with serving(every_request(upstream.handle)) as upstream.url:
        try:
            yield upstream
        finally:
            upstream.release()


def served_by(settings: Settings, upstream: Upstream, **connection: object) -> Settings:
    """The same gateway with this provider behind Runway's models."""
    changed = settings.connections["sandbox-runway"].model_copy(update={"base_url": upstream.url, **connection})
    return settings.model_copy(update={"connections": {"sandbox-runway": changed}})


def opened() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


@dataclass
class Render:
    """One record. ``says`` overrules what the studio says of all; a closed ``gate`` holds its status requests up."""

    remote_id: str
    order: Mapping[str, Any]
    says: Mapping[str, Any] | None = None
    ended: bool = False
    held: int = 0
    gate: asyncio.Event = field(default_factory=opened)


@dataclass
class Studio:
    """``answers`` are for the next creates, then ``refusal`` for all, or acceptance.

    A closed ``gate`` holds creates up. ``says`` is of every render, but for those of the upstream models in
    ``by_model``. ``content`` is served in place of the video that was ordered, with those ``headers``.
    """

    url: str = ""
    answers: deque[Say] = field(default_factory=deque)
    refusal: Say | None = None
    limit_credits: int | None = None
    says: Mapping[str, Any] = field(default_factory=lambda: SUCCEEDED)
    by_model: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    renders: list[Render] = field(default_factory=list)
    orders: list[Mapping[str, Any]] = field(default_factory=list)
    most_live: int = 0
    cancels: int = 0
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    downloads: int = 0
    gate: asyncio.Event = field(default_factory=opened)
    _arriving: int = 0
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    def open_gates(self) -> None:
        """Hold nothing up any more."""
        for gate in (self.gate, *(render.gate for render in self.renders)):
            gate.set()

    @property
    def live(self) -> int:
        """Renders under way, with those about to be."""
        return self._arriving + sum(not render.ended for render in self.renders)

    async def until(self, met: Callable[[], bool]) -> None:
        """Return once something holds; looked at after each request."""
        async with self._news:
            await self._news.wait_for(met)

    async def ordered(self, count: int) -> None:
        """Return once so many creates have come in all."""
        await self.until(lambda: len(self.orders) >= count)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    @web.middleware
    async def told(self, request: web.Request, handler: Any) -> web.StreamResponse:
        answer: web.StreamResponse = await handler(request)
        await self._tell()
        return answer

    async def create(self, request: web.Request) -> web.Response:
        order = json.loads(await request.read())
        self._arriving += 1
        self.most_live = max(self.most_live, self.live)
        self.orders.append(order)
        await self._tell()
        await self.gate.wait()
        self._arriving -= 1
        refusal = self.answers.popleft() if self.answers else self.refusal
        if refusal is not None:
            return refusal.response()
        render = Render(f"task-{self.url[-5:]}-{len(self.renders) + 1}", order)
        self.renders.append(render)
        reply: dict[str, Any] = {"id": render.remote_id}
        if self.limit_credits is not None:
            reply["estimatedCost"] = {"credits": self.limit_credits}
        return web.json_response(reply)

    async def status(self, request: web.Request) -> web.Response:
        render = next(one for one in self.renders if one.remote_id == request.match_info["id"])
        render.held += 1
        await self._tell()
        await render.gate.wait()
        render.held -= 1
        says = render.says or self.by_model.get(render.order["model"], self.says)
        if says is FORGOTTEN:
            return web.json_response({"error": "No such task."}, status=404)
        render.ended = says["status"] != "RUNNING"
        video_url = f"{self.url}/videos/{render.order['ratio'].replace(':', 'x')}/{render.order['duration']}"
        output = {"output": [video_url]} if says is SUCCEEDED else {}
        return web.json_response({"id": render.remote_id, **output, **says})

    async def cancel(self, request: web.Request) -> web.Response:
        del request
        self.cancels += 1
        return web.Response(status=204)

    async def show(self, request: web.Request) -> web.Response:
        width, height = map(int, request.match_info["size"].split("x"))
        seconds = int(request.match_info["seconds"])
        self.downloads += 1
        body = self.content or video(seconds=seconds, width=width, height=height)
        return web.Response(body=body, content_type="video/mp4", headers=self.headers)


@asynccontextmanager
async def running_studio() -> AsyncIterator[Studio]:
    """One on a free loopback port."""
    studio = Studio()
    app = web.Application(middlewares=[studio.told])
    app.router.add_post("/v1/text_to_video", studio.create)
    app.router.add_get("/v1/tasks/{id}", studio.status)
    app.router.add_delete("/v1/tasks/{id}", studio.cancel)
    app.router.add_get("/videos/{size}/{seconds}", studio.show)
    async with serving(app) as studio.url:
        try:
            yield studio
        finally:
            studio.open_gates()


@pytest.fixture
async def first() -> AsyncIterator[Studio]:
    """A provider."""
    async with running_studio() as studio:
        yield studio


@pytest.fixture
async def second() -> AsyncIterator[Studio]:
    """Another one."""
    async with running_studio() as studio:
        yield studio


def served_by_studios(
    settings: Settings, connections: Mapping[str, Mapping[str, Any]], **jobs: float | int
) -> Settings:
    """The same gateway with these connections alone, in that order; ``jobs`` are laid over the settings of jobs."""
    defaults = {"provider": "runway", "api_key": "key", "poll_interval": 0.05, "max_concurrent": 20}
    return settings.model_copy(
        update={
            "connections": {
                name: ConnectionSettings.model_validate({**defaults, **values}) for name, values in connections.items()
            },
            "models": settings.models | {name: ModelSettings.model_validate(facts) for name, facts in MODELS.items()},
            "aliases": {"best": MAIN},
            "jobs": settings.jobs.model_copy(update=dict(jobs)),
        }
    )
