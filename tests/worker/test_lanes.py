"""A lane: never more at once than allowed, never asleep when something is due, never dead of one bad step."""

import asyncio
from collections.abc import AsyncIterator

from app.claims import ClaimLost
from app.infra.queue import Lane
from app.worker.lanes import LaneRunner

LONG = 3600.0


class Board:
    """Work to be claimed, and what became of it."""

    def __init__(self, *items: int, limit: int = 2) -> None:
        self.waiting = list(items)
        self.begun: list[int] = []
        self.most_at_once = 0
        self.under_way = 0
        self.gate = asyncio.Event()
        self.news = asyncio.Condition()
        self.claims_to_break = 0
        self.due_in: float | None = None
        self.lane = Lane.POLL
        self.limit = limit
        self.runner: LaneRunner[int] = LaneRunner(self, LONG)

    async def claim(self, limit: int) -> AsyncIterator[int]:
        if self.claims_to_break:
            self.claims_to_break -= 1
            self.runner.ring()
            raise OSError("the database is away")
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        for item in taken:
            yield item

    def weight(self, item: int) -> int:
        del item
        return 1

    async def next_due(self) -> float | None:
        return self.due_in

    async def advance(self, item: int) -> None:
        async with self.news:
            self.begun.append(item)
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            self.news.notify_all()
        try:
            await self.gate.wait()
            if item < 0:
                raise ValueError("a step with a bug")
            if item == 0:
                raise ClaimLost
        finally:
            self.under_way -= 1

    async def has_begun(self, count: int) -> None:
        async with self.news:
            await self.news.wait_for(lambda: len(self.begun) >= count)

    async def stop(self, task: "asyncio.Task[None]") -> None:
        self.gate.set()
        self.runner.stop()
        await asyncio.gather(task, self.runner.drain())


async def test_no_more_steps_than_the_limit_run_at_once() -> None:
    board = Board(*range(1, 8), limit=2)
    task = asyncio.create_task(board.runner.run())
    await board.has_begun(2)
    assert board.begun == [1, 2]
    board.gate.set()
    await board.has_begun(7)
    assert board.most_at_once == 2
    await board.stop(task)


async def test_what_is_claimed_is_started_before_the_next_is_claimed() -> None:
    second = asyncio.Event()

    class Slow(Board):
        async def claim(self, limit: int) -> AsyncIterator[int]:
            yield 1
            await second.wait()  # a connection whose row another transaction holds
            yield limit

    board = Slow()
    task = asyncio.create_task(board.runner.run())
    await board.has_begun(1)
    second.set()
    await board.has_begun(2)
    await board.stop(task)


async def test_a_ring_wakes_a_sleeping_lane() -> None:
    board = Board()
    task = asyncio.create_task(board.runner.run())
    await asyncio.sleep(0)
    board.waiting.append(1)
    board.runner.ring()
    await board.has_begun(1)
    await board.stop(task)


async def test_a_lane_wakes_by_itself_when_something_is_due() -> None:
    board = Board()
    board.due_in = 0.01
    task = asyncio.create_task(board.runner.run())
    await asyncio.sleep(0)
    board.waiting.append(1)
    await board.has_begun(1)
    await board.stop(task)


async def test_a_step_or_a_claim_that_breaks_does_not_stop_the_lane() -> None:
    board = Board(-1, 0, 1, limit=1)
    board.claims_to_break = 2
    board.gate.set()
    task = asyncio.create_task(board.runner.run())
    await board.has_begun(3)
    assert board.begun == [-1, 0, 1]
    await board.stop(task)


async def test_told_to_stop_it_claims_nothing_more_and_finishes_what_it_began() -> None:
    board = Board(1, 2, 3, limit=1)
    task = asyncio.create_task(board.runner.run())
    await board.has_begun(1)
    await board.stop(task)
    assert board.begun == [1]
    assert board.under_way == 0
    assert board.waiting == [2, 3]


async def test_abandoned_steps_are_cancelled() -> None:
    board = Board(1, limit=1)
    task = asyncio.create_task(board.runner.run())
    await board.has_begun(1)
    board.runner.stop()
    board.runner.abandon()
    await asyncio.gather(task, board.runner.drain())
    assert board.under_way == 0
