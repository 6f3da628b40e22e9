"""Follows the event log: one query per interval serves all waiters of the process."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.counting import counted
from app.events import repository
from app.events.repository import Event
from app.infra.db import Database

POLL_SECONDS = 0.1

log = structlog.get_logger()


class Released(Exception):
    """The process is stopping; the event waited for may follow, and another process can deliver it."""


class EventService:
    """Reads the events of a subject after a cursor, and waits for new ones."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watched: Counter[UUID] = Counter()
        self._newest: dict[UUID, int] = {}
        #: Set when the newest event of the subject changes: only those who wait for it wake up.
        self._changes: dict[UUID, asyncio.Event] = {}
        self._released = False
        self._has_waiters = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start polling the log; needed only in a process that follows it."""
        self._task = asyncio.create_task(self._watch(), name="event watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def after(self, account_id: UUID, subject_id: UUID, seq: int) -> list[Event]:
        """The subject's events after ``seq``, oldest first, at most 100."""
        async with self._database.read() as conn:
            return await repository.after(conn, account_id, subject_id, seq)

    async def follow(
        self, account_id: UUID, subject_id: UUID, seq: int, *, ended: bool = False
    ) -> AsyncIterator[Event]:
        """The subject's events after ``seq``, as they are appended, until the process stops.

        ``ended``: no more events will follow; returns at the end of the log.
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
        """Poll for events of this subject while the block runs; :meth:`changed` requires it."""
        try:
            with counted(self._watched, subject_id):
                self._has_waiters.set()
                yield
        finally:
            if subject_id not in self._watched:
                self._newest.pop(subject_id, None)
                self._changes.pop(subject_id, None)

    async def changed(self, subject_id: UUID, seq: int) -> int:
        """Wait for an event of a watched subject after ``seq``; returns the position of the newest one.

        Raises:
            Released: the process is stopping.
        """
        while not self._released and self._newest.get(subject_id, 0) <= seq:
            await self._changes.setdefault(subject_id, asyncio.Event()).wait()
        if self._released:
            raise Released
        return self._newest[subject_id]

    async def release(self) -> None:
        """End all current and future waits: the process is stopping."""
        self._released = True
        self._wake(self._changes.copy())

    def _wake(self, subjects: Iterable[UUID]) -> None:
        for subject in subjects:
            if change := self._changes.pop(subject, None):
                change.set()

    async def _watch(self) -> None:
        while True:
            await self._has_waiters.wait()
            if not self._watched:
                self._has_waiters.clear()
                continue
            try:
                async with self._database.read() as conn:
                    newest = await repository.newest(conn, list(self._watched))
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("event log not readable", error=repr(error))
            else:
                changed = {
                    subject: seq
                    for subject, seq in newest.items()
                    if subject in self._watched and seq > self._newest.get(subject, 0)
                }
                self._newest.update(changed)
                self._wake(changed)
            await asyncio.sleep(POLL_SECONDS)
