"""SQL of retention: deliveries that have ended, and their attempts. See decision 010."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Ids are made in the order of time, so what was owed before a moment is a range of the key. Looked at is everything in
# it, so that a batch is a batch also where much of it is still owed.
_FORGET = text(
    """
    WITH looked_at AS (
        SELECT id, state FROM webhook_deliveries WHERE id > :behind AND id < :before ORDER BY id LIMIT :limit
    ), gone AS (
        DELETE FROM webhook_deliveries AS delivery USING looked_at
        WHERE delivery.id = looked_at.id AND delivery.state <> 'pending'
        RETURNING delivery.id
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM looked_at),
        (SELECT id FROM looked_at ORDER BY id DESC LIMIT 1)
    """
)


async def forget(connection: AsyncConnection, *, behind: UUID, before: UUID, limit: int) -> tuple[UUID | None, int]:
    """Of the next ``limit`` deliveries between two ids, remove those that have ended, with their attempts.

    Returns the last one looked at, None where there are no more, and how many went.
    """
    fields = {"behind": behind, "before": before, "limit": limit}
    gone, looked_at, last = (await connection.execute(_FORGET, fields)).one()
    return last if looked_at == limit else None, gone


async def owing(connection: AsyncConnection, subject_ids: Collection[UUID]) -> set[UUID]:
    """Those of some subjects that have a delivery which has not ended."""
    statement = text(
        "SELECT subject_id FROM webhook_deliveries WHERE subject_id = ANY(cast(:subjects AS uuid[])) "
        "AND state = 'pending'"
    )
    return set(await connection.scalars(statement, {"subjects": list(subject_ids)}))


async def forget_subjects(connection: AsyncConnection, subject_ids: Collection[UUID]) -> None:
    """Remove all deliveries of some subjects, with their attempts."""
    statement = text("DELETE FROM webhook_deliveries WHERE subject_id = ANY(cast(:subjects AS uuid[]))")
    await connection.execute(statement, {"subjects": list(subject_ids)})
