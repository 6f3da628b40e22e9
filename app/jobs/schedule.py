"""SQL of the schedule: the queue of live jobs. One narrow row each; always by the database's clock.

``next_at`` is when somebody should look at the job again; a claim moves it to the end of the claim's lease.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import NOW, interval
from app.jobs.records import Claim, Job
from app.jobs.states import LANES, State
from app.jobs.tables import schedule
from app.lanes import Overtaken
from app.queue import Lane


async def add(connection: AsyncConnection, job_id: UUID) -> None:
    """A new job, due at once."""
    await connection.execute(insert(schedule).values(job_id=job_id, lane=Lane.SUBMIT.value))


async def put(connection: AsyncConnection, job: Job, *, fence: int | None, next_in: float) -> None:
    """Hand a job that was moved to its new lane, due in so many seconds; or take it off the schedule at its end.

    A queued job is looked at when its deadline comes, whatever a provider asked for.

    Raises:
        Overtaken: the claim with this fence is over. None marks evidence, which ends every claim.
    """
    mine = schedule.c.job_id == job.id
    if fence is not None:
        mine = mine & (schedule.c.fence == fence)
    if job.final:
        result = await connection.execute(delete(schedule).where(mine))
    else:
        due = NOW + interval(next_in)
        values: dict[str, Any] = {
            "lane": LANES[job.state].value,
            "next_at": func.least(due, job.deadline_at) if job.state is State.QUEUED else due,
            "waits_for": None,
        }
        if fence is None:
            values["fence"] = schedule.c.fence + 1
        result = await connection.execute(update(schedule).where(mine).values(**values))
    if result.rowcount != 1:
        raise Overtaken


# statement_timestamp() is the same throughout a statement, so the index on next_at can be used.
_CLAIM = text(
    """
    WITH due AS (
        SELECT job_id FROM schedule
        WHERE lane = :lane AND next_at <= statement_timestamp()
        ORDER BY next_at, job_id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE schedule SET fence = fence + 1, next_at = clock_timestamp() + make_interval(secs => :lease), waits_for = NULL
    FROM due WHERE schedule.job_id = due.job_id
    RETURNING schedule.job_id, schedule.fence
    """
)


async def claim(connection: AsyncConnection, lane: Lane, limit: int, lease: float) -> list[Claim]:
    """Take up to ``limit`` due jobs of a lane for ``lease`` seconds, by the database's clock."""
    rows = await connection.execute(_CLAIM, {"lane": lane.value, "limit": limit, "lease": lease})
    return [Claim(job_id, fence) for job_id, fence in rows]


async def next_due(connection: AsyncConnection, lane: Lane) -> float | None:
    """Seconds until the lane's next job is due; None when it has none."""
    value: float | None = await connection.scalar(
        select(func.extract("epoch", func.min(schedule.c.next_at) - NOW)).where(schedule.c.lane == lane.value)
    )
    return None if value is None else float(value)


_DEFER = text(
    """
    UPDATE schedule SET next_at = clock_timestamp() + make_interval(secs => back.delay), waits_for = :waits_for
    FROM unnest(cast(:ids AS uuid[]), cast(:fences AS bigint[]), cast(:delays AS float8[])) AS back (id, fence, delay)
    WHERE schedule.job_id = back.id AND schedule.fence = back.fence
    """
)


async def defer(
    connection: AsyncConnection,
    claims: Sequence[tuple[Claim, float]],
    *,
    waits_for: str | None = None,
    only_mine: bool = False,
) -> None:
    """Hand jobs back, each to be looked at again in its own number of seconds; one statement for all.

    Raises:
        Overtaken: with ``only_mine``, when a claim is over; what else the transaction wrote must not be committed.
    """
    if not claims:
        return
    rows = await connection.execute(
        _DEFER,
        {
            "ids": [claim.job_id for claim, _ in claims],
            "fences": [claim.fence for claim, _ in claims],
            "delays": [delay for _, delay in claims],
            "waits_for": waits_for,
        },
    )
    if only_mine and rows.rowcount != len(claims):
        raise Overtaken


async def poll_now(connection: AsyncConnection, job_id: UUID) -> None:
    """Make a rendering job due at once. Polling it twice does no harm; in other lanes a lease must be left alone."""
    await connection.execute(
        update(schedule)
        .where(schedule.c.job_id == job_id, schedule.c.lane == Lane.POLL.value)
        .values(next_at=NOW, fence=schedule.c.fence + 1)
    )


async def wake_waiting(connection: AsyncConnection, upstream: str, slots: int) -> None:
    """Make the jobs that have waited longest for slots of a connection due now."""
    await connection.execute(
        text(
            """
            UPDATE schedule SET next_at = clock_timestamp(), waits_for = NULL WHERE job_id IN (
                SELECT job_id FROM schedule WHERE waits_for = :connection
                ORDER BY job_id LIMIT :slots FOR UPDATE SKIP LOCKED
            )
            """
        ),
        {"connection": upstream, "slots": slots},
    )


_EXTEND = text(
    """
    UPDATE schedule SET next_at = clock_timestamp() + make_interval(secs => :lease)
    FROM unnest(cast(:ids AS uuid[]), cast(:fences AS bigint[])) AS held (id, fence)
    WHERE schedule.job_id = held.id AND schedule.fence = held.fence
    """
)


async def extend(connection: AsyncConnection, held: Sequence[Claim], lease: float) -> bool:
    """A sign of life from a long step; False when none of its claims lasts any more."""
    fields = {"ids": [claim.job_id for claim in held], "fences": [claim.fence for claim in held], "lease": lease}
    return (await connection.execute(_EXTEND, fields)).rowcount > 0


async def oldest_overdue(connection: AsyncConnection) -> dict[Lane, float]:
    """By lane: for how many seconds its most overdue job has been due."""
    rows = await connection.execute(
        select(schedule.c.lane, func.extract("epoch", NOW - func.min(schedule.c.next_at))).group_by(schedule.c.lane)
    )
    return {Lane(lane): max(0.0, float(age)) for lane, age in rows}
