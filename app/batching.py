"""Batches concurrent calls: one round trip for many callers."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls ``work`` with batches of items: those that arrive while a batch runs form the next one.

    There is no batching delay: an idle batcher runs a single item immediately. Under load the batches grow.

    ``work`` returns one result for each item, in order. If it raises, all callers of the batch get the exception; if
    ``separable`` says that the error left no effects, each item is retried alone, so that a bad item fails only its own
    caller.

    An item that waited longer than ``patience`` seconds for its batch fails with TimeoutError and is not run: behind a
    frozen server, each batch takes its full timeout, and these add up.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        largest: int,
        at_once: int,
        separable: Callable[[BaseException], bool] = lambda _: False,
        patience: float = math.inf,
    ) -> None:
        self._work = work
        self._largest = largest
        self._at_once = at_once
        self._separable = separable
        self._patience = patience
        self._waiting: deque[tuple[float, Item, asyncio.Future[Result]]] = deque()  # (enqueued at, item, future)
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Result:
        """The result for one item. Cancelling the caller does not cancel the work on its item."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((loop.time(), item, future))
        self._start()
        return await future

    def _start(self) -> None:
        if self._waiting and len(self._running) < self._at_once:
            # An empty context: the batch must not log with the context variables of one of its callers.
            task = asyncio.create_task(self._run(), name="batch", context=Context())
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _run(self) -> None:
        batch = self._next()
        if batch:  # empty if an earlier task has taken all items
            self._start()
            await self._run_batch(batch)

    def _next(self) -> Sequence[tuple[Item, asyncio.Future[Result]]]:
        oldest = asyncio.get_running_loop().time() - self._patience
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._largest:
            since, item, future = self._waiting.popleft()
            if since < oldest:
                _fail(future, TimeoutError("waited too long for a batch; nothing was done"))
            else:
                batch.append((item, future))
        return batch

    async def _run_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        items = [item for item, _ in batch]
        try:
            results = await self._work(items)
        except BaseException as error:
            if len(batch) > 1 and self._separable(error):
                await asyncio.gather(*(self._run_batch([one]) for one in batch))
                return
            for _, future in batch:
                _fail(future, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(future: asyncio.Future[Result], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    else:
        future.set_exception(error)
