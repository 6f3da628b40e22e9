"""A lane: claim what is due, work on it, never more at once than allowed, and wake up in time for what comes next."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from app.backoff import jittered
from app.claims import Overtaken
from app.infra.metrics import STEP_SECONDS

#: Something is due and could not be claimed: somebody else has it in hand.
SHORTEST_PAUSE = 0.02

Item = TypeVar("Item")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Work(Generic[Item]):
    """What a lane does. All four may raise: the lane logs it and goes on; leases bring back what was dropped."""

    name: str
    claim: Callable[[int], AsyncIterator[Item]]  # at most that many; each is started before the next is claimed
    advance: Callable[[Item], Awaitable[object]]
    next_due: Callable[[], Awaitable[float | None]]  # seconds
    limit: int
    weigh: Callable[[Item], int] = lambda _: 1  # how much of the limit an item takes


def at_once(claim: Callable[[int], Awaitable[Sequence[Item]]]) -> Callable[[int], AsyncIterator[Item]]:
    """A claim that takes all of its items in one go."""

    async def one_by_one(limit: int) -> AsyncIterator[Item]:
        for item in await claim(limit):
            yield item

    return one_by_one


class LaneRunner(Generic[Item]):
    """Runs one kind of work in a worker process."""

    def __init__(self, work: Work[Item], sweep_interval: float) -> None:
        self._work = work
        self._sweep_interval = sweep_interval
        self._wanted = asyncio.Event()
        self._steps: dict[asyncio.Task[None], int] = {}
        self._stopping = False

    def ring(self) -> None:
        """There may be something to do. Returns at once."""
        self._wanted.set()

    async def run(self) -> None:
        """Work until :meth:`stop`."""
        while not self._stopping:
            self._wanted.clear()
            try:
                pause = await self._fill()
            except Exception:
                log.exception("lane cannot claim", lane=self._work.name)
                pause = jittered(self._sweep_interval)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    async def _fill(self) -> float:
        """Start as many steps as there is room for; seconds until the next look."""
        while free := max(0, self._work.limit - sum(self._steps.values())):
            claimed = 0
            async for item in self._work.claim(free):
                self._start(item)
                claimed += self._work.weigh(item)
            if claimed < free:
                due = await self._work.next_due()
                return self._sweep_interval if due is None else min(self._sweep_interval, max(SHORTEST_PAUSE, due))
        return self._sweep_interval

    def stop(self) -> None:
        """Claim nothing more; the steps under way go on."""
        self._stopping = True
        self._wanted.set()

    async def drain(self) -> None:
        """Wait for the steps under way."""
        while self._steps:
            await asyncio.wait(self._steps)

    def abandon(self) -> None:
        """Cancel the steps under way; their leases run out and somebody else goes on."""
        for step in self._steps:
            step.cancel()

    def _start(self, item: Item) -> None:
        step = asyncio.create_task(self._step(item), name=f"{self._work.name} step")
        self._steps[step] = self._work.weigh(item)
        step.add_done_callback(self._ended)

    def _ended(self, step: asyncio.Task[None]) -> None:
        self._steps.pop(step, None)
        self._wanted.set()

    async def _step(self, item: Item) -> None:
        began = time.perf_counter()
        outcome = "done"
        try:
            await self._work.advance(item)
        except Overtaken:
            outcome = "overtaken"
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        except Exception:
            outcome = "broken"
            log.exception("step broke off; its lease will run out", lane=self._work.name)
        finally:
            STEP_SECONDS.labels(step=self._work.name, outcome=outcome).observe(time.perf_counter() - began)
