"""SQL of the watches: purchases that are looked at after their job has ended. Claimed as the schedule is."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import Overtaken
from app.infra.db import NOW, interval
from app.jobs.db.tables import watches


@dataclass(frozen=True, slots=True)
class Watch:
    """The right to look at a purchase until the lease is over."""

    submission_id: UUID
    job_id: UUID
    fence: int
    over: bool  # nobody waits for it any longer


async def add(connection: AsyncConnection, submission_id: UUID, job_id: UUID, *, next_in: float, last: float) -> None:
    """Watch a purchase on, for ``last`` seconds at most. One that is watched already is looked at sooner."""
    statement = insert(watches).values(
        submission_id=submission_id, job_id=job_id, next_at=NOW + interval(next_in), until=NOW + interval(last)
    )
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[watches.c.submission_id],
            set_={
                "next_at": func.least(watches.c.next_at, statement.excluded.next_at),
                "until": func.greatest(watches.c.until, statement.excluded.until),
                "fence": watches.c.fence + 1,
            },
        )
    )


_CLAIM = text(
    """
    WITH due AS (
        SELECT submission_id FROM watches WHERE next_at <= statement_timestamp()
        ORDER BY next_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE watches SET fence = fence + 1, next_at = clock_timestamp() + make_interval(secs => :lease)
    FROM due WHERE watches.submission_id = due.submission_id
    RETURNING watches.submission_id, job_id, fence, until <= clock_timestamp()
    """
)


async def claim(connection: AsyncConnection, limit: int, lease: float) -> list[Watch]:
    """Take up to ``limit`` due watches for ``lease`` seconds."""
    return [Watch(*row) for row in await connection.execute(_CLAIM, {"limit": limit, "lease": lease})]


async def next_due(connection: AsyncConnection) -> float | None:
    """Seconds until the next look; None when nothing is watched."""
    value = await connection.scalar(select(func.extract("epoch", func.min(watches.c.next_at) - NOW)))
    return None if value is None else float(value)


async def extend(connection: AsyncConnection, watch: Watch, lease: float) -> bool:
    """A sign of life; False when somebody else has it now."""
    mine = (watches.c.submission_id == watch.submission_id) & (watches.c.fence == watch.fence)
    result = await connection.execute(update(watches).where(mine).values(next_at=NOW + interval(lease)))
    return result.rowcount == 1


async def later(connection: AsyncConnection, watch: Watch, delay: float) -> None:
    """Look again in so many seconds, unless somebody else has it now."""
    await connection.execute(
        update(watches)
        .where(watches.c.submission_id == watch.submission_id, watches.c.fence == watch.fence)
        .values(next_at=NOW + interval(delay))
    )


async def end(connection: AsyncConnection, watch: Watch) -> None:
    """The truth is known, or nobody waits for it any longer.

    Raises:
        Overtaken: somebody else has it now.
    """
    mine = (watches.c.submission_id == watch.submission_id) & (watches.c.fence == watch.fence)
    if (await connection.execute(delete(watches).where(mine))).rowcount != 1:
        raise Overtaken
