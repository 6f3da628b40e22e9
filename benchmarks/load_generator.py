"""A minimal HTTP/1.1 load generator with keep-alive connections, run as a separate process.

Each line on standard input is a :class:`Plan` as JSON; its :class:`Count` is written to standard output. Requests are
prebuilt bytes. Of a response, only the status, which must be the expected one, and the content-length are parsed.
"""

import asyncio
import gc
import json
import math
import random
import resource
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count, cycle
from typing import Any, cast

import uvloop

#: Placeholder for a number that is unique to each request; nine digits, so that the length never changes.
MARK = "#########"
EXCERPT = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """The load of one window: ``callers`` connections, each with one request at a time.

    ``targets`` are requested round-robin. ``body`` and ``headers`` may contain :data:`MARK`. ``seconds`` are measured
    after ``warmup`` seconds; with ``requests``, exactly that many are sent and all of them are measured.

    ``expect`` is the status that every response must have; None is a flood, to which every response is welcome.
    """

    port: int
    targets: list[str]
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    expect: int | None = 200
    callers: int = 16
    seconds: float = 5.0
    warmup: float = 0.3
    requests: int | None = None
    host: str = "127.0.0.1"
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """The result of a window. Times are milliseconds; ``cpu`` is the generator's share of a core; ``total`` includes
    the warm-up and requests in progress at the end. ``failure`` is the first error, which invalidates the window."""

    requests: int
    total: int
    seconds: float
    rate: float
    p50: float
    p90: float
    p99: float
    longest: float
    cpu: float
    bytes: int = 0
    failure: str | None = None


class Window:
    """A running window, shared by its callers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = prepared(plan)
        self.times = array("d")
        self.total = 0
        self.bytes = 0
        self.left = plan.requests
        self.failure: str | None = None
        self.measured_from = 0.0
        self.until = float("inf")

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.until = 0.0

    def next(self) -> bytes | None:
        """The next request to send; None when the window is over."""
        if self.left is not None:
            if not self.left or self.failure:
                return None
            self.left -= 1
        elif time.perf_counter() >= self.until:
            return None
        return next(self.requests)

    def took(self, sent: float) -> None:
        now = time.perf_counter()
        self.total += 1
        if now >= self.measured_from and (self.left is not None or now <= self.until):
            self.times.append(now - sent)


class Caller(asyncio.Protocol):
    """One connection: sends a request, waits for the whole response, sends the next."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._expected = str(window.plan.expect).encode()
        self._buffer = b""
        self._missing = 0  # bytes still to come of the current body
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class does not inherit from it

    def send(self) -> None:
        assert self._transport is not None
        request = self._window.next()
        if request is None:
            self.end()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._window.bytes += len(data)
        if self._missing:
            self._missing -= len(data)
            if self._missing <= 0:
                self._complete()
            return
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            return
        length = _content_length(data[:end])
        if data[9:12] != self._expected or length is None:
            reason = "no content-length" if length is None else f"HTTP {data[9:12].decode(errors='replace')}"
            self._window.fail(f"{reason}: {data[:EXCERPT].decode(errors='replace')}")
            self.end()
            return
        self._buffer = b""
        self._missing = length - (len(data) - end - 4)
        if self._missing <= 0:
            self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._window.fail(f"connection lost: {exc!r}")
            self.end()

    def _complete(self) -> None:
        self._missing = 0
        self._window.took(self._sent)
        if self._window.plan.rate is None:
            self.send()
        else:
            pause = self._sent + self._window.plan.callers / self._window.plan.rate - time.perf_counter()
            asyncio.get_running_loop().call_later(max(0.0, pause), self.send)

    def end(self) -> None:
        """Hang up."""
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()


class FloodingCaller(Caller):
    """One connection of a flood: it takes any status, holds a response without an end open, and comes back when cut."""

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        self._holding = False

    def data_received(self, data: bytes) -> None:
        if self._holding:
            return
        if not self._missing:
            head, ended, _ = (self._buffer + data).partition(b"\r\n\r\n")
            self._holding = bool(ended) and _content_length(head) is None
            self._expected = head[9:12]
        if not self._holding:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # as in asyncio
        if not self.done.done():
            self._buffer, self._missing, self._holding = b"", 0, False
            self._coming_back = asyncio.create_task(self._come_back())

    async def _come_back(self) -> None:
        plan = self._window.plan
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, plan.host, plan.port)
        except OSError as error:
            self._window.fail(f"cannot connect: {error}")
            self.end()
        else:
            self.send()


def prepared(plan: Plan) -> Iterator[bytes]:
    """An endless iterator of the requests of a plan, with marks replaced by numbers."""
    body = (plan.body or "").encode()
    wholes = []
    for target in plan.targets:
        headers = {"Host": f"{plan.host}:{plan.port}", **plan.headers}
        if plan.body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        wholes.append(f"{plan.method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
    if MARK.encode() not in wholes[0]:
        return cycle(wholes)
    numbers = count(random.randrange(100_000_000, 900_000_000))
    parts = cycle([whole.split(MARK.encode()) for whole in wholes])
    return (str(next(numbers)).encode().join(one) for one in parts)


async def run(plan: Plan) -> Count:
    """Run one window."""
    window = Window(plan)
    loop = asyncio.get_running_loop()
    kind = Caller if plan.expect is not None else FloodingCaller
    try:
        callers = [
            (await loop.create_connection(lambda: kind(window), plan.host, plan.port))[1] for _ in range(plan.callers)
        ]
    except OSError as error:
        window.fail(f"cannot connect: {error}")
        callers = []
    gc.collect()
    gc.disable()
    began, before = time.perf_counter(), cpu()
    if plan.requests is None:
        window.measured_from = began + plan.warmup
        window.until = 0.0 if window.failure else window.measured_from + plan.seconds
    for caller in callers:
        caller.send()
        if isinstance(caller, FloodingCaller):
            loop.call_at(loop.time() + plan.warmup + plan.seconds, caller.end)
    await asyncio.gather(*(caller.done for caller in callers))
    ended, used = time.perf_counter(), cpu() - before
    gc.enable()
    seconds = plan.seconds if plan.requests is None else ended - began
    share = used / (ended - began)
    return counted(window.times, window.total, seconds, share, received=window.bytes, failure=window.failure)


def counted(
    taken: Iterable[float], total: int, seconds: float, cpu: float, *, received: int = 0, failure: str | None = None
) -> Count:
    """The figures of a window, from the duration of each request in seconds."""
    times = sorted(taken)
    if not times:
        return Count(0, total, seconds, 0, 0, 0, 0, 0, cpu, received, failure or "no request was completed")
    p50, p90, p99 = (percentile(times, share) * 1000 for share in (0.5, 0.9, 0.99))
    longest = times[-1] * 1000
    rate = len(times) / seconds
    return Count(len(times), total, seconds, rate, p50, p90, p99, longest, cpu, received, failure)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all values do not exceed (nearest rank).

    Raises:
        ValueError: ``values`` is empty.
    """
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def _content_length(head: bytes) -> int | None:
    at = head.find(b"ontent-")
    while at >= 0:
        if head[at + 7 : at + 14].lower() == b"length:":
            return int(head[at + 14 :].split(b"\r\n", 1)[0])
        at = head.find(b"ontent-", at + 1)
    return None


def cpu() -> float:
    """CPU seconds used by this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            fields: dict[str, Any] = json.loads(line)
            print(json.dumps(asdict(runner.run(run(Plan(**fields))))), flush=True)


if __name__ == "__main__":
    main()
