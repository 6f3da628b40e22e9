"""SQL of jobs and of their schedule. Callers own the transaction; a query for callers carries the account."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, all_, and_, bindparam, case, cast, func, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import Overtaken
from app.events.repository import Fact
from app.ids import earliest
from app.infra.db import NOW
from app.jobs.db import schedule
from app.jobs.db.tables import idempotency_keys, jobs, submissions
from app.jobs.db.tables import schedule as schedule_table
from app.jobs.failover import Turn
from app.jobs.records import Choice, Draft, Job, Ordered
from app.jobs.states import ALLOWED, FINAL, ChargeCertainty, State
from app.providers.base import CancelOutcome


async def now(connection: AsyncConnection) -> datetime:
    """The database's clock: the only one that workers agree on."""
    value: datetime | None = await connection.scalar(select(NOW))
    assert value is not None
    return value


async def first_id_since(connection: AsyncConnection, age: timedelta) -> UUID:
    """Less than every id that was made within that time, by the database's clock."""
    return earliest(await now(connection) - age)


# Jobs ------------------------------------------------------------------------------------------------------------


# A batch in one statement, so that a job costs a share of a round trip. Keys are taken in one order everywhere: two
# batches that hold each other's keys would wait for ever.
_CREATE = text(
    """
    WITH draft AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(cast(:drafts AS jsonb)) AS draft (
            id uuid, account_id uuid, model text, request jsonb, adjustments jsonb, metadata jsonb, fallbacks jsonb,
            fallback_on_refusal boolean, max_cost numeric, priority smallint, webhook_url text, notice text,
            estimated_cost numeric, deadline_seconds float8, diverts boolean, key text, body_hash bytea,
            event_id uuid, event_type text, event jsonb
        )
    ), kept AS (
        INSERT INTO idempotency_keys (account_id, key, body_hash, job_id)
        SELECT account_id, key, body_hash, id FROM draft WHERE key IS NOT NULL ORDER BY account_id, key
        ON CONFLICT DO NOTHING RETURNING job_id
    ), made AS (
        INSERT INTO jobs (id, account_id, state, model, request, adjustments, metadata, fallbacks, fallback_on_refusal,
            max_cost, priority, webhook_url, notice, estimated_cost, deadline_at)
        SELECT id, account_id, 'queued', model, request, adjustments, metadata, fallbacks, fallback_on_refusal,
            max_cost, priority, webhook_url, notice, estimated_cost,
            clock_timestamp() + make_interval(secs => deadline_seconds)
        FROM draft WHERE key IS NULL OR id IN (SELECT job_id FROM kept)
        RETURNING id, created_at, deadline_at
    ), scheduled AS (
        INSERT INTO schedule (job_id, account_id, lane, queue, priority, diverts, next_at)
        SELECT id, account_id, 'submit', model, priority, diverts, deadline_at FROM made JOIN draft USING (id)
    ), told AS (
        INSERT INTO events (id, account_id, subject_id, type, version, data)
        SELECT event_id, account_id, id, event_type, 1, event FROM made JOIN draft USING (id)
    )
    SELECT id, created_at, deadline_at FROM made
    """
)


async def create(connection: AsyncConnection, drafts: Sequence[tuple[Draft, Fact]]) -> dict[UUID, Job]:
    """Insert queued jobs, their schedule rows, their idempotency keys and their first events.

    A draft whose key was taken before, or by another of the drafts, makes no job and is not in the result. A concurrent
    transaction with the same key is waited for.
    """
    rows = await connection.execute(_CREATE, {"drafts": json.dumps([_columns(*draft) for draft in drafts])})
    times = {job_id: (created_at, deadline_at) for job_id, created_at, deadline_at in rows}
    return {draft.id: draft.job(*times[draft.id]) for draft, _ in drafts if draft.id in times}


def _columns(draft: Draft, fact: Fact) -> dict[str, Any]:
    return {
        "id": str(draft.id),
        "account_id": str(draft.account_id),
        "model": draft.chosen.model,
        "request": draft.chosen.ordered.stored(),
        "adjustments": draft.chosen.adjustments,
        "metadata": draft.metadata,
        "fallbacks": [choice.stored() for choice in draft.fallbacks],
        "fallback_on_refusal": draft.fallback_on_refusal,
        "max_cost": None if draft.max_cost is None else str(draft.max_cost),
        "priority": draft.priority,
        "webhook_url": draft.webhook_url,
        "notice": draft.notice,
        "estimated_cost": None if draft.chosen.estimated_cost is None else str(draft.chosen.estimated_cost),
        "deadline_seconds": draft.deadline_seconds,
        "diverts": bool(draft.fallbacks),
        "key": draft.key,
        "body_hash": None if draft.body_hash is None else f"\\x{draft.body_hash.hex()}",
        "event_id": str(fact.id),
        "event_type": fact.type,
        "event": fact.data,
    }


