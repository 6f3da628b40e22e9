"""Callers that come together share the work; what one of them breaks, the others do not pay for."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import pytest

from app.batching import Batcher


class Doubling:
    """Doubles numbers, one batch at a time, when it is let; a negative number is refused."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.begun = asyncio.Event()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.begun.set()
        await self.open.wait()
        if min(numbers) < 0:
            raise ValueError("negative")
        return [2 * number for number in numbers]


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


@pytest.fixture
def batcher(doubling: Doubling) -> Batcher[int, int]:
    return Batcher(doubling, largest=3, at_once=1, separable=lambda error: isinstance(error, ValueError))


async def busy(batcher: Batcher[int, int], doubling: Doubling) -> asyncio.Task[int]:
    """A batch of one that is under way until the door is opened."""
    doubling.open.clear()
    first = asyncio.create_task(batcher(1))
    await doubling.begun.wait()
    return first


async def asked(batcher: Batcher[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher(number)) for number in numbers]
    await asyncio.sleep(0)  # each has put its number in
    return tasks


async def test_a_lone_caller_does_not_wait(batcher: Batcher[int, int], doubling: Doubling) -> None:
    assert await batcher(21) == 42
    assert doubling.batches == [[21]]


async def test_who_comes_meanwhile_goes_together_and_gets_their_own_response(
    batcher: Batcher[int, int], doubling: Doubling
) -> None:
    first = await busy(batcher, doubling)
    others = await asked(batcher, 2, 3, 4, 5)
    doubling.open.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8, 10]
    assert doubling.batches == [[1], [2, 3, 4], [5]]


async def test_a_refused_item_does_not_fail_its_batch(batcher: Batcher[int, int], doubling: Doubling) -> None:
    first = await busy(batcher, doubling)
    others = await asked(batcher, 2, -3, 4)
    doubling.open.set()
    answers = await asyncio.gather(first, *others, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["2", "4", "negative", "8"]
    assert doubling.batches == [[1], [2, -3, 4], [2], [-3], [4]]


async def test_an_error_that_may_have_done_something_fails_the_whole_batch_and_nothing_is_tried_again(
    doubling: Doubling,
) -> None:
    batcher = Batcher(doubling, largest=3, at_once=1)
    first = await busy(batcher, doubling)
    others = await asked(batcher, 2, -3)
    doubling.open.set()
    answers = await asyncio.gather(first, *others, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["2", "negative", "negative"]
    assert doubling.batches == [[1], [2, -3]]


async def test_what_was_asked_for_is_done_though_its_caller_has_left(
    batcher: Batcher[int, int], doubling: Doubling
) -> None:
    first = await busy(batcher, doubling)
    gone, stays = await asked(batcher, 2, 3)
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    doubling.open.set()
    assert [await first, await stays] == [2, 6]
    assert doubling.batches == [[1], [2, 3]]


async def test_who_goes_away_meanwhile_stops_no_other(batcher: Batcher[int, int], doubling: Doubling) -> None:
    first = await busy(batcher, doubling)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    (second,) = await asked(batcher, 2)
    doubling.open.set()
    assert await second == 4


async def test_who_has_waited_for_too_long_is_told_so_and_nothing_is_done(doubling: Doubling) -> None:
    """Behind a database that is frozen, a queue would wait for as many time-outs as there are batches."""
    batcher = Batcher(doubling, largest=3, at_once=1, patience=60)
    first = await busy(batcher, doubling)
    tired = await asked(batcher, 2, 3)
    batcher._waiting = deque((since - 61, item, future) for since, item, future in batcher._waiting)
    (fresh,) = await asked(batcher, 4)
    doubling.open.set()
    answers = await asyncio.gather(first, *tired, fresh, return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, TimeoutError, TimeoutError, int]
    assert doubling.batches == [[1], [4]]
