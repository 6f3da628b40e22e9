"""SQL of the schedule: one narrow row per live job. All times are the database's.

A job in the `submit` lane waits in the line of a model until :mod:`app.jobs.engine.admission` admits it. In the other
lanes ``next_at`` is when the job is due; a claim moves it to the end of its lease.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import ClaimLost, ClaimTable
from app.infra.db import NOW, interval
from app.infra.queue import Lane
from app.jobs.db.tables import schedule
from app.jobs.failover import NextRoute
from app.jobs.records import Claim, Job
from app.jobs.states import LANES, State


async def put(
    conn: AsyncConnection, job: Job, *, fence: int | None, next_in: float, route: NextRoute | None = None
) -> None:
    """Put a job into the lane of its new state, due in ``next_in`` seconds; delete the row of one that has ended.

    Ends every claim on it. ``route`` is the route that a requeued job waits for.

    Raises:
        ClaimLost: the claim with this fence is no longer held. None marks evidence, which needs no claim.
    """
    mine = schedule.c.job_id == job.id
    if fence is not None:
        mine = mine & (schedule.c.fence == fence)
    if job.final:
        result = await conn.execute(delete(schedule).where(mine))
    else:
        due = NOW + interval(next_in)
        values: dict[str, Any] = {"lane": LANES[job.state].value, "next_at": due, "queue": None, "ready_at": None}
        # Ends the claim: extending the lease of its batch must not move the due time of the new lane, or a deadline.
        values["fence"] = schedule.c.fence + 1
        if job.state is State.QUEUED:
            route = route or NextRoute(job.model)
            values |= {"queue": route.model, "avoid": list(route.avoid), "diverts": _diverts(job, route)}
            values |= {"ready_at": due, "next_at": job.deadline_at}
        result = await conn.execute(update(schedule).where(mine).values(**values))
    if result.rowcount != 1:
        raise ClaimLost


_CLAIMS = ClaimTable("schedule", "job_id", due="lane = :lane")


async def claim(conn: AsyncConnection, lane: Lane, limit: int, lease: float) -> list[Claim]:
    """Take up to ``limit`` due jobs of a lane for ``lease`` seconds."""
    rows = await _CLAIMS.claim(conn, limit, lease, {"lane": lane.value})
    return [Claim(row.job_id, row.fence) for row in rows]


async def next_due(conn: AsyncConnection, lane: Lane) -> float | None:
    """Seconds until the lane's next job is due; None when it has none."""
    return await _CLAIMS.next_due(conn, {"lane": lane.value})


async def defer(conn: AsyncConnection, claims: Sequence[tuple[Claim, float]], *, all_held: bool = False) -> None:
    """Release jobs, each due again after its delay in seconds; one statement for all.

    Raises:
        ClaimLost: with ``all_held``, if one of the claims is lost; the transaction must not commit.
    """
    deferred = await _CLAIMS.defer(conn, [claim.held for claim, _ in claims], [delay for _, delay in claims])
    if all_held and deferred != len(claims):
        raise ClaimLost


async def extend(conn: AsyncConnection, claims: Sequence[Claim], lease: float) -> bool:
    """Extend the leases of a long step. False if none of its claims is held any more."""
    return await _CLAIMS.extend(conn, [claim.held for claim in claims], lease)


async def make_due(conn: AsyncConnection, job: Job) -> None:
    """Make a job due at once if its provider may have a new status: an additional poll is harmless.

    In other states the lease must not end early: its end would change the job's state.
    """
    if job.state in {State.RUNNING, State.SUBMIT_UNKNOWN}:
        await conn.execute(
            update(schedule).where(schedule.c.job_id == job.id).values(next_at=NOW, fence=schedule.c.fence + 1)
        )


# The lines: jobs that wait to be submitted -------------------------------------------------------------------------

