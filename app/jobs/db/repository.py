"""SQL of jobs. Callers own the transaction; a query on behalf of an API caller is restricted to the account."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Unpack
from uuid import UUID

from sqlalchemy import ARRAY, String, Uuid, all_, and_, bindparam, case, cast, func, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import ClaimLost
from app.events.repository import NewEvent
from app.ids import earliest
from app.infra.db import NOW
from app.jobs.db import schedule
from app.jobs.db.tables import idempotency_keys, jobs, submissions
from app.jobs.db.tables import schedule as schedule_table
from app.jobs.failover import NextRoute
from app.jobs.records import AcceptedRequest, Job, JobChange
from app.jobs.states import ALLOWED, FINAL, LANES, ChargeCertainty, State
from app.providers.base import CancelOutcome
from app.providers.job_spec import JobSpec


async def now(conn: AsyncConnection) -> datetime:
    """The database's time: the only clock that all workers share."""
    value: datetime | None = await conn.scalar(select(NOW))
    assert value is not None
    return value


async def first_id_since(conn: AsyncConnection, age: timedelta) -> UUID:
    """Less than every id made within ``age`` before now, by the database's clock."""
    return earliest(await now(conn) - age)


# Jobs ------------------------------------------------------------------------------------------------------------


# A batch in one statement, so that a job costs a share of a round trip. Keys are inserted in the same order everywhere:
# otherwise two batches could deadlock on each other's keys.
_CREATE = text(
    """
    WITH request AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(cast(:requests AS jsonb)) AS request (
            id uuid, account_id uuid, parent_id uuid, model text, request jsonb, adjustments jsonb, metadata jsonb,
            fallbacks jsonb, fallback_on_refusal boolean, max_cost numeric, priority smallint, webhook_url text,
            notice text, estimated_cost numeric, deadline_seconds float8, diverts boolean, key text, body_hash bytea,
            event_id uuid, event_type text, event jsonb, state text, lane text, queue text, file_ids uuid[]
        )
    ), kept AS (
        INSERT INTO idempotency_keys (account_id, key, body_hash, job_id)
        SELECT account_id, key, body_hash, id FROM request WHERE key IS NOT NULL ORDER BY account_id, key
        ON CONFLICT DO NOTHING RETURNING job_id
    ), made AS (
        INSERT INTO jobs (id, account_id, state, model, request, adjustments, metadata, fallbacks, fallback_on_refusal,
            max_cost, priority, webhook_url, notice, estimated_cost, parent_id, deadline_at)
        SELECT id, account_id, state, model, request, adjustments, metadata, fallbacks, fallback_on_refusal,
            max_cost, priority, webhook_url, notice, estimated_cost, parent_id,
            clock_timestamp() + make_interval(secs => deadline_seconds)
        FROM request WHERE key IS NULL OR id IN (SELECT job_id FROM kept)
        RETURNING id, created_at, deadline_at
    ), scheduled AS (
        INSERT INTO schedule (job_id, account_id, lane, queue, priority, diverts, next_at)
        SELECT id, account_id, lane, queue, priority, diverts,
            CASE WHEN queue IS NULL THEN clock_timestamp() ELSE deadline_at END
        FROM made JOIN request USING (id)
    ), used AS (
        INSERT INTO file_uses (file_id, job_id)
        SELECT DISTINCT unnest(file_ids), id FROM made JOIN request USING (id) WHERE file_ids IS NOT NULL
    ), told AS (
        INSERT INTO events (id, account_id, subject_id, type, version, data)
        SELECT event_id, account_id, id, event_type, 1, event FROM made JOIN request USING (id)
    )
    SELECT id, created_at, deadline_at FROM made
    """
)


async def create(conn: AsyncConnection, accepted: Sequence[tuple[AcceptedRequest, NewEvent]]) -> dict[UUID, Job]:
    """Insert jobs, their schedule rows, their idempotency keys, the files that they use, and their first events.

    A request whose key was taken before, or by another one of the batch, creates no job and is not in the result. Waits
    for a concurrent transaction with the same key.
    """
    rows = await conn.execute(_CREATE, {"requests": json.dumps([_columns(*one) for one in accepted])})
    times = {job_id: (created_at, deadline_at) for job_id, created_at, deadline_at in rows}
    return {one.id: one.job(*times[one.id]) for one, _ in accepted if one.id in times}


