"""A customer's webhook receiver: a real HTTP server on loopback that answers from a script and keeps what it got."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import IPv4Network
from typing import Any

from aiohttp import web

from app.settings import WebhookSettings
from tests.support.http_server import every_request, serving

LOOPBACK = (IPv4Network("127.0.0.0/8"),)
CHUNK = b"x" * 65_536


class Body(Enum):
    """Bodies that do not end as they should."""

    HANGING = auto()  # not even a status line
    DRIPPING = auto()  # a status line, a byte, and then nothing
    ENDLESS = auto()  # for as long as somebody reads
    CUT = auto()  # less than was announced


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver says to one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body = b"ok"


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Receiver:
    """``received`` grows with each request; answers are taken from the script, then 200 for ever."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.url = ""
        self.port = 0
        self.bytes_sent = 0
        self._script: deque[Answer] = deque()
        self._news = asyncio.Condition()
        self._over = asyncio.Event()
        self._at_work = 0

    def will_answer(self, *answers: Answer | int) -> None:
        """Add to the script: whole answers, or just their status."""
        self._script.extend(Answer(answer) if isinstance(answer, int) else answer for answer in answers)

    async def wait_for(self, count: int) -> list[Received]:
        """Return once so many requests have come in all."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.received) >= count)
        return self.received

    def release(self) -> None:
        """End every answer that hangs or drips."""
        self._over.set()

    async def idle(self) -> None:
        """Return once no request is being answered."""
        async with self._news:
            await self._news.wait_for(lambda: self._at_work == 0)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self._at_work += 1
        try:
            return await self._answer(request)
        finally:
            self._at_work -= 1
            async with self._news:
                self._news.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path_qs, headers, body))
        async with self._news:
            self._news.notify_all()
        answer = self._script.popleft() if self._script else Answer()
        if isinstance(answer.body, bytes):
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        if answer.body is Body.HANGING:
            await self._over.wait()
            return web.Response(status=answer.status)
        return await self._stream(request, answer, answer.body)

    async def _stream(self, request: web.Request, answer: Answer, body: Body) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if body is Body.CUT:
            response.content_length = 1000
        await response.prepare(request)
        await response.write(b"x")
        if body is Body.CUT:
            assert request.transport is not None
            request.transport.close()
        elif body is Body.DRIPPING:
            await self._over.wait()
        while body is Body.ENDLESS:
            await response.write(CHUNK)
            self.bytes_sent += len(CHUNK)
        return response


@asynccontextmanager
async def running_receiver(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A receiver on a free port of a loopback address."""
    receiver = Receiver()
    async with serving(every_request(receiver.handle), host, handler_cancellation=True) as url:
        receiver.port = int(url.rpartition(":")[2])
        receiver.url = f"{url}/hook"
        try:
            yield receiver
        finally:
            receiver.release()


def loopback_settings(**values: Any) -> WebhookSettings:
    """Settings under which a receiver on loopback may be called."""
    return WebhookSettings(**{"allow_http": True, "allowed_networks": LOOPBACK, **values})
