"""SQL of retention: finds and deletes expired jobs and idempotency keys. See docs/decisions/010."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# statement_timestamp() is the same throughout a statement, so the index on created_at can be used.
_KEYS = text(
    """
    DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM idempotency_keys
        WHERE created_at < statement_timestamp() - make_interval(days => :days)
        ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ))
    """
)


async def delete_keys(conn: AsyncConnection, days: int, limit: int) -> int:
    """Delete at most ``limit`` idempotency keys older than ``days``, oldest first. Returns how many were deleted."""
    return (await conn.execute(_KEYS, {"days": days, "limit": limit})).rowcount


async def live_among(conn: AsyncConnection, subject_ids: Collection[UUID]) -> set[UUID]:
    """The ids among ``subject_ids`` that are ids of live jobs."""
    statement = text("SELECT job_id FROM schedule WHERE job_id = ANY(cast(:ids AS uuid[]))")
    return set(await conn.scalars(statement, {"ids": list(subject_ids)}))


# A key is inserted with its job, so a job that is a day older than every key has none.
_KEYLESS = "SELECT min(created_at) - interval '1 day' FROM idempotency_keys"
_EXPIRED = text(
    f"""
    SELECT id, finished_at < statement_timestamp() - make_interval(days => :days)
        AND created_at < coalesce(({_KEYLESS}), 'infinity')
        AND NOT EXISTS (SELECT FROM watches WHERE watches.job_id = jobs.id)
    FROM jobs WHERE id > :behind AND id < :before ORDER BY id LIMIT :limit
    """  # noqa: S608  # a constant
)


async def keyless_before(conn: AsyncConnection) -> datetime | None:
    """No idempotency key refers to a job created before this time; None if there are no keys."""
    moment: datetime | None = await conn.scalar(text(_KEYLESS))
    return moment


async def expired(
    conn: AsyncConnection, days: int, *, behind: UUID, before: UUID, limit: int
) -> tuple[UUID | None, list[UUID]]:
    """The expired jobs among the next ``limit`` between two ids, and the last id scanned (None at the end).

    A job is expired if it ended more than ``days`` ago, is not reconciled, and no idempotency key refers to it.
    """
    fields = {"days": days, "behind": behind, "before": before, "limit": limit}
    rows = (await conn.execute(_EXPIRED, fields)).all()
    return rows[-1][0] if len(rows) == limit else None, [job_id for job_id, is_expired in rows if is_expired]


async def delete(conn: AsyncConnection, job_ids: Sequence[UUID]) -> int:
    """Delete ended jobs and their ledger. Returns how many."""
    ids = {"ids": list(job_ids)}
    await conn.execute(text("DELETE FROM file_uses WHERE job_id = ANY(cast(:ids AS uuid[]))"), ids)
    await conn.execute(text("DELETE FROM submissions WHERE job_id = ANY(cast(:ids AS uuid[]))"), ids)
    return (await conn.execute(text("DELETE FROM jobs WHERE id = ANY(cast(:ids AS uuid[]))"), ids)).rowcount
