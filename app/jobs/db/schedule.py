"""SQL of the schedule: the queue of live jobs. One narrow row each; always by the database's clock.

A job in the `submit` lane waits in the line of a model: :mod:`app.jobs.engine.admission` lets it in. In the other lanes
``next_at`` is when somebody should look at the job again; a claim moves it to the end of the claim's lease.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import Overtaken
from app.infra.db import NOW, interval
from app.infra.queue import Lane
from app.jobs.db.tables import schedule
from app.jobs.failover import Turn
from app.jobs.records import Claim, Job
from app.jobs.states import LANES, State


async def put(
    connection: AsyncConnection, job: Job, *, fence: int | None, next_in: float, turn: Turn | None = None
) -> None:
    """Hand a job that was moved to its new lane, due in so many seconds; or take it off the schedule at its end.

    Every claim on it is over then. ``turn`` is where a job that is queued again waits.

    Raises:
        Overtaken: the claim with this fence is over already. None marks evidence, which needs no claim.
    """
    mine = schedule.c.job_id == job.id
    if fence is not None:
        mine = mine & (schedule.c.fence == fence)
    if job.final:
        result = await connection.execute(delete(schedule).where(mine))
    else:
        due = NOW + interval(next_in)
        values: dict[str, Any] = {"lane": LANES[job.state].value, "next_at": due, "queue": None, "ready_at": None}
        # The claim is over: a sign of life for others of its batch must not move the new lane's date, or a deadline.
        values["fence"] = schedule.c.fence + 1
        if job.state is State.QUEUED:
            turn = turn or Turn(job.model)
            values |= {"queue": turn.model, "avoid": list(turn.avoid), "diverts": _diverts(job, turn)}
            values |= {"ready_at": due, "next_at": job.deadline_at}
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
    UPDATE schedule SET fence = fence + 1, next_at = clock_timestamp() + make_interval(secs => :lease)
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
    UPDATE schedule SET next_at = clock_timestamp() + make_interval(secs => back.delay)
    FROM unnest(cast(:ids AS uuid[]), cast(:fences AS bigint[]), cast(:delays AS float8[])) AS back (id, fence, delay)
    WHERE schedule.job_id = back.id AND schedule.fence = back.fence
    """
)


async def defer(connection: AsyncConnection, claims: Sequence[tuple[Claim, float]], *, only_mine: bool = False) -> None:
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
        },
    )
    if only_mine and rows.rowcount != len(claims):
        raise Overtaken


