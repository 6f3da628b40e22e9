"""SQL of retention: expired events. See docs/decisions/010."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.events.tables import events


async def expired(conn: AsyncConnection, days: int, *, behind: int, limit: int) -> tuple[int | None, dict[int, UUID]]:
    """Scan the next ``limit`` events after position ``behind`` for events older than ``days``: position → subject.

    Also returns the position of the last event scanned, None at the end of the expired ones. The log is ordered by
    time, except for concurrent transactions, so scanning it from its beginning needs no index on ``created_at``.
    """
    old = events.c.created_at < func.statement_timestamp() - func.make_interval(0, 0, 0, days)
    rows = await conn.execute(
        select(events.c.seq, events.c.subject_id, old).where(events.c.seq > behind).order_by(events.c.seq).limit(limit)
    )
    found = rows.all()
    more = len(found) == limit and found[-1][2]
    return found[-1][0] if more else None, {seq: subject_id for seq, subject_id, is_old in found if is_old}


async def delete(conn: AsyncConnection, seqs: Collection[int]) -> int:
    """Delete events by their position; returns the number deleted."""
    statement = text("DELETE FROM events WHERE seq = ANY(cast(:seqs AS bigint[]))")
    return (await conn.execute(statement, {"seqs": list(seqs)})).rowcount


async def delete_of_subjects(conn: AsyncConnection, subject_ids: Collection[UUID]) -> None:
    """Delete all events of the given subjects."""
    statement = text("DELETE FROM events WHERE subject_id = ANY(cast(:subjects AS uuid[]))")
    await conn.execute(statement, {"subjects": list(subject_ids)})
