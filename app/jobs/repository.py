"""SQL of jobs and of their schedule. Callers own the transaction; a query for callers carries the account."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import all_, case, func, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import NOW
from app.jobs import schedule
from app.jobs.failover import Turn
from app.jobs.records import Choice, Job, Ordered
from app.jobs.states import ALLOWED, FINAL, ChargeCertainty, State
from app.jobs.tables import idempotency_keys, jobs, submissions
from app.jobs.tables import schedule as schedule_table
from app.lanes import Overtaken
from app.providers.base import CancelOutcome


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
    job = _job((await connection.execute(statement)).mappings().one())
    await schedule.add(connection, job)
    return job


async def get(connection: AsyncConnection, job_id: UUID, *, account_id: UUID | None = None) -> Job | None:
    """One job; for a caller, only one of their account."""
    statement = select(jobs).where(jobs.c.id == job_id)
    if account_id is not None:
        statement = statement.where(jobs.c.account_id == account_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    return _job(row) if row else None


async def lock(connection: AsyncConnection, job_id: UUID, *, skip_locked: bool = False) -> Job | None:
    """One job, which nobody else changes until the transaction ends.

    ``skip_locked``: None too when somebody else is changing it just now.
    """
    mine = select(jobs).where(jobs.c.id == job_id).with_for_update(skip_locked=skip_locked)
    row = (await connection.execute(mine)).mappings().one_or_none()
    return _job(row) if row else None


async def lock_waiting(connection: AsyncConnection, upstream: str, job_ids: Sequence[UUID]) -> list[tuple[Job, str]]:
    """Those of some jobs that may be bought from a connection now, in that order, each with the model of its line.

    Jobs that somebody else is changing just now are left out.
    """
    rows = await connection.execute(
        select(*jobs.c, schedule_table.c.queue)
        .join(schedule_table, schedule_table.c.job_id == jobs.c.id)
        .where(
            jobs.c.id.in_(job_ids),
            jobs.c.state == State.QUEUED.value,
            jobs.c.cancel_requested_at.is_(None),
            jobs.c.deadline_at > NOW,
            literal(upstream) != all_(schedule_table.c.avoid),
        )
        .with_for_update(of=jobs, skip_locked=True)
    )
    found = {}
    for row in rows.mappings():
        fields = dict(row)
        model = fields.pop("queue")
        found[row["id"]] = (_job(fields), model)
    return [found[job_id] for job_id in job_ids if job_id in found]


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
    turn: Turn | None = None,
    **values: Any,
) -> Job:
    """Change a job's state: the one way to do it.

    ``fence`` is the claim's; None marks *evidence* (a remote id that we know of), which no fence may stop. ``next_in``
    is seconds until the new state's lane looks at the job; a job moved to ``submitting`` gets its lease this way.
    ``turn`` is where a job that is queued again waits.

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
    if to is State.CANCELED:
        finished["cancel_outcome"] = CancelOutcome.CONFIRMED.value
    changed = await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state.in_([state.value for state in from_]))
        .values(**{"state": to.value, "version": jobs.c.version + 1, "notice": None, **_CHARGED, **finished, **values})
        .returning(*jobs.c)
    )
    row = changed.mappings().one_or_none()
    if row is None:
        raise Overtaken
    job = _job(row)
    await schedule.put(connection, job, fence=fence, next_in=next_in, turn=turn)
    return job


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


async def recount(connection: AsyncConnection, job_id: UUID) -> Job:
    """Sum up a job's cost and charge certainty from its submissions."""
    changed = await connection.execute(
        update(jobs).where(jobs.c.id == job_id).values(**{"version": jobs.c.version + 1, **_CHARGED}).returning(*jobs.c)
    )
    return _job(changed.mappings().one())


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


def _job(row: Mapping[Any, Any]) -> Job:
    fields = dict(row)
    fields["ordered"] = Ordered(**fields.pop("request"))
    fields["fallbacks"] = tuple(Choice.restored(values) for values in fields["fallbacks"])
    fields["state"] = State(fields["state"])
    fields["charge_certainty"] = ChargeCertainty(fields["charge_certainty"])
    return Job(**fields)
