"""SQL of jobs and of their schedule. Callers own the transaction; a query for callers carries the account."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, case, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.jobs.records import Claim, Job, Ordered
from app.jobs.states import ALLOWED, FINAL, LANES, ChargeCertainty, State
from app.jobs.tables import idempotency_keys, jobs, schedule, submissions
from app.lanes import Overtaken
from app.providers.base import CancelOutcome
from app.queue import Lane

NOW = func.clock_timestamp()


def seconds(value: float) -> Any:
    """An interval, for arithmetic with the database's clock."""
    return func.make_interval(0, 0, 0, 0, 0, 0, value)


async def now(connection: AsyncConnection) -> datetime:
    """The database's clock: the only one that workers agree on."""
    value: datetime | None = await connection.scalar(select(NOW))
    assert value is not None
    return value


# Jobs ------------------------------------------------------------------------------------------------------------


async def create(connection: AsyncConnection, job_id: UUID, values: Mapping[str, Any], ordered: Ordered) -> Job:
    """Insert a queued job and its schedule row."""
    statement = (
        insert(jobs).values(id=job_id, state=State.QUEUED.value, request=asdict(ordered), **values).returning(*jobs.c)
    )
    row = (await connection.execute(statement)).mappings().one()
    await connection.execute(insert(schedule).values(job_id=job_id, lane=Lane.SUBMIT.value))
    return _job(row)


async def get(connection: AsyncConnection, job_id: UUID, *, account_id: UUID | None = None) -> Job | None:
    """One job; for a caller, only one of their account."""
    statement = select(jobs).where(jobs.c.id == job_id)
    if account_id is not None:
        statement = statement.where(jobs.c.account_id == account_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    return _job(row) if row else None


async def get_many(connection: AsyncConnection, job_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """Jobs by id, for the worker."""
    rows = await connection.execute(select(jobs).where(jobs.c.id.in_(job_ids)))
    return {row["id"]: _job(row) for row in rows.mappings()}


async def page(
    connection: AsyncConnection,
    account_id: UUID,
    *,
    limit: int,
    before: UUID | None,
    states: Collection[State],
    model: str | None,
    metadata: Mapping[str, str],
    created_after: datetime | None,
    created_before: datetime | None,
) -> list[Job]:
    """An account's jobs, newest first. Ids are UUIDv7, so their order is the order of creation."""
    statement = select(jobs).where(jobs.c.account_id == account_id)
    if before is not None:
        statement = statement.where(jobs.c.id < before)
    if states:
        statement = statement.where(jobs.c.state.in_([state.value for state in states]))
    if model is not None:
        statement = statement.where(jobs.c.model == model)
    if metadata:
        statement = statement.where(jobs.c.metadata.contains(dict(metadata)))
    if created_after is not None:
        statement = statement.where(jobs.c.created_at >= created_after)
    if created_before is not None:
        statement = statement.where(jobs.c.created_at < created_before)
    rows = await connection.execute(statement.order_by(jobs.c.id.desc()).limit(limit))
    return [_job(row) for row in rows.mappings()]


def _over_submissions(figure: Any) -> Any:
    return select(figure).where(submissions.c.job_id == jobs.c.id).correlate(jobs).scalar_subquery()


_UNSURE = submissions.c.charge_certainty
#: What a job has cost so far, and how sure that is: the worst of its submissions.
_CHARGED = {
    "cost": _over_submissions(
        case(
            (func.bool_or(submissions.c.cost.is_(None) & (_UNSURE != "none")), func.sum(submissions.c.cost)),
            else_=func.coalesce(func.sum(submissions.c.cost), 0),
        )
    ),
    "charge_certainty": _over_submissions(
        case(
            (func.bool_or(_UNSURE == "possible"), "possible"),
            (func.bool_or(_UNSURE == "certain"), "certain"),
            else_="none",
        )
    ),
}


async def move(
    connection: AsyncConnection,
    job_id: UUID,
    to: State,
    *,
    from_: Collection[State],
    fence: int | None,
    next_in: float = 0,
    **values: Any,
) -> Job:
    """Change a job's state: the one way to do it.

    ``fence`` is the claim's; None marks *evidence* (a remote id that we know of), which no fence may stop. ``next_in``
    is seconds until the new state's lane looks at the job; a job moved to ``submitting`` gets its lease this way.

    The job's cost and charge certainty are summed up anew from its submissions, so change those first.

    Raises:
        Overtaken: the job is not in ``from_``, or the claim is over; the caller's transaction must not commit.
    """
    for source in from_:
        assert (source, to) in ALLOWED, f"{source} → {to} is no move"
    finished: dict[str, Any] = {"finished_at": NOW} if to in FINAL else {}
    if to in {State.SUCCEEDED, State.FAILED}:
        # It ended by itself: a cancel that was asked for came too late, or was not possible.
        asked = jobs.c.cancel_requested_at.is_not(None)
        finished["cancel_outcome"] = case((asked, CancelOutcome.NOT_CANCELLABLE.value))
    changed = await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state.in_([state.value for state in from_]))
        .values(**{"state": to.value, "version": jobs.c.version + 1, "notice": None, **_CHARGED, **finished, **values})
        .returning(*jobs.c)
    )
    row = changed.mappings().one_or_none()
    if row is None:
        raise Overtaken
    await _reschedule(connection, job_id, to, fence, next_in)
    return _job(row)