async def get(connection: AsyncConnection, job_id: UUID, *, account_id: UUID | None = None) -> Job | None:
    """One job; for a caller, only one of their account."""
    statement = select(jobs).where(jobs.c.id == job_id)
    if account_id is not None:
        statement = statement.where(jobs.c.account_id == account_id)
    row = (await connection.execute(statement)).mappings().one_or_none()
    return job_of(row) if row else None


async def of_ids(connection: AsyncConnection, job_ids: Collection[UUID]) -> dict[UUID, Job]:
    """Some jobs, by id, for the worker."""
    rows = await connection.execute(select(jobs).where(jobs.c.id.in_(list(job_ids))))
    return {row["id"]: job_of(row) for row in rows.mappings()}


_asked = (
    func.unnest(cast(bindparam("ids"), ARRAY(Uuid)), cast(bindparam("account_ids"), ARRAY(Uuid)))
    .table_valued("id", "account_id", name="asked")
    .render_derived()
)
_OWNED = select(jobs).join(_asked, and_(jobs.c.id == _asked.c.id, jobs.c.account_id == _asked.c.account_id))


async def owned(connection: AsyncConnection, asked: Sequence[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], Job]:
    """The jobs that callers asked for, as pairs of account and job: by pair, those that are the account's."""
    fields = {"account_ids": [account for account, _ in asked], "ids": [job_id for _, job_id in asked]}
    rows = await connection.execute(_OWNED, fields)
    return {(row["account_id"], row["id"]): job_of(row) for row in rows.mappings()}


async def lock(connection: AsyncConnection, job_id: UUID, *, skip_locked: bool = False) -> Job | None:
    """One job, which nobody else changes until the transaction ends.

    ``skip_locked``: None too when somebody else is changing it just now.
    """
    mine = select(jobs).where(jobs.c.id == job_id).with_for_update(skip_locked=skip_locked)
    row = (await connection.execute(mine)).mappings().one_or_none()
    return job_of(row) if row else None


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
        found[row["id"]] = (job_of(fields), model)
    return [found[job_id] for job_id in job_ids if job_id in found]


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
    job = job_of(row)
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
    return job_of(row)


async def recount(connection: AsyncConnection, job_id: UUID) -> Job:
    """Sum up a job's cost and charge certainty from its submissions."""
    changed = await connection.execute(
        update(jobs).where(jobs.c.id == job_id).values(**{"version": jobs.c.version + 1, **_CHARGED}).returning(*jobs.c)
    )
    return job_of(changed.mappings().one())


async def notice(connection: AsyncConnection, job_id: UUID, words: str) -> Job | None:
    """Say what a live job is waiting for; None when it has ended, or says so already."""
    changed = await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.finished_at.is_(None), jobs.c.notice.is_distinct_from(words))
        .values(notice=words, version=jobs.c.version + 1)
        .returning(*jobs.c)
    )
    row = changed.mappings().one_or_none()
    return job_of(row) if row else None


# Idempotency -------------------------------------------------------------------------------------------------------


async def taken_for(connection: AsyncConnection, account_id: UUID, key: str) -> tuple[bytes, UUID] | None:
    """What an idempotency key was taken for: the hash of the body, and the job. None when it is free."""
    found = await connection.execute(
        select(idempotency_keys.c.body_hash, idempotency_keys.c.job_id).where(
            idempotency_keys.c.account_id == account_id, idempotency_keys.c.key == key
        )
    )
    row = found.one_or_none()
    return None if row is None else (row.body_hash, row.job_id)


# Figures -----------------------------------------------------------------------------------------------------------


async def counts(connection: AsyncConnection) -> dict[State, int]:
    """Live jobs by state."""
    rows = await connection.execute(
        select(jobs.c.state, func.count()).where(jobs.c.finished_at.is_(None)).group_by(jobs.c.state)
    )
    return {State(state): number for state, number in rows}


def job_of(row: Mapping[Any, Any]) -> Job:
    """The job of a row of ``jobs``."""
    fields = dict(row)
    fields["ordered"] = Ordered(**fields.pop("request"))
    fields["fallbacks"] = tuple(Choice.restored(values) for values in fields["fallbacks"])
    fields["state"] = State(fields["state"])
    fields["charge_certainty"] = ChargeCertainty(fields["charge_certainty"])
    return Job(**fields)
