"""Bounds the requests that a process works on at once. Others wait in line; one that cannot gets a 503 before any work.

Without it, every request of a burst is begun, all take turns at the database, and all are slow together: clients give
up and try again, and the process works for clients that have gone. With it, the oldest requests finish.

The line is fair: callers take turns, so the hundredth request of one does not delay the first of another; and while
other callers are there, none has more than a few slots, so that a request meets little work of others. Strangers
and probes have few slots, and other lines.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.backoff import jittered
from app.errors import Unavailable
from app.web import problems
from app.web.bodies import Buffered, Streamed

#: How long a request waits in line, more or less: requests that came together are not refused together, which would
#: delay others. Less than most clients wait for a response.
PATIENCE_SECONDS = 2.0
RETRY_AFTER = 2.0
#: How long the refusal of a request too many is held back, likewise: a client that tries again at once would else keep
#: the process busy with refusals. The more are held back, the longer, so that their rate stays bounded.
REFUSAL_SECONDS = 1.0
LONGEST_REFUSAL_SECONDS = 5.0
REFUSALS_PER_SECOND = 200
#: The most slots of a caller while another one is there: has sent a request in these seconds.
SHARE = 4
PRESENT_SECONDS = 5.0
BUSY = "The gateway has more requests than it can work on just now; try again."
Result = TypeVar("Result")
_PROBES = frozenset({"/healthz", "/readyz"})
#: The slots of all who are no account, and those of probes.
STRANGERS = 4


class Slot:
    """The right of one request to be worked on, until the response starts or :meth:`release`."""

    __slots__ = ("_caller", "_line", "_released")

    def __init__(self, line: "Line", caller: str) -> None:
        self._line = line
        self._caller = caller
        self._released = False

    def release(self) -> None:
        """Let the next request in. Does nothing the second time."""
        if not self._released:
            self._released = True
            # In the next turn of the event loop: of the requests that await nothing, too, a turn works on few.
            asyncio.get_running_loop().call_soon(self._line.give_back, self._caller)


class _Presence:
    """Who has sent a request lately."""

    def __init__(self) -> None:
        self._last = self._other = ("", -PRESENT_SECONDS)  # the last two different callers, and when

    def note(self, caller: str) -> None:
        now = time.monotonic()
        if caller != self._last[0]:
            self._other = self._last
        self._last = caller, now

    def is_alone(self, caller: str) -> bool:
        other = self._other if self._last[0] == caller else self._last
        return time.monotonic() - other[1] > PRESENT_SECONDS


class Line:
    """``limit`` slots, and the requests that wait for one, by caller."""

    def __init__(self, limit: int, longest: int) -> None:
        self._free = limit
        self._longest = longest
        self._length = 0
        self._taken: Counter[str] = Counter()  # slots by caller
        self._waiting: dict[str, deque[asyncio.Future[Slot]]] = {}  # the first caller is next
        self._presence = _Presence()

    def __len__(self) -> int:
        """The number of requests that wait."""
        return self._length

    def take(self, caller: str) -> Slot | None:
        """A slot, if there is one for this caller."""
        self._presence.note(caller)
        self._hand_out()  # those who had to wait for others to leave
        if not self._free or not self._may_take(caller):
            return None
        return self._slot(caller)

    def _may_take(self, caller: str) -> bool:
        return self._taken[caller] < SHARE or self._presence.is_alone(caller)

    def _slot(self, caller: str) -> Slot:
        self._free -= 1
        self._taken[caller] += 1
        return Slot(self, caller)

    async def wait(self, caller: str, receive: Buffered | Streamed) -> Slot | None:
        """A slot as soon as it is this caller's turn; None if the client has gone by then.

        Raises:
            Unavailable: the line is full, or its end was not reached in time.
        """
        if self._length >= self._longest and not self._displace(caller):
            await hold_back(receive)
            raise Unavailable(BUSY, retry_after=RETRY_AFTER)
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        self._length += 1
        gone = asyncio.create_task(receive.disconnect())
        slot = None
        try:
            either: list[asyncio.Future[Any]] = [turn, gone]
            await asyncio.wait(either, timeout=jittered(PATIENCE_SECONDS), return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return None
            if not turn.done() or turn.cancelled():
                raise Unavailable(BUSY, retry_after=RETRY_AFTER)
            slot = turn.result()
            return slot
        finally:
            gone.cancel()
            if not turn.done():
                self._leave(caller, turn)
            elif slot is None and not turn.cancelled():
                turn.result().release()

    def give_back(self, caller: str) -> None:
        """Return a slot of this caller, for those who are next in line."""
        self._free += 1
        self._taken[caller] -= 1
        if not self._taken[caller]:
            del self._taken[caller]
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free:
            caller = next((caller for caller in self._waiting if self._may_take(caller)), None)
            if caller is None:
                return
            turns = self._waiting.pop(caller)
            turn = turns.popleft()
            if turns:
                self._waiting[caller] = turns  # behind the other callers
            self._length -= 1
            turn.set_result(self._slot(caller))

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

    def _leave(self, caller: str, turn: "asyncio.Future[Slot]") -> None:
        turns = self._waiting[caller]
        turns.remove(turn)
        if not turns:
            del self._waiting[caller]
        self._length -= 1


class Concurrency:
    """Three lines in front of an app: of accounts, of strangers by address, and of probes, which wait for neither.

    Inside ``BoundedBody``: who still sends a body does not occupy a slot.
    """

    def __init__(self, app: ASGIApp, *, limit: int, line: int, account_of: Callable[[Scope], str | None]) -> None:
        self._app = app
        self._account_of = account_of
        self.line = Line(limit, line)
        self.strangers = Line(STRANGERS, line)
        self.probes = Line(STRANGERS, line)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        line, caller = self._place(scope)
        slot = line.take(caller)
        if slot is None:
            assert isinstance(receive, Buffered | Streamed)
            try:
                slot = await line.wait(caller, receive)
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

    def _place(self, scope: Scope) -> tuple[Line, str]:
        if problems.path_of(scope) in _PROBES:
            return self.probes, network_of(scope)
        account = self._account_of(scope)
        return (self.line, account) if account else (self.strangers, network_of(scope))


def network_of(scope: Scope) -> str:
    """The client's address; of IPv6 the network, all of which one client can have."""
    try:
        address = ip_address(scope["client"][0])
    except (TypeError, ValueError):
        return ""
    return str(address) if address.version == 4 else str(ip_network((address, 64), strict=False))


def release(request: Request) -> None:
    """Let the next request in: this one only waits from now on."""
    slot: Slot | None = request.scope.get("state", {}).get("slot")
    if slot is not None:
        slot.release()


class _HeldBack:
    """The refusals of this process that wait to be sent."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def seconds(self) -> float:
        return min(max(REFUSAL_SECONDS, self._count / REFUSALS_PER_SECOND), LONGEST_REFUSAL_SECONDS)

    async def one(self, receive: Receive) -> None:
        self._count += 1
        try:
            async with asyncio.timeout(jittered(self.seconds)):
                await _disconnect(receive)
        except TimeoutError:
            pass
        finally:
            self._count -= 1


_held_back = _HeldBack()


async def hold_back(receive: Receive) -> None:
    """Wait for a moment, or until the client has gone: refused, many clients ask again at once."""
    await _held_back.one(receive)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of ``work``; ends it when the client hangs up.

    Raises:
        Unavailable: the client has gone, and will not read it.
    """
    working, gone = asyncio.create_task(work), asyncio.create_task(_disconnect(request.receive))
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
