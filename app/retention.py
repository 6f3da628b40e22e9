"""Retention: deletes expired rows in small batches so that hot tables stay small. See docs/decisions/010.

Every worker runs it once a minute. A batch is one transaction and uses an index. The pause after a batch is longer than
the batch itself, so that retention does not slow down other work. What a killed worker leaves, the next one deletes.
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

#: Rows scanned in one batch. A job is deleted with all its rows, about twenty.
BATCH = 1000
JOBS_BATCH = 100
#: The pause after a batch, in multiples of its duration.
PAUSE_FACTOR = 3
#: Postgres advisory locks, one for each kind of row: only one worker at a time deletes a batch of a kind.
ADVISORY_LOCKS = {"keys": 0xF11A6A80, "deliveries": 0xF11A6A81, "events": 0xF11A6A82, "jobs": 0xF11A6A83}

FIRST = UUID(int=0)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Batch:
    """The number of rows deleted, and the cursor of the next batch: None if there is none."""

    deleted: int
    last: Any = None


Step = Callable[[AsyncConnection, Any], Awaitable[Batch]]


class Retention:
    """Deletes expired rows, except those that an active job, reconciliation, delivery, file or key still needs."""

    def __init__(self, database: Database, settings: Settings, batch: int = BATCH) -> None:
        self._database = database
        self._settings = settings.retention
        self._key_days = settings.jobs.idempotency_days
        self._batch = batch

    async def remove(self) -> None:
        """Delete all expired rows, in batches. Skips a kind that another worker is deleting."""
        deleted = await self._all(
            ("keys", self._keys, FIRST), ("deliveries", self._deliveries, FIRST), ("events", self._events, 0)
        )
        # After the idempotency keys: a job is kept while a key refers to it.
        deleted += await self._all(("jobs", self._jobs, FIRST))
        if deleted:
            log.info("expired rows deleted", **deleted)

    async def _all(self, *steps: tuple[str, Step, Any]) -> Counter[str]:
        """Delete a batch of each kind in turn until none is left: one large backlog does not delay the others."""
        deleted: Counter[str] = Counter()
        unfinished = list(steps)
        while unfinished:
            for name, step, behind in unfinished.copy():
                batch = await self._one(name, step, behind)
                deleted[name] += batch.deleted
                unfinished.remove((name, step, behind))
                if batch.last is not None:
                    unfinished.append((name, step, batch.last))
        return +deleted

    async def _one(self, name: str, step: Step, behind: Any) -> Batch:
        """Delete one batch, then pause. Does nothing if another worker is deleting rows of this kind."""
        began = time.monotonic()
        async with self._database.begin() as conn:
            lock = text("SELECT pg_try_advisory_xact_lock(:number)")
            if not await conn.scalar(lock, {"number": ADVISORY_LOCKS[name]}):
                return Batch(0)
            batch = await step(conn, behind)
        if batch.last is not None:
            await asyncio.sleep(PAUSE_FACTOR * (time.monotonic() - began))
        return batch

    async def _keys(self, conn: AsyncConnection, behind: Any) -> Batch:
        deleted = await retention.delete_keys(conn, self._key_days, self._batch)
        return Batch(deleted, behind if deleted == self._batch else None)

    async def _deliveries(self, conn: AsyncConnection, behind: UUID) -> Batch:
        before = await repository.first_id_since(conn, timedelta(days=self._settings.deliveries_days))
        last, deleted = await webhooks.delete_ended(conn, behind=behind, before=before, limit=self._batch)
        return Batch(deleted, last)

    async def _events(self, conn: AsyncConnection, behind: int) -> Batch:
        last, old = await events.expired(conn, self._settings.events_days, behind=behind, limit=self._batch)
        live = await retention.live_among(conn, set(old.values())) if old else set()
        deleted = await events.delete(conn, [seq for seq, subject_id in old.items() if subject_id not in live])
        return Batch(deleted, last)

    async def _jobs(self, conn: AsyncConnection, behind: UUID) -> Batch:
        days = self._settings.jobs_days
        if days is None:
            return Batch(0)
        before = await repository.first_id_since(conn, timedelta(days=days))
        if keyless := await retention.keyless_before(conn):
            before = min(before, ids.earliest(keyless))  # skips jobs that a key still refers to
        last, expired = await retention.expired(
            conn, days, behind=behind, before=before, limit=min(self._batch, JOBS_BATCH)
        )
        needed = await webhooks.subjects_with_pending(conn, expired) | await assets.jobs_with_files(conn, expired)
        job_ids = [job_id for job_id in expired if job_id not in needed]
        if not job_ids:
            return Batch(0, last)
        for delete in (webhooks.delete_of_subjects, events.delete_of_subjects, assets.delete_of_jobs):
            await delete(conn, job_ids)
        return Batch(await retention.delete(conn, job_ids), last)