async def _reschedule(connection: AsyncConnection, job_id: UUID, to: State, fence: int | None, next_in: float) -> None:
    mine = schedule.c.job_id == job_id
    if fence is not None:
        mine = mine & (schedule.c.fence == fence)
    if to in FINAL:
        result = await connection.execute(delete(schedule).where(mine))
    else:
        values: dict[str, Any] = {"lane": LANES[to].value, "next_at": NOW + seconds(next_in), "waits_for": None}
        if fence is None:
            values["fence"] = schedule.c.fence + 1
        result = await connection.execute(update(schedule).where(mine).values(**values))
    if result.rowcount != 1:
        raise Overtaken


async def amend(connection: AsyncConnection, job_id: UUID, **values: Any) -> Job:
    """Change a live job's facts, not its state (progress, cancel requested, notice).

    Raises:
        Overtaken: the job has ended.
    """
    changed = await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.finished_at.is_(None))
        .values(**{"version": jobs.c.version + 1, **values})
        .returning(*jobs.c)
    )
    row = changed.mappings().one_or_none()
    if row is None:
        raise Overtaken
    return _job(row)


async def notice(connection: AsyncConnection, job_id: UUID, words: str) -> Job | None:
    """Say what a live job is waiting for; None when it has ended, or says so already."""
    changed = await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.finished_at.is_(None), jobs.c.notice.is_distinct_from(words))
        .values(notice=words, version=jobs.c.version + 1)
        .returning(*jobs.c)
    )
    row = changed.mappings().one_or_none()
    return _job(row) if row else None


# The schedule ------------------------------------------------------------------------------------------------------


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
    connection: AsyncConnection, claims: Sequence[tuple[Claim, float]], *, waits_for: str | None = None
) -> int:
    """Hand jobs back, each to be looked at again in its own number of seconds; one statement for all."""
    if not claims:
        return 0
    rows = await connection.execute(
        _DEFER,
        {
            "ids": [claim.job_id for claim, _ in claims],
            "fences": [claim.fence for claim, _ in claims],
            "delays": [delay for _, delay in claims],
            "waits_for": waits_for,
        },
    )
    return rows.rowcount


async def poll_now(connection: AsyncConnection, job_id: UUID) -> None:
    """Make a rendering job due at once. Polling it twice does no harm; in other lanes a lease must be left alone."""
    await connection.execute(
        update(schedule).where(schedule.c.job_id == job_id, schedule.c.lane == Lane.POLL.value).values(next_at=NOW)
    )


async def wake_waiting(connection: AsyncConnection, upstream: str, slots: int) -> None:
    """Make the longest-waiting jobs for a connection's slots due now."""
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


async def extend(connection: AsyncConnection, held: Claim, lease: float) -> bool:
    """A sign of life from a long step; False when the claim is over."""
    result = await connection.execute(
        update(schedule)
        .where(schedule.c.job_id == held.job_id, schedule.c.fence == held.fence)
        .values(next_at=NOW + seconds(lease))
    )
    return result.rowcount == 1


# Idempotency -------------------------------------------------------------------------------------------------------


async def reserve_key(
    connection: AsyncConnection, account_id: UUID, key: str, body_hash: bytes, job_id: UUID
) -> tuple[bytes, UUID] | None:
    """Take an idempotency key for a job; None when it was free, else what it was taken for.

    A concurrent request with the same key waits here for the other's commit.
    """
    taken = await connection.execute(
        postgres_insert(idempotency_keys)
        .values(account_id=account_id, key=key, body_hash=body_hash, job_id=job_id)
        .on_conflict_do_nothing()
    )
    if taken.rowcount == 1:
        return None
    found = await connection.execute(
        select(idempotency_keys.c.body_hash, idempotency_keys.c.job_id).where(
            idempotency_keys.c.account_id == account_id, idempotency_keys.c.key == key
        )
    )
    return found.one()


async def forget_keys(connection: AsyncConnection, days: int, limit: int = 1000) -> int:
    """Remove idempotency keys older than so many days."""
    result = await connection.execute(
        text(
            """
            DELETE FROM idempotency_keys WHERE (account_id, key) IN (
                SELECT account_id, key FROM idempotency_keys
                WHERE created_at < clock_timestamp() - make_interval(days => :days) LIMIT :limit
            )
            """
        ),
        {"days": days, "limit": limit},
    )
    return result.rowcount


# Figures -----------------------------------------------------------------------------------------------------------


async def counts(connection: AsyncConnection) -> dict[State, int]:
    """Live jobs by state."""
    rows = await connection.execute(
        select(jobs.c.state, func.count()).where(jobs.c.finished_at.is_(None)).group_by(jobs.c.state)
    )
    return {State(state): number for state, number in rows}


async def oldest_overdue(connection: AsyncConnection) -> dict[Lane, float]:
    """By lane: for how many seconds its most overdue job has been due."""
    rows = await connection.execute(
        select(schedule.c.lane, func.extract("epoch", NOW - func.min(schedule.c.next_at))).group_by(schedule.c.lane)
    )
    return {Lane(lane): max(0.0, float(age)) for lane, age in rows}


def _job(row: RowMapping) -> Job:
    fields = dict(row)
    fields["ordered"] = Ordered(**fields.pop("request"))
    fields["state"] = State(fields["state"])
    fields["charge_certainty"] = ChargeCertainty(fields["charge_certainty"])
    return Job(**fields)
