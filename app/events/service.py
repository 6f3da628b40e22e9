"""Following the log: one query a beat for everybody in this process who waits, however many they are."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.events import repository
from app.events.repository import Event
from app.infra.db import Database

BEAT_SECONDS = 0.1

log = structlog.get_logger()


class Released(Exception):
    """The process is stopping: what was waited for may come later, and somebody else will tell."""


class EventService:
    """Read facts after a cursor; be told when a subject has new ones."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watched: Counter[UUID] = Counter()
        self._newest: dict[UUID, int] = {}
        self._changed = asyncio.Condition()
        self._released = False
        self._somebody_waits = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the log; needed only in a process that follows it."""
        self._task = asyncio.create_task(self._watch(), name="event watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def after(self, account_id: UUID, subject_id: UUID, seq: int) -> list[Event]:
        """The subject's events behind ``seq``, oldest first, at most 100."""
        async with self._database.read() as connection:
            return await repository.after(connection, account_id, subject_id, seq)

    async def follow(
        self, account_id: UUID, subject_id: UUID, seq: int, *, ended: bool = False
    ) -> AsyncIterator[Event]:
        """The subject's events behind ``seq``, as they happen, until the process stops.

        ``ended``: nothing more will happen; the log is read to its end.
        """
        async with self.watching(subject_id):
            while not self._released:
                events = await self.after(account_id, subject_id, seq)
                for event in events:
                    yield event
                    seq = event.seq
                if ended and not events:
                    return
                if events:
                    continue
                with suppress(Released):
                    await self.changed(subject_id, seq)

    @asynccontextmanager
    async def watching(self, subject_id: UUID) -> AsyncIterator[None]:
        """While the block runs, :meth:`changed` knows this subject."""
        self._watched[subject_id] += 1
        self._somebody_waits.set()
        try:
            yield
        finally:
            self._watched[subject_id] -= 1
            if not self._watched[subject_id]:
                del self._watched[subject_id]
                self._newest.pop(subject_id, None)

    async def changed(self, subject_id: UUID, seq: int) -> int:
        """Wait until the log holds an event of a watched subject behind ``seq``; returns the newest one's place.

        Raises:
            Released: the process is stopping.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._released or self._newest.get(subject_id, 0) > seq)
        if self._released:
            raise Released
        return self._newest[subject_id]

    async def release(self) -> None:
        """The process is stopping: end every wait, now and from now on."""
        async with self._changed:
            self._released = True
            self._changed.notify_all()

    async def _watch(self) -> None:
        while True:
            await self._somebody_waits.wait()
            if not self._watched:
                self._somebody_waits.clear()
                continue
            try:
                async with self._database.read() as connection:
                    newest = await repository.newest(connection, list(self._watched))
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("event log not readable", error=repr(error))
            else:
                async with self._changed:
                    self._newest.update((subject, seq) for subject, seq in newest.items() if subject in self._watched)
                    self._changed.notify_all()
            await asyncio.sleep(BEAT_SECONDS)
