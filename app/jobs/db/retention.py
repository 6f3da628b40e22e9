"""SQL of retention: which jobs nobody needs any more, and how they and their idempotency keys go. See decision 010."""

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


async def forget_keys(connection: AsyncConnection, days: int, limit: int) -> int:
    """Remove at most so many idempotency keys that are older than so many days, the oldest first; how many went."""
    return (await connection.execute(_KEYS, {"days": days, "limit": limit})).rowcount


async def live_among(connection: AsyncConnection, subject_ids: Collection[UUID]) -> set[UUID]:
    """Those of some ids that are of live jobs."""
    statement = text("SELECT job_id FROM schedule WHERE job_id = ANY(cast(:ids AS uuid[]))")
    return set(await connection.scalars(statement, {"ids": list(subject_ids)}))


# A key is made together with its job, so a job that is a day older than every key has none.
_KEYLESS = "SELECT min(created_at) - interval '1 day' FROM idempotency_keys"
_OVER = text(
    f"""
    SELECT id, finished_at < statement_timestamp() - make_interval(days => :days)
        AND created_at < coalesce(({_KEYLESS}), 'infinity')
        AND NOT EXISTS (SELECT FROM watches WHERE watches.job_id = jobs.id)
    FROM jobs WHERE id > :behind AND id < :before ORDER BY id LIMIT :limit
    """  # noqa: S608  # only our own constant is put in
)


async def keyless_before(connection: AsyncConnection) -> datetime | None:
    """No idempotency key leads to a job from before this moment; None when there are no keys at all."""
    moment: datetime | None = await connection.scalar(text(_KEYLESS))
    return moment


async def over(
    connection: AsyncConnection, days: int, *, behind: UUID, before: UUID, limit: int
) -> tuple[UUID | None, list[UUID]]:
    """Of the next ``limit`` jobs between two ids, those that ended more than so many days ago.

    Nobody watches them, and no idempotency key leads to them. With them comes the last one looked at; None where there
    are no more.
    """
    fields = {"days": days, "behind": behind, "before": before, "limit": limit}
    rows = (await connection.execute(_OVER, fields)).all()
    return rows[-1][0] if len(rows) == limit else None, [job_id for job_id, is_over in rows if is_over]


async def forget(connection: AsyncConnection, job_ids: Sequence[UUID]) -> int:
    """Remove jobs that have ended and their ledger; how many there were."""
    ids = {"ids": list(job_ids)}
    await connection.execute(text("DELETE FROM submissions WHERE job_id = ANY(cast(:ids AS uuid[]))"), ids)
    return (await connection.execute(text("DELETE FROM jobs WHERE id = ANY(cast(:ids AS uuid[]))"), ids)).rowcount
