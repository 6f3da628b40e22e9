"""A proxy that a test puts between two parts: it passes everything on, keeps what it saw, and meddles where it is told.

In front of a provider it loses replies and hides records; in front of our API it is the public address that providers
call back.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from app.settings import Settings
from tests.support.http_server import Say, every_request, serving

#: What a test waits for comes within a moment, or never.
PATIENCE_SECONDS = 120
HOP_BY_HOP = {"connection", "content-length", "keep-alive", "transfer-encoding"}


class Meddle(Enum):
    """What becomes of a request instead of being passed on with its reply."""

    LOSE = auto()  # passed on; the connection is dropped without a reply
    DROP = auto()  # not passed on; the connection is dropped without a reply
    HOLD = auto()  # passed on; the reply waits for `release`


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that was passed on, and what the target said."""

    asked: Asked
    status: int
    text: str


#: Decides about one request; None passes it on.
Rule = Callable[[Asked], Say | Meddle | None]


def always(answer: Say | Meddle) -> Rule:
    """The same answer to everybody."""
    return lambda _: answer


class Between:
    """``target`` is where requests go; ``asked`` holds all of them in order, ``passed`` what the target answered."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.url = ""
        self.asked: list[Asked] = []
        self.passed: list[Passed] = []
        self._rules: dict[tuple[str, str], Rule] = {}
        self._news = asyncio.Condition()
        self._released = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    def on(self, method: str, part: str, rule: Rule | Say | Meddle) -> None:
        """From now on let a rule decide about requests with this method and these words in their path."""
        self._rules[method, part] = rule if callable(rule) else always(rule)

    def off(self, method: str, part: str) -> None:
        """Pass those on again."""
        del self._rules[method, part]

    def seen(self, method: str, part: str = "", saying: bytes = b"") -> list[Asked]:
        """The requests so far with this method, these words in their path, and those in their body."""
        return [one for one in self.asked if one.method == method and part in one.path and saying in one.body]

    async def wait_for(self, method: str, part: str = "", saying: bytes = b"", *, count: int = 1) -> list[Asked]:
        """Return once there were so many of them."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._news:
            await self._news.wait_for(lambda: len(self.seen(method, part, saying)) >= count)
        return self.seen(method, part, saying)

    def release(self) -> None:
        """Let every reply go that was held, now and from now on."""
        self._released.set()

    async def handle(self, request: web.Request) -> web.Response:
        asked = Asked(request.method, request.raw_path, dict(request.headers), await request.read())
        async with self._news:
            self.asked.append(asked)
            self._news.notify_all()
        rules = [rule for (method, part), rule in self._rules.items() if method == asked.method and part in asked.path]
        decisions = [decision for rule in reversed(rules) if (decision := rule(asked)) is not None]
        match decisions[0] if decisions else None:
            case Say() as say:
                content_type = None if say.status == 204 else "application/json"
                return web.Response(text=say.text, status=say.status, headers=say.headers, content_type=content_type)
            case Meddle.DROP:
                return _hang_up(request)
            case Meddle.LOSE:
                await self.forward(asked)
                return _hang_up(request)
            case Meddle.HOLD:
                reply = await self.forward(asked)
                await self._released.wait()
                return reply
        return await self.forward(asked)

    async def forward(self, asked: Asked) -> web.Response:
        assert self._session is not None
        headers = {name: value for name, value in asked.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._session.request(
            asked.method,
            URL(self.target + asked.path, encoded=True),
            headers=headers,
            data=asked.body or None,
            allow_redirects=False,
        ) as reply:
            body = await reply.read()
            self.passed.append(Passed(asked, reply.status, body.decode(errors="replace")))
            kept = {name: value for name, value in reply.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(body=body, status=reply.status, headers=kept)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Between"]:
        client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )
        async with client as self._session, serving(every_request(self.handle)) as self.url:
            try:
                yield self
            finally:
                self.release()


def _hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@asynccontextmanager
async def between(target: str = "") -> AsyncIterator[Between]:
    """One on a free loopback port."""
    async with Between(target).running() as running:
        yield running


def behind(settings: Settings, proxy: Between, **fields: object) -> Settings:
    """The same gateway, with the proxy before each of its providers; ``fields`` are laid over every connection."""
    moved = {
        name: connection.model_copy(
            update={"base_url": str(connection.base_url).replace(proxy.target, proxy.url), **fields}
        )
        for name, connection in settings.connections.items()
    }
    return settings.model_copy(update={"connections": moved})
