"""Retention: what is over goes after its time, so that the tables in use stay small. Decision 010 says why so.

Every worker looks once a minute. What is over is removed in batches, by an index and in a transaction each; between two
of them there is a pause that is longer than the batch took. So it never holds up real work, and the next worker removes
what a killed one has not.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import ids
from app.assets import retention as assets
from app.events import retention as events
from app.infra.db import Database
from app.jobs.db import repository, retention
from app.settings import Settings
from app.webhooks import retention as webhooks

#: Rows looked at in one batch. Of a job goes everything, some twenty rows.
BATCH = 1000
JOBS_BATCH = 100
#: For so many times as long as a batch took, nothing is removed.
PAUSE_FACTOR = 3
#: Numbers that nobody else uses, one for each kind: who holds it removes a batch.
ADVISORY_LOCKS = {"keys": 0xF11A6A80, "deliveries": 0xF11A6A81, "events": 0xF11A6A82, "jobs": 0xF11A6A83}

FIRST = UUID(int=0)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Batch:
    """How many rows went, and behind which one the next batch begins: None when there is none."""

    gone: int
    last: Any = None


Step = Callable[[AsyncConnection, Any], Awaitable[Batch]]


class Retention:
    """Removes what is over. Nothing goes that a live job, a watch, a delivery, a file or a key still needs."""

    def __init__(self, database: Database, settings: Settings, batch: int = BATCH) -> None:
        self._database = database
        self._settings = settings.retention
        self._key_days = settings.jobs.idempotency_days
        self._batch = batch

    async def remove(self) -> None:
        """Remove all that is over, in batches. What somebody else is removing is left to them."""
        gone = await self._all(
            ("keys", self._keys, FIRST), ("deliveries", self._deliveries, FIRST), ("events", self._events, 0)
        )
        # After the keys: a job is needed while one leads to it.
        gone += await self._all(("jobs", self._jobs, FIRST))
        if gone:
            log.info("removed what is over", **gone)

    async def _all(self, *steps: tuple[str, Step, Any]) -> Counter[str]:
        """A batch of each kind in turn until there are no more: a great heap of one keeps no other waiting."""
        gone: Counter[str] = Counter()
        unfinished = list(steps)
        while unfinished:
            for name, step, behind in unfinished.copy():
                batch = await self._one(name, step, behind)
                gone[name] += batch.gone
                unfinished.remove((name, step, behind))
                if batch.last is not None:
                    unfinished.append((name, step, batch.last))
        return +gone

    async def _one(self, name: str, step: Step, behind: Any) -> Batch:
        """One batch, and a pause; nothing while somebody else is removing the same, who goes on with it."""
        began = time.monotonic()
        async with self._database.begin() as connection:
            lock = text("SELECT pg_try_advisory_xact_lock(:number)")
            if not await connection.scalar(lock, {"number": ADVISORY_LOCKS[name]}):
                return Batch(0)
            batch = await step(connection, behind)
        if batch.last is not None:
            await asyncio.sleep(PAUSE_FACTOR * (time.monotonic() - began))
        return batch

    async def _keys(self, connection: AsyncConnection, behind: Any) -> Batch:
        gone = await retention.forget_keys(connection, self._key_days, self._batch)
        return Batch(gone, behind if gone == self._batch else None)

    async def _deliveries(self, connection: AsyncConnection, behind: UUID) -> Batch:
        before = await repository.first_id_since(connection, timedelta(days=self._settings.deliveries_days))
        last, gone = await webhooks.forget(connection, behind=behind, before=before, limit=self._batch)
        return Batch(gone, last)

    async def _events(self, connection: AsyncConnection, behind: int) -> Batch:
        last, old = await events.forgettable(connection, self._settings.events_days, behind=behind, limit=self._batch)
        live = await retention.live_among(connection, set(old.values())) if old else set()
        gone = await events.forget(connection, [seq for seq, subject_id in old.items() if subject_id not in live])
        return Batch(gone, last)

    async def _jobs(self, connection: AsyncConnection, behind: UUID) -> Batch:
        days = self._settings.jobs_days
        if days is None:
            return Batch(0)
        before = await repository.first_id_since(connection, timedelta(days=days))
        if keyless := await retention.keyless_before(connection):
            before = min(before, ids.earliest(keyless))  # or each look would read again what their keys still keep
        last, over = await retention.over(
            connection, days, behind=behind, before=before, limit=min(self._batch, JOBS_BATCH)
        )
        needed = await webhooks.owing(connection, over) | await assets.holding(connection, over)
        job_ids = [job_id for job_id in over if job_id not in needed]
        if not job_ids:
            return Batch(0, last)
        for forget in (webhooks.forget_subjects, events.forget_subjects, assets.forget_jobs):
            await forget(connection, job_ids)
        return Batch(await retention.forget(connection, job_ids), last)
