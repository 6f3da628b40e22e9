"""A process of its own that speaks HTTP/1.1 over keep-alive connections, and little else.

One window per line: a :class:`Plan` as JSON on standard input, a :class:`Count` on standard output. Requests are
bytes that were made before the window; of a reply it reads the status and the content-length. It checks every status.
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

#: Stands in a request for a number that no other request has: nine digits, so that lengths never change.
MARK = "#########"
EXCERPT = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """What one window is to do: ``callers`` connections, each one request after the other.

    ``targets`` are asked round-robin. ``body`` and ``headers`` may hold :data:`MARK`. ``seconds`` are measured after
    ``warmup`` seconds; with ``requests``, exactly so many are made and all of them are measured.
    """

    port: int
    targets: list[str]
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    expect: int = 200
    callers: int = 16
    seconds: float = 5.0
    warmup: float = 0.3
    requests: int | None = None
    host: str = "127.0.0.1"
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """What a window came to. Times are milliseconds; ``cpu`` is the generator's share of a core; ``total`` includes the
    warm-up and what was under way at the end. ``failure`` says what went wrong first: the window is invalid then."""

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
    """One window under way, shared by its callers."""

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

    def fail(self, words: str) -> None:
        self.failure = self.failure or words
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
    """One connection: sends a request, waits for the whole reply, sends the next."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._expected = str(window.plan.expect).encode()
        self._buffer = b""
        self._missing = 0  # bytes of a body whose head was read
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def send(self) -> None:
        assert self._transport is not None
        request = self._window.next()
        if request is None:
            self._end()
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
            words = "no content-length" if length is None else f"HTTP {data[9:12].decode(errors='replace')}"
            self._window.fail(f"{words}: {data[:EXCERPT].decode(errors='replace')}")
            self._end()
            return
        self._buffer = b""
        self._missing = length - (len(data) - end - 4)
        if self._missing <= 0:
            self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._window.fail(f"connection lost: {exc!r}")
            self._end()

    def _complete(self) -> None:
        self._missing = 0
        self._window.took(self._sent)
        if self._window.plan.rate is None:
            self.send()
        else:
            pause = self._sent + self._window.plan.callers / self._window.plan.rate - time.perf_counter()
            asyncio.get_running_loop().call_later(max(0.0, pause), self.send)

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()


def prepared(plan: Plan) -> Iterator[bytes]:
    """The requests of a plan, without end. Marks are replaced; the rest is fixed bytes."""
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
    """Make one window's load."""
    window = Window(plan)
    loop = asyncio.get_running_loop()
    try:
        callers = [
            (await loop.create_connection(lambda: Caller(window), plan.host, plan.port))[1] for _ in range(plan.callers)
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
    await asyncio.gather(*(caller.done for caller in callers))
    ended, used = time.perf_counter(), cpu() - before
    gc.enable()
    seconds = plan.seconds if plan.requests is None else ended - began
    share = used / (ended - began)
    return counted(window.times, window.total, seconds, share, received=window.bytes, failure=window.failure)


def counted(
    taken: Iterable[float], total: int, seconds: float, cpu: float, *, received: int = 0, failure: str | None = None
) -> Count:
    """The figures of a window whose requests took so many seconds each."""
    times = sorted(taken)
    if not times:
        return Count(0, total, seconds, 0, 0, 0, 0, 0, cpu, received, failure or "nothing was counted")
    p50, p90, p99 = (percentile(times, share) * 1000 for share in (0.5, 0.9, 0.99))
    longest = times[-1] * 1000
    rate = len(times) / seconds
    return Count(len(times), total, seconds, rate, p50, p90, p99, longest, cpu, received, failure)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all do not exceed (nearest rank).

    Raises:
        ValueError: there are none.
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
    """Seconds that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            fields: dict[str, Any] = json.loads(line)
            print(json.dumps(asdict(runner.run(run(Plan(**fields))))), flush=True)


if __name__ == "__main__":
    main()
