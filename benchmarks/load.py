"""A load generator that counts honestly: one connection per caller, every failure invalidates the window."""

import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """What one window of load measured. Times are milliseconds; ``cpu`` is the generator's own share of one core."""

    rate: float
    p50: float
    p99: float
    cpu: float


class WindowInvalid(Exception):
    """A request failed, so the window says nothing."""


async def window(call: Callable[[], Awaitable[None]], *, callers: int, seconds: float) -> Window:
    """``callers`` callers, each one call after the other, for so many seconds.

    Raises:
        WindowInvalid: a call failed.
    """
    times: list[float] = []
    cpu = _cpu()
    began = time.perf_counter()
    end = began + seconds

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            await call()
            times.append((time.perf_counter() - start) * 1000)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
    except ExceptionGroup as failures:
        raise WindowInvalid(repr(failures.exceptions[0])) from failures
    elapsed = time.perf_counter() - began
    cuts = statistics.quantiles(times, n=100)
    return Window(rate=len(times) / elapsed, p50=cuts[49], p99=cuts[98], cpu=(_cpu() - cpu) / elapsed)


def median(windows: list[Window]) -> Window:
    """The window of the median rate."""
    return sorted(windows, key=lambda one: one.rate)[len(windows) // 2]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
