"""SQL of retention: events whose time is over. See decision 010."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.events.tables import events


async def forgettable(
    connection: AsyncConnection, days: int, *, behind: int, limit: int
) -> tuple[int | None, dict[int, UUID]]:
    """Of the next ``limit`` events behind a place, those that are more than so many days old: their subjects, by place.

    With them comes the place of the last one looked at; None where the young ones begin. The log is in the order of
    time, but for what is written at the same moment: so its beginning is looked at, and no index on its time is needed.
    """
    old = events.c.created_at < func.statement_timestamp() - func.make_interval(0, 0, 0, days)
    rows = await connection.execute(
        select(events.c.seq, events.c.subject_id, old).where(events.c.seq > behind).order_by(events.c.seq).limit(limit)
    )
    found = rows.all()
    goes_on = len(found) == limit and found[-1][2]
    return found[-1][0] if goes_on else None, {seq: subject_id for seq, subject_id, is_old in found if is_old}


async def forget(connection: AsyncConnection, places: Collection[int]) -> int:
    """Remove events by their place; how many there were."""
    statement = text("DELETE FROM events WHERE seq = ANY(cast(:places AS bigint[]))")
    return (await connection.execute(statement, {"places": list(places)})).rowcount


async def forget_subjects(connection: AsyncConnection, subject_ids: Collection[UUID]) -> None:
    """Remove all events of some subjects."""
    statement = text("DELETE FROM events WHERE subject_id = ANY(cast(:subjects AS uuid[]))")
    await connection.execute(statement, {"subjects": list(subject_ids)})
