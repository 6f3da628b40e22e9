"""SQL of retention: ended deliveries and their attempts. See docs/decisions/010."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Ids are ordered by time, so the deliveries created before a moment are a range of the primary key. The limit counts
# all rows scanned, also pending ones, so that a batch stays small when much of it is still pending.
_DELETE_ENDED = text(
    """
    WITH scanned AS (
        SELECT id, state FROM webhook_deliveries WHERE id > :behind AND id < :before ORDER BY id LIMIT :limit
    ), deleted AS (
        DELETE FROM webhook_deliveries AS delivery USING scanned
        WHERE delivery.id = scanned.id AND delivery.state <> 'pending'
        RETURNING delivery.id
    )
    SELECT (SELECT count(*) FROM deleted), (SELECT count(*) FROM scanned),
        (SELECT id FROM scanned ORDER BY id DESC LIMIT 1)
    """
)


async def delete_ended(conn: AsyncConnection, *, behind: UUID, before: UUID, limit: int) -> tuple[UUID | None, int]:
    """Scan the next ``limit`` deliveries between two ids and delete those that have ended, with their attempts.

    Returns the id of the last delivery scanned, None if there are no more, and the number deleted.
    """
    fields = {"behind": behind, "before": before, "limit": limit}
    deleted, scanned, last = (await conn.execute(_DELETE_ENDED, fields)).one()
    return last if scanned == limit else None, deleted


async def subjects_with_pending(conn: AsyncConnection, subject_ids: Collection[UUID]) -> set[UUID]:
    """The given subjects that have a pending delivery."""
    statement = text(
        "SELECT subject_id FROM webhook_deliveries WHERE subject_id = ANY(cast(:subjects AS uuid[])) "
        "AND state = 'pending'"
    )
    return set(await conn.scalars(statement, {"subjects": list(subject_ids)}))


async def delete_of_subjects(conn: AsyncConnection, subject_ids: Collection[UUID]) -> None:
    """Delete all deliveries of the given subjects, with their attempts."""
    statement = text("DELETE FROM webhook_deliveries WHERE subject_id = ANY(cast(:subjects AS uuid[]))")
    await conn.execute(statement, {"subjects": list(subject_ids)})