# Each (line, account) that has jobs, by a loose index scan: as many steps as there are pairs, however many jobs wait.
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
#: The number of latest submissions of a connection that tell when each account was last served.
RECENT_SUBMISSIONS = 200
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
            ORDER BY created_at DESC LIMIT {RECENT_SUBMISSIONS}
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
    """  # noqa: S608  # constants
)


async def lines(conn: AsyncConnection) -> set[str]:
    """The models in whose lines jobs wait."""
    return set(await conn.scalars(text(f"{_LINES} SELECT DISTINCT queue FROM lines")))  # noqa: S608


async def fairest(conn: AsyncConnection, connection: str, models: Collection[str], limit: int) -> list[UUID]:
    """The next jobs for a connection, at most ``limit``, the fairest choice first.

    The account with the fewest slots comes first, then the one served longest ago; within an account priority decides,
    then age. A chosen job counts as a slot of its account for those after it.
    """
    fields = {"connection": connection, "queues": list(models), "limit": limit}
    return list(await conn.scalars(_FAIREST, fields))


async def postpone(conn: AsyncConnection, job_id: UUID, seconds: float) -> None:
    """Do not admit a waiting job for some seconds."""
    await conn.execute(
        update(schedule)
        .where(schedule.c.job_id == job_id, schedule.c.queue.is_not(None))
        .values(ready_at=NOW + interval(seconds))
    )


async def next_ready(conn: AsyncConnection) -> float | None:
    """Seconds until the next postponed job may be submitted; None if there is none."""
    # As text, so that the planner matches the partial index.
    value = await conn.scalar(
        text(
            "SELECT extract(epoch FROM min(ready_at) - clock_timestamp()) FROM schedule "
            "WHERE queue IS NOT NULL AND ready_at > statement_timestamp()"
        )
    )
    return None if value is None else float(value)


async def divertible(conn: AsyncConnection, queue: str, connections: Collection[str], limit: int) -> list[UUID]:
    """Jobs in a line that may start, avoid all of the open connections, and may have other routes."""
    # As text, so that the planner matches the partial index.
    rows = await conn.scalars(
        text(
            "SELECT job_id FROM schedule WHERE queue = :queue AND diverts "  # noqa: S608
            f"AND avoid @> cast(:connections AS text[]) AND {_MAY_START} LIMIT :limit"
        ),
        {"queue": queue, "connections": list(connections), "limit": limit},
    )
    return list(rows)


async def divert(conn: AsyncConnection, job: Job, queue: str, route: NextRoute) -> bool:
    """Let a job wait for another route; False if it waits for that one already, or has left the line."""
    other = or_(schedule.c.queue != route.model, schedule.c.avoid != list(route.avoid))
    result = await conn.execute(
        update(schedule)
        .where(schedule.c.job_id == job.id, schedule.c.queue == queue, other)
        .values(queue=route.model, avoid=list(route.avoid), diverts=_diverts(job, route))
    )
    return result.rowcount == 1


def _diverts(job: Job, route: NextRoute) -> bool:
    return bool(job.fallbacks or route.avoid)


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The position of a queued job in its line: ``ahead`` is the number of jobs before it."""

    queue: str
    ahead: int


# The waiting jobs of each account are counted once, however many positions are read together.
_POSITIONS = text(
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


async def positions(conn: AsyncConnection, job_ids: Sequence[UUID], cap: int) -> dict[UUID, QueuePosition]:
    """The queue positions of jobs; those that wait in no line are left out. Exact up to ``cap`` jobs of the account.

    Accounts take turns: each other account has up to one more job ahead than the job's own account.
    """
    rows = await conn.execute(_POSITIONS, {"job_ids": list(job_ids), "cap": cap})
    return {row.job_id: QueuePosition(row.queue, int(row.ahead)) for row in rows}


_LIVE_JOBS = text(
    """
    SELECT account.id, counted.number FROM unnest(cast(:account_ids AS uuid[])) AS account (id), LATERAL (
        SELECT count(*) AS number FROM (SELECT FROM schedule WHERE account_id = account.id LIMIT :cap) AS live
    ) AS counted
    """
)


async def live_jobs(conn: AsyncConnection, account_ids: Collection[UUID], cap: int) -> dict[UUID, int]:
    """How many jobs of each account have not ended, counted up to ``cap``."""
    rows = await conn.execute(_LIVE_JOBS, {"account_ids": list(account_ids), "cap": cap})
    return dict(rows.all())


async def oldest_overdue(conn: AsyncConnection) -> dict[Lane, float]:
    """By lane: for how many seconds its most overdue job has been due."""
    rows = await conn.execute(
        select(schedule.c.lane, func.extract("epoch", NOW - func.min(schedule.c.next_at))).group_by(schedule.c.lane)
    )
    return {Lane(lane): max(0.0, float(age)) for lane, age in rows}
