"""Bounds the requests that a process works on at once. Others wait in line; one that cannot gets a 503 before any work.

Without it, every request of a burst is begun, all take turns at the database, and all are slow together: clients give
up and try again, and the process works for clients that have gone. With it, the oldest requests finish.

The line is fair: callers take turns, so the hundredth request of one does not delay the first of another. Health checks
do not wait.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Unavailable
from app.web import problems
from app.web.bodies import Buffered

#: Less than most clients wait for a response.
PATIENCE_SECONDS = 2.0
RETRY_AFTER = 2.0
BUSY = "The gateway has more requests than it can work on just now; try again."
Result = TypeVar("Result")
_OUTSIDE = frozenset({"/healthz", "/readyz", "/metrics"})


class Slot:
    """The right of one request to be worked on, until the response starts or :meth:`release`."""

    __slots__ = ("_line", "_released")

    def __init__(self, line: "Line") -> None:
        self._line = line
        self._released = False

    def release(self) -> None:
        """Let the next request in. Does nothing the second time."""
        if not self._released:
            self._released = True
            self._line.next()


class Line:
    """``limit`` slots, and the requests that wait for one, by caller."""

    def __init__(self, limit: int, longest: int) -> None:
        self._free = limit
        self._longest = longest
        self._length = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the first caller is next

    def __len__(self) -> int:
        """The number of requests that wait."""
        return self._length

    def take(self) -> Slot | None:
        """A slot, if one is free."""
        if not self._free:
            return None
        self._free -= 1
        return Slot(self)

    async def wait(self, caller: str, receive: Buffered) -> Slot | None:
        """A slot as soon as it is this caller's turn; None if the client has gone by then.

        Raises:
            Unavailable: the line is full, or its end was not reached in time.
        """
        if self._length >= self._longest and not self._displace(caller):
            raise Unavailable(BUSY, retry_after=RETRY_AFTER)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        self._length += 1
        gone = asyncio.create_task(receive.disconnect())
        slot = None
        try:
            either: list[asyncio.Future[Any]] = [turn, gone]
            await asyncio.wait(either, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if turn.done() and turn.cancelled():
                raise Unavailable(BUSY, retry_after=RETRY_AFTER)
            if turn.done() and not gone.done():
                slot = Slot(self)
            elif not gone.done():
                raise Unavailable(BUSY, retry_after=RETRY_AFTER)
            return slot
        finally:
            gone.cancel()
            if not turn.done():
                self._leave(caller, turn)
            elif slot is None and not turn.cancelled():
                self.next()

    def next(self) -> None:
        """Give the slot of a request that has ended to the next in line."""
        if not self._waiting:
            self._free += 1
            return
        caller, turns = next(iter(self._waiting.items()))
        turn = turns.popleft()
        del self._waiting[caller]
        if turns:
            self._waiting[caller] = turns  # behind the other callers
        self._length -= 1
        turn.set_result(None)

    def _displace(self, caller: str) -> bool:
        """Refuse the newest request of the caller with the most in line, if ``caller`` has fewer."""
        if not self._waiting:
            return False
        longest = max(self._waiting, key=lambda name: len(self._waiting[name]))
        if len(self._waiting[longest]) <= len(self._waiting.get(caller, ())) + 1:
            return False
        turn = self._waiting[longest].pop()
        self._length -= 1
        turn.cancel()
        return True

    def _leave(self, caller: str, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting[caller]
        turns.remove(turn)
        if not turns:
            del self._waiting[caller]
        self._length -= 1


class Concurrency:
    """The line in front of an app. Inside ``BoundedBody``: who still sends a body does not occupy a slot."""

    def __init__(self, app: ASGIApp, *, limit: int, line: int) -> None:
        self._app = app
        self.line = Line(limit, line)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or problems.path_of(scope) in _OUTSIDE:
            await self._app(scope, receive, send)
            return
        slot = self.line.take()
        if slot is None:
            assert isinstance(receive, Buffered)
            try:
                slot = await self.line.wait(_caller(scope), receive)
            except Unavailable as error:
                await problems.respond(scope, error)(scope, receive, send)
                return
            if slot is None:
                return
        scope.setdefault("state", {})["slot"] = slot

        async def releasing(message: Message) -> None:
            # From here on, the pace is the client's.
            slot.release()
            await send(message)

        try:
            await self._app(scope, receive, releasing)
        finally:
            slot.release()


def release(request: Request) -> None:
    """Let the next request in: this one only waits from now on."""
    slot: Slot | None = request.scope.get("state", {}).get("slot")
    if slot is not None:
        slot.release()


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of ``work``; ends it when the client hangs up.

    Raises:
        Unavailable: the client has gone, and will not read it.
    """

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, gone = asyncio.create_task(work), asyncio.create_task(disconnect())
    try:
        either: list[asyncio.Future[Any]] = [working, gone]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Unavailable("The client has gone.")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


def _caller(scope: Scope) -> str:
    """Whose turn it is. Unauthenticated: it decides about nothing but the order."""
    client = scope.get("client")
    return Headers(scope=scope).get("authorization") or (client[0] if client else "")
