"""Runs the steps of a worker: claims due items within the limit, then waits for the next due time or a ring."""

import asyncio
import time
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from app.backoff import jittered
from app.claims import ClaimLost
from app.infra.metrics import STEP_SECONDS
from app.infra.queue import Step

#: Seconds until the next claim if a due item could not be claimed because another worker has it locked.
SHORTEST_PAUSE = 0.02

Item = TypeVar("Item")

log = structlog.get_logger()


class LaneRunner(Generic[Item]):
    """Runs the step of one lane in a worker process."""

    def __init__(self, step: Step[Item], sweep_interval: float) -> None:
        self._step = step
        self._sweep_interval = sweep_interval
        self._wanted = asyncio.Event()
        self._running: dict[asyncio.Task[None], int] = {}
        self._stopping = False

    def ring(self) -> None:
        """Claim soon. Does not wait."""
        self._wanted.set()

    async def run(self) -> None:
        """Work until :meth:`stop`."""
        while not self._stopping:
            self._wanted.clear()
            try:
                pause = await self._fill()
            except Exception:
                log.exception("claim failed", lane=self._step.lane.value)
                pause = jittered(self._sweep_interval)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    async def _fill(self) -> float:
        """Start as many items as there is room for. Returns the seconds until the next claim."""
        while free := max(0, self._step.limit - sum(self._running.values())):
            claimed = 0
            async for item in self._step.claim(free):
                self._start(item)
                claimed += self._step.weight(item)
            if claimed < free:
                due = await self._step.next_due()
                return self._sweep_interval if due is None else min(self._sweep_interval, max(SHORTEST_PAUSE, due))
        return self._sweep_interval

    def stop(self) -> None:
        """Claim nothing more; items in progress continue."""
        self._stopping = True
        self._wanted.set()

    async def drain(self) -> None:
        """Wait for the items in progress."""
        while self._running:
            await asyncio.wait(self._running)

    def abandon(self) -> None:
        """Cancel the items in progress; their leases end and another worker claims them."""
        for task in self._running:
            task.cancel()

    def _start(self, item: Item) -> None:
        task = asyncio.create_task(self._advance(item), name=f"{self._step.lane.value} step")
        self._running[task] = self._step.weight(item)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wanted.set()

    async def _advance(self, item: Item) -> None:
        began = time.perf_counter()
        result = "done"
        try:
            await self._step.advance(item)
        except ClaimLost:
            result = "claim_lost"
        except asyncio.CancelledError:
            result = "abandoned"
            raise
        except Exception:
            result = "broken"
            log.exception("step failed; its lease will end", lane=self._step.lane.value)
        finally:
            STEP_SECONDS.labels(step=self._step.lane.value, outcome=result).observe(time.perf_counter() - began)