async def look_now(connection: AsyncConnection, job: Job) -> None:
    """Make a job due at once whose provider may have news: looking twice does no harm.

    In other states a lease must be left alone: its end would mean something.
    """
    if job.state in {State.RUNNING, State.SUBMIT_UNKNOWN}:
        await connection.execute(
            update(schedule).where(schedule.c.job_id == job.id).values(next_at=NOW, fence=schedule.c.fence + 1)
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


# The lines: jobs that wait to be bought ----------------------------------------------------------------------------

# Each (line, account) that has jobs, by hopping from one to the next in the index: as many steps as there are pairs,
# however many jobs wait.
_LINES = """
    WITH RECURSIVE lines AS (
        (SELECT queue, account_id FROM schedule WHERE queue IS NOT NULL ORDER BY queue, account_id LIMIT 1)
        UNION ALL
        SELECT following.queue, following.account_id FROM lines CROSS JOIN LATERAL (
            SELECT queue, account_id FROM schedule
            WHERE queue IS NOT NULL AND (queue, account_id) > (lines.queue, lines.account_id)
            ORDER BY queue, account_id LIMIT 1
        ) AS following
    )
"""
#: How many submissions of a connection tell which account had its turn how long ago.
REMEMBERED = 200
_MAY_START = "next_at > statement_timestamp() AND (ready_at IS NULL OR ready_at <= statement_timestamp())"

_FAIREST = text(
    f"""
    {_LINES}, taken AS (
        SELECT account_id, count(*) AS slots FROM submissions
        WHERE connection = :connection AND state IN ('sending', 'unknown', 'accepted') AND results IS NULL
        GROUP BY account_id
    ), served AS (
        SELECT account_id, max(created_at) AS last FROM (
            SELECT account_id, created_at FROM submissions WHERE connection = :connection
            ORDER BY created_at DESC LIMIT {REMEMBERED}
        ) AS latest GROUP BY account_id
    ), ranked AS (
        SELECT job_id, row_number() OVER (PARTITION BY lines.account_id ORDER BY priority DESC, job_id)
            + coalesce(taken.slots, 0) AS turn, served.last
        FROM lines
        CROSS JOIN LATERAL (
            SELECT job_id, priority FROM schedule
            WHERE schedule.queue = lines.queue AND schedule.account_id = lines.account_id AND {_MAY_START}
                AND NOT :connection = ANY(avoid)
            ORDER BY priority DESC, job_id LIMIT :limit
        ) AS waiting
        LEFT JOIN taken ON taken.account_id = lines.account_id
        LEFT JOIN served ON served.account_id = lines.account_id
        WHERE lines.queue = ANY(cast(:queues AS text[]))
    )
    SELECT job_id FROM ranked ORDER BY turn, last NULLS FIRST, job_id LIMIT :limit
    """  # noqa: S608  # only our own constants are put in
)


async def lines(connection: AsyncConnection) -> set[str]:
    """The models in whose lines jobs wait."""
    return set(await connection.scalars(text(f"{_LINES} SELECT DISTINCT queue FROM lines")))  # noqa: S608


async def fairest(connection: AsyncConnection, upstream: str, models: Collection[str], limit: int) -> list[UUID]:
    """Whose turn it is on a connection: at most so many jobs, the fairest choice first.

    Every job counts for its account as one slot more than those before it: so who holds the fewest slots is next; among
    equals, who was served longest ago; and inside an account priority decides, then age.
    """
    fields = {"connection": upstream, "queues": list(models), "limit": limit}
    return list(await connection.scalars(_FAIREST, fields))


async def set_back(connection: AsyncConnection, job_id: UUID, seconds: float) -> None:
    """Do not let a waiting job in for so many seconds."""
    await connection.execute(
        update(schedule)
        .where(schedule.c.job_id == job_id, schedule.c.queue.is_not(None))
        .values(ready_at=NOW + interval(seconds))
    )


async def next_ready(connection: AsyncConnection) -> float | None:
    """Seconds until the next job that had to wait may be bought; None when none has to."""
    # As text, so that the partial index is seen to fit.
    value = await connection.scalar(
        text(
            "SELECT extract(epoch FROM min(ready_at) - clock_timestamp()) FROM schedule "
            "WHERE queue IS NOT NULL AND ready_at > statement_timestamp()"
        )
    )
    return None if value is None else float(value)


async def stranded(connection: AsyncConnection, queue: str, ways: Collection[str], limit: int) -> list[UUID]:
    """Jobs in a line that may start, want none of the ways that are left, and may have others."""
    # As text, so that the partial index is seen to fit.
    rows = await connection.scalars(
        text(
            "SELECT job_id FROM schedule WHERE queue = :queue AND diverts "  # noqa: S608
            f"AND avoid @> cast(:ways AS text[]) AND {_MAY_START} LIMIT :limit"
        ),
        {"queue": queue, "ways": list(ways), "limit": limit},
    )
    return list(rows)


async def divert(connection: AsyncConnection, job: Job, queue: str, turn: Turn) -> bool:
    """Let a job of a line wait for another way; False when that is no other, or the job is no longer there."""
    other = or_(schedule.c.queue != turn.model, schedule.c.avoid != list(turn.avoid))
    result = await connection.execute(
        update(schedule)
        .where(schedule.c.job_id == job.id, schedule.c.queue == queue, other)
        .values(queue=turn.model, avoid=list(turn.avoid), diverts=_diverts(job, turn))
    )
    return result.rowcount == 1


def _diverts(job: Job, turn: Turn) -> bool:
    return bool(job.fallbacks or turn.avoid)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queued job stands: ``ahead`` are the jobs that have their turn before it."""

    queue: str
    ahead: int


# How many wait of each account is counted once, however many jobs are asked for together.
_PLACES = text(
    f"""
    {_LINES}, mine AS MATERIALIZED (
        SELECT me.job_id, me.queue, me.account_id, own.ahead
        FROM schedule AS me CROSS JOIN LATERAL (
            SELECT count(*) AS ahead FROM (
                (SELECT FROM schedule WHERE schedule.queue = me.queue AND schedule.account_id = me.account_id
                    AND schedule.priority > me.priority LIMIT :cap)
                UNION ALL
                (SELECT FROM schedule WHERE schedule.queue = me.queue AND schedule.account_id = me.account_id
                    AND schedule.priority = me.priority AND schedule.job_id < me.job_id LIMIT :cap)
                LIMIT :cap
            ) AS before
        ) AS own
        WHERE me.job_id = ANY(cast(:job_ids AS uuid[])) AND me.queue IS NOT NULL
    ), waiting AS MATERIALIZED (
        SELECT lines.queue, lines.account_id, counted.jobs
        FROM lines CROSS JOIN LATERAL (
            SELECT count(*) AS jobs FROM (
                SELECT FROM schedule WHERE queue = lines.queue AND account_id = lines.account_id
                LIMIT (SELECT max(ahead) + 1 FROM mine)
            ) AS first
        ) AS counted
        WHERE lines.queue IN (SELECT queue FROM mine)
    )
    SELECT job_id, queue, ahead + coalesce((
        SELECT sum(least(waiting.jobs, mine.ahead + 1)) FROM waiting
        WHERE waiting.queue = mine.queue AND waiting.account_id <> mine.account_id
    ), 0) AS ahead
    FROM mine
    """  # noqa: S608
)


async def places(connection: AsyncConnection, job_ids: Sequence[UUID], cap: int) -> dict[UUID, Place]:
    """Where jobs stand; those that wait in no line are left out. ``ahead`` is exact up to ``cap`` of the own account.

    Accounts take turns, so of every other account as many jobs go before it as of its own, and one more.
    """
    rows = await connection.execute(_PLACES, {"job_ids": list(job_ids), "cap": cap})
    return {row.job_id: Place(row.queue, int(row.ahead)) for row in rows}


async def oldest_overdue(connection: AsyncConnection) -> dict[Lane, float]:
    """By lane: for how many seconds its most overdue job has been due."""
    rows = await connection.execute(
        select(schedule.c.lane, func.extract("epoch", NOW - func.min(schedule.c.next_at))).group_by(schedule.c.lane)
    )
    return {Lane(lane): max(0.0, float(age)) for lane, age in rows}
