"""Workers that stop at a checkpoint for as long as a test likes: then they go on, too late perhaps, or die."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app import failpoints
from app.failpoints import Failpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(eq=False)
class Stand:
    """A step that stands somewhere. ``place`` None: before its first line, with its claim in its hand."""

    name: str
    place: Failpoint | None
    there: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[Any] | None" = None

    async def stay(self) -> None:
        self.there.set()
        await self.leave.wait()


#: The step that a task belongs to: tasks that it starts are of the same one.
_STEP: ContextVar[Stand | None] = ContextVar("step", default=None)


async def _visit(place: Failpoint) -> None:
    step = _STEP.get()
    if step is not None and step.place is place and not step.there.is_set():
        await step.stay()


class Floor:
    """The steps that stand still."""

    def __init__(self) -> None:
        self.standing: list[Stand] = []

    @asynccontextmanager
    async def opened(self) -> "AsyncIterator[Floor]":
        failpoints.visit(_visit)
        try:
            yield self
        finally:
            failpoints.visit(None)

    async def start(self, name: str, place: Failpoint | None, work: Callable[[], Awaitable[object]]) -> None:
        """Let a step run to its place, or to its end. What it raises comes through."""
        step = Stand(name, place)

        async def run() -> None:
            _STEP.set(step)
            if place is None:
                await step.stay()
            await work()

        step.task = asyncio.create_task(run(), name=name)
        there = asyncio.create_task(step.there.wait())
        await asyncio.wait((step.task, there), return_when=asyncio.FIRST_COMPLETED)
        there.cancel()
        if step.task.done():
            await step.task
        else:
            self.standing.append(step)

    async def resume(self, step: Stand) -> None:
        """Let it run to its end."""
        self.standing.remove(step)
        step.leave.set()
        assert step.task is not None
        await step.task

    async def kill(self, step: Stand) -> None:
        """It ends where it stands, as with its process."""
        self.standing.remove(step)
        assert step.task is not None
        step.task.cancel()
        await asyncio.wait((step.task,))
