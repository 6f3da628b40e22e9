"""One round trip for many callers: what they ask for at the same time is done together."""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls ``work`` with what is asked for: at once when it is idle, else with all that came meanwhile.

    Nobody waits for company, so a lone caller is as quick as without; under load the batches grow by themselves.

    ``work`` gives one result for each item, in their order. When it fails, all of its callers see the error. After an
    error of which ``separable`` says that it left nothing behind, each item is tried again by itself: nobody pays for a
    neighbour.

    Whoever has waited for longer than ``patience`` seconds when their turn comes is told so by a TimeoutError, and
    nothing was done: when the other side is frozen, each batch takes its whole time-out, and they add up.
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
        self._waiting: deque[tuple[float, Item, asyncio.Future[Result]]] = deque()  # since when
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Result:
        """The result for one item. A caller that goes away takes nothing back: its item is worked on all the same."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((loop.time(), item, answer))
        self._start()
        return await answer

    def _start(self) -> None:
        if self._waiting and len(self._running) < self._at_once:
            # A context of its own: what one caller has bound for the log is not said of the others.
            task = asyncio.create_task(self._run(), name="batch", context=Context())
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()

    async def _run(self) -> None:
        batch = self._next()
        if batch:  # a task that was started for more callers than one may find that the first has taken all
            self._start()
            await self._answer(batch)

    def _next(self) -> Sequence[tuple[Item, asyncio.Future[Result]]]:
        oldest = asyncio.get_running_loop().time() - self._patience
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._largest:
            since, item, answer = self._waiting.popleft()
            if since < oldest:
                _fail(answer, TimeoutError("waited too long for its turn; nothing was done"))
            else:
                batch.append((item, answer))
        return batch

    async def _answer(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        items = [item for item, _ in batch]
        try:
            results = await self._work(items)
        except BaseException as error:
            if len(batch) > 1 and self._separable(error):
                await asyncio.gather(*(self._answer([one]) for one in batch))
                return
            for _, answer in batch:
                _fail(answer, error)
            if not isinstance(error, Exception):
                raise
        else:
            for (_, answer), result in zip(batch, results, strict=True):
                if not answer.done():
                    answer.set_result(result)


def _fail(answer: asyncio.Future[Result], error: BaseException) -> None:
    if answer.done():
        return
    if isinstance(error, asyncio.CancelledError):
        answer.cancel()
    else:
        answer.set_exception(error)