def _columns(accepted: AcceptedRequest, event: NewEvent) -> dict[str, Any]:
    spec = accepted.spec.stored()
    return {
        "id": str(accepted.id),
        "account_id": str(accepted.account_id),
        "parent_id": accepted.parent_id and str(accepted.parent_id),
        "model": spec["model"],
        "request": spec["ordered"],
        "adjustments": spec["adjustments"],
        "estimated_cost": spec["estimated_cost"],
        "metadata": accepted.metadata,
        "fallbacks": [fallback.stored() for fallback in accepted.fallbacks],
        "fallback_on_refusal": accepted.fallback_on_refusal,
        "max_cost": None if accepted.max_cost is None else str(accepted.max_cost),
        "priority": accepted.priority,
        "webhook_url": accepted.webhook_url,
        "notice": accepted.notice,
        "deadline_seconds": accepted.deadline_seconds,
        "diverts": bool(accepted.fallbacks),
        "key": accepted.key,
        "body_hash": None if accepted.body_hash is None else f"\\x{accepted.body_hash.hex()}",
        "event_id": str(event.id),
        "event_type": event.type,
        "event": event.data,
        "state": accepted.state.value,
        "lane": LANES[accepted.state].value,
        "queue": spec["model"] if accepted.state is State.QUEUED else None,
        "file_ids": [str(one.file.id) for one in accepted.spec.inputs if one.file] or None,
    }


async def get(conn: AsyncConnection, job_id: UUID, *, account_id: UUID | None = None) -> Job | None:
    """One job; with ``account_id`` only if it belongs to that account."""
    statement = select(jobs).where(jobs.c.id == job_id)
    if account_id is not None:
        statement = statement.where(jobs.c.account_id == account_id)
    row = (await conn.execute(statement)).mappings().one_or_none()
    return job_of(row) if row else None


async def of_ids(conn: AsyncConnection, job_ids: Collection[UUID]) -> dict[UUID, Job]:
    """Several jobs, by id, for the worker."""
    rows = await conn.execute(select(jobs).where(jobs.c.id.in_(list(job_ids))))
    return {row["id"]: job_of(row) for row in rows.mappings()}


_asked = (
    func.unnest(cast(bindparam("ids"), ARRAY(Uuid)), cast(bindparam("account_ids"), ARRAY(Uuid)))
    .table_valued("id", "account_id", name="asked")
    .render_derived()
)
_OWNED = select(jobs).join(_asked, and_(jobs.c.id == _asked.c.id, jobs.c.account_id == _asked.c.account_id))


async def owned(conn: AsyncConnection, asked: Sequence[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], Job]:
    """The jobs of pairs of account and job, by pair; those that do not belong to the account are left out."""
    fields = {"account_ids": [account for account, _ in asked], "ids": [job_id for _, job_id in asked]}
    rows = await conn.execute(_OWNED, fields)
    return {(row["account_id"], row["id"]): job_of(row) for row in rows.mappings()}


async def lock(conn: AsyncConnection, job_id: UUID, *, skip_locked: bool = False) -> Job | None:
    """One job, locked until the transaction ends. ``skip_locked``: None if another transaction has it locked."""
    mine = select(jobs).where(jobs.c.id == job_id).with_for_update(skip_locked=skip_locked)
    row = (await conn.execute(mine)).mappings().one_or_none()
    return job_of(row) if row else None


async def lock_waiting(conn: AsyncConnection, connection: str, job_ids: Sequence[UUID]) -> list[tuple[Job, str]]:
    """Lock those of some jobs that may be submitted to a connection now, in order, each with the model of its line.

    Jobs that another transaction has locked are left out.
    """
    rows = await conn.execute(
        select(*jobs.c, schedule_table.c.queue)
        .join(schedule_table, schedule_table.c.job_id == jobs.c.id)
        .where(
            jobs.c.id.in_(job_ids),
            jobs.c.state == State.QUEUED.value,
            jobs.c.cancel_requested_at.is_(None),
            jobs.c.deadline_at > NOW,
            literal(connection) != all_(schedule_table.c.avoid),
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


_CERTAINTY = submissions.c.charge_certainty
#: The cost of a job so far, and its certainty: the worst of its submissions.
_CHARGED = {
    "cost": _over_submissions(
        case(
            (func.bool_or(submissions.c.cost.is_(None) & (_CERTAINTY != "none")), func.sum(submissions.c.cost)),
            else_=func.coalesce(func.sum(submissions.c.cost), 0),
        )
    ),
    "charge_certainty": _over_submissions(
        case(
            (func.bool_or(_CERTAINTY == "possible"), "possible"),
            (func.bool_or(_CERTAINTY == "certain"), "certain"),
            else_="none",
        )
    ),
}


async def move(
    conn: AsyncConnection,
    job_id: UUID,
    to: State,
    *,
    from_: Collection[State],
    fence: int | None,
    next_in: float = 0,
    route: NextRoute | None = None,
    **values: Unpack[JobChange],
) -> Job:
    """Change a job's state. No other statement does.

    ``fence`` is the claim's; None marks *evidence* (such as a remote id), which needs no claim. ``next_in`` are the
    seconds until the job is due in the new state's lane; a job moved to ``submitting`` gets its lease this way.
    ``route`` is the route that a requeued job waits for.

    The job's cost and charge certainty are summed again from its submissions, so change those first.

    Raises:
        ClaimLost: the job is not in ``from_``, or the claim is no longer held; the transaction must not commit.
    """
    for source in from_:
        assert (source, to) in ALLOWED, f"{source} → {to} is not a transition"
    finished: dict[str, Any] = {"finished_at": NOW} if to in FINAL else {}
    if to in {State.SUCCEEDED, State.FAILED}:
        # It ended by itself: a requested cancel came too late, or was not possible.
        requested = jobs.c.cancel_requested_at.is_not(None)
        finished["cancel_outcome"] = case((requested, CancelOutcome.NOT_CANCELLABLE.value))
    if to is State.CANCELED:
        finished["cancel_outcome"] = CancelOutcome.CONFIRMED.value
    changed = await conn.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.state.in_([state.value for state in from_]))
        .values(**{"state": to.value, "version": jobs.c.version + 1, "notice": None, **_CHARGED, **finished, **values})
        .returning(*jobs.c)
    )
    row = changed.mappings().one_or_none()
    if row is None:
        raise ClaimLost
    job = job_of(row)
    await schedule.put(conn, job, fence=fence, next_in=next_in, route=route)
    return job


