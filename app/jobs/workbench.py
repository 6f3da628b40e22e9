"""What every step of the worker needs, opened once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import Database
from app.jobs import ledger, schedule
from app.jobs.recorder import Recorder
from app.jobs.records import Claim
from app.lanes import Overtaken
from app.providers.base import BillsOn
from app.providers.registry import Registry, UnknownConnection
from app.queue import Bell, Lane
from app.settings import JobSettings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Workbench:
    """Shared by the submitter, the resolver, the poller and the storer. ``lease`` is seconds a claim lasts."""

    database: Database
    registry: Registry
    recorder: Recorder
    bell: Bell
    settings: JobSettings
    lease: float

    async def claim(self, lane: Lane, limit: int) -> Sequence[Claim]:
        """Take up to ``limit`` due jobs of a lane."""
        async with self.database.begin() as connection:
            return await schedule.claim(connection, lane, limit, self.lease)

    async def slot_freed(self, connection: AsyncConnection, upstream: str) -> None:
        """Let those who have waited longest for a connection have its free slots, in the transaction that frees one."""
        await ledger.lock_slots(connection, [upstream])
        try:
            limit = self.registry.max_concurrent(upstream)
        except UnknownConnection:
            return
        free = limit - await ledger.slots_taken(connection, upstream)
        if free > 0:
            await schedule.wake_waiting(connection, upstream, free)

    def bills_on(self, upstream: str) -> BillsOn:
        """When a connection charges; the worst is assumed of one that is no longer configured."""
        try:
            return self.registry.provider(upstream).traits.bills_on
        except UnknownConnection:
            return BillsOn.ACCEPTANCE

    @asynccontextmanager
    async def holding(self, claims: Sequence[Claim]) -> AsyncIterator[None]:
        """Keep claims for as long as the block runs, however long that is; end the block when all of them are lost.

        Raises:
            Overtaken: somebody else has the jobs now.
        """
        step = asyncio.current_task()
        assert step is not None
        beat = asyncio.create_task(self._beat(claims, step), name="lease")
        try:
            yield
        except asyncio.CancelledError:
            if beat.done() and not beat.cancelled():
                step.uncancel()
                raise Overtaken from None
            raise
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat

    async def _beat(self, claims: Sequence[Claim], step: "asyncio.Task[object]") -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            try:
                async with self.database.begin() as connection:
                    held = await schedule.extend(connection, claims, self.lease)
            except (SQLAlchemyError, OSError) as error:
                log.warning("lease not extended", error=repr(error))
                continue
            if not held:
                step.cancel()
                return