async def record_inputs(conn: AsyncConnection, job_id: UUID, changed: JobChange) -> None:
    """Record a step of a job's preparation.

    Raises:
        ClaimLost: the job is not being prepared any more.
    """
    result = await conn.execute(
        update(jobs).where(jobs.c.id == job_id, jobs.c.state == State.PREPARING.value).values(**changed)
    )
    if result.rowcount != 1:
        raise ClaimLost


async def amend(conn: AsyncConnection, job_id: UUID, **values: Unpack[JobChange]) -> Job:
    """Change columns of a live job other than its state, such as its progress.

    Raises:
        ClaimLost: the job has ended.
    """
    changed = await conn.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.finished_at.is_(None))
        .values(**{"version": jobs.c.version + 1, **values})
        .returning(*jobs.c)
    )
    row = changed.mappings().one_or_none()
    if row is None:
        raise ClaimLost
    return job_of(row)


async def recount(conn: AsyncConnection, job_id: UUID) -> Job:
    """Sum a job's cost and charge certainty from its submissions."""
    changed = await conn.execute(
        update(jobs).where(jobs.c.id == job_id).values(**{"version": jobs.c.version + 1, **_CHARGED}).returning(*jobs.c)
    )
    return job_of(changed.mappings().one())


async def notice(conn: AsyncConnection, job_id: UUID, message: str) -> Job | None:
    """Set what a live job is waiting for; None if it has ended, or if this is its notice already."""
    changed = await conn.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.finished_at.is_(None), jobs.c.notice.is_distinct_from(message))
        .values(notice=message, version=jobs.c.version + 1)
        .returning(*jobs.c)
    )
    row = changed.mappings().one_or_none()
    return job_of(row) if row else None


# Idempotency -------------------------------------------------------------------------------------------------------


_keys = (
    func.unnest(cast(bindparam("account_ids"), ARRAY(Uuid)), cast(bindparam("keys"), ARRAY(String)))
    .table_valued("account_id", "key", name="asked")
    .render_derived()
)
_TAKEN = select(idempotency_keys).join(
    _keys, and_(idempotency_keys.c.account_id == _keys.c.account_id, idempotency_keys.c.key == _keys.c.key)
)


async def taken(conn: AsyncConnection, asked: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], tuple[bytes, UUID]]:
    """The body hash and the job of pairs of account and idempotency key, by pair; those that are free are left out."""
    fields = {"account_ids": [account for account, _ in asked], "keys": [key for _, key in asked]}
    rows = await conn.execute(_TAKEN, fields)
    return {(row.account_id, row.key): (row.body_hash, row.job_id) for row in rows}


# Figures -----------------------------------------------------------------------------------------------------------


async def counts(conn: AsyncConnection) -> dict[State, int]:
    """Live jobs by state."""
    rows = await conn.execute(
        select(jobs.c.state, func.count()).where(jobs.c.finished_at.is_(None)).group_by(jobs.c.state)
    )
    return {State(state): number for state, number in rows}


def job_of(row: Mapping[Any, Any]) -> Job:
    """The job of a row of ``jobs``."""
    fields = dict(row)
    spec = [fields.pop(name) for name in ("model", "request", "estimated_cost", "adjustments")]
    fields["spec"] = JobSpec.of_columns(*spec)
    fields["fallbacks"] = tuple(JobSpec.restored(values) for values in fields["fallbacks"])
    fields["state"] = State(fields["state"])
    fields["charge_certainty"] = ChargeCertainty(fields["charge_certainty"])
    return Job(**fields)
