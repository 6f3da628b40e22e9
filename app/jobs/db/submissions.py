"""SQL of the submissions: the ledger of all attempts, their results and costs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Unpack
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.infra.db import NOW, interval
from app.jobs.db.tables import LIVE, jobs, submissions
from app.jobs.records import Submission, SubmissionChange
from app.jobs.states import ChargeCertainty, State, SubmissionState
from app.printable import printable_value
from app.providers.base import Accepted

# As text, so that a generic plan matches the partial indexes whatever the parameters.
_LIVE = text(f"submissions.{LIVE}")
# Without the provider's raw reply: it may be long, and nothing is decided by it.
_COLUMNS = [column.label(column.key) for column in submissions.c if column.name != "raw"]


class RemoteIdAlreadyClaimed(Exception):
    """A remote id belongs to another submission: an interchangeable one, or the provider used one id twice."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A submission that is about to be sent; committed before a byte leaves."""

    id: UUID
    job_id: UUID
    account_id: UUID
    connection: str
    model: str
    upstream_model: str
    estimated_cost: Decimal | None
    body_hash: bytes
    order_hash: bytes
    send_within: float  # seconds until the absolute send deadline


async def slots_taken(conn: AsyncConnection, connection: str) -> int:
    """The number of taken slots of a connection. A finished render takes none, even while it is being stored."""
    live = await conn.scalar(
        select(func.count()).where(submissions.c.connection == connection, _LIVE, submissions.c.results.is_(None))
    )
    return int(live or 0)


async def sent_within(conn: AsyncConnection, connection: str, seconds: float) -> int:
    """The number of submissions of a connection within the last ``seconds``."""
    sent = await conn.scalar(
        select(func.count()).where(
            submissions.c.connection == connection,
            submissions.c.created_at > func.statement_timestamp() - interval(seconds),
        )
    )
    return int(sent or 0)


async def write_intent(conn: AsyncConnection, intent: Intent) -> None:
    """Insert the submission as `sending`. The partial unique index refuses a second live one."""
    number = (
        select(func.coalesce(func.max(submissions.c.number), 0) + 1)
        .where(submissions.c.job_id == intent.job_id)
        .scalar_subquery()
    )
    await conn.execute(
        insert(submissions).values(
            id=intent.id,
            job_id=intent.job_id,
            account_id=intent.account_id,
            number=number,
            connection=intent.connection,
            model=intent.model,
            upstream_model=intent.upstream_model,
            estimated_cost=intent.estimated_cost,
            state=SubmissionState.SENDING.value,
            body_hash=intent.body_hash,
            order_hash=intent.order_hash,
            created_at=NOW,  # not the start of the transaction
            send_deadline=NOW + interval(intent.send_within),
            charge_certainty=ChargeCertainty.POSSIBLE.value,
        )
    )


async def claim_remote_id(conn: AsyncConnection, submission: Submission, remote_id: str) -> None:
    """Claim a remote id for a submission.

    Raises:
        RemoteIdAlreadyClaimed: it is another submission's.
    """
    mine = update(submissions).where(submissions.c.id == submission.id).values(remote_id=remote_id)
    try:
        async with conn.begin_nested():
            await conn.execute(mine)
    except IntegrityError as error:
        raise RemoteIdAlreadyClaimed(f"remote id {remote_id} belongs to another submission") from error


async def accept(conn: AsyncConnection, submission_id: UUID, result: Accepted, certainty: ChargeCertainty) -> None:
    """Record that the provider accepted a submission."""
    await _write(conn, submission_id, _accepted(result, certainty), state=SubmissionState.ACCEPTED, ended_at=None)


async def accept_late(conn: AsyncConnection, submission_id: UUID, result: Accepted, certainty: ChargeCertainty) -> None:
    """Record that the provider accepted a submission that no job waits for. It stays ended."""
    await _write(conn, submission_id, _accepted(result, certainty), state=SubmissionState.ABANDONED, ended_at=NOW)


def _accepted(result: Accepted, certainty: ChargeCertainty) -> SubmissionChange:
    return {
        "cost_limit": result.cost_limit,
        "charge_certainty": certainty,
        "raw": result.raw,
        "accepted_at": NOW,
        "missing_since": None,  # the remote job is known now
    }


async def change(
    conn: AsyncConnection,
    submission_id: UUID,
    state: SubmissionState | None = None,
    **values: Unpack[SubmissionChange],
) -> None:
    """Change columns of a submission, and its state if given."""
    await _write(conn, submission_id, values, **({} if state is None else {"state": state}))


async def end(
    conn: AsyncConnection, submission_id: UUID, state: SubmissionState, **values: Unpack[SubmissionChange]
) -> None:
    """End a submission in a final state."""
    await _write(conn, submission_id, values, state=state, ended_at=NOW)


async def _write(conn: AsyncConnection, submission_id: UUID, values: SubmissionChange, **more: Any) -> None:
    plain = {name: getattr(value, "value", value) for name, value in (values | more).items()}
    if "raw" in plain:
        plain["raw"] = printable_value(plain["raw"])
    await conn.execute(update(submissions).where(submissions.c.id == submission_id).values(**plain))


async def get(conn: AsyncConnection, submission_id: UUID) -> Submission | None:
    """One submission."""
    row = await conn.execute(select(*_COLUMNS).where(submissions.c.id == submission_id))
    found = row.mappings().one_or_none()
    return _submission(found) if found else None


async def live_of(conn: AsyncConnection, job_id: UUID) -> Submission | None:
    """The job's live submission; there is at most one."""
    row = await conn.execute(select(*_COLUMNS).where(submissions.c.job_id == job_id, _LIVE))
    found = row.mappings().one_or_none()
    return _submission(found) if found else None


@dataclass(frozen=True, slots=True)
class RenderingJob:
    """A submission that a provider is rendering, with the columns of its job that a poll needs."""

    submission: Submission
    progress: int
    cancel_requested: bool
    cancel_outcome: str | None
    overdue: bool  # the job's deadline has passed


_RENDERING = (
    select(
        *_COLUMNS,
        jobs.c.progress,
        jobs.c.cancel_requested_at.is_not(None).label("cancel_requested"),
        jobs.c.cancel_outcome,
        (jobs.c.deadline_at <= NOW).label("overdue"),
    )
    .join(jobs, jobs.c.id == submissions.c.job_id)
    .where(
        submissions.c.job_id == any_(bindparam("job_ids", type_=ARRAY(Uuid))),
        _LIVE,
        jobs.c.state == State.RUNNING.value,
    )
)


async def rendering(conn: AsyncConnection, job_ids: Sequence[UUID]) -> list[RenderingJob]:
    """Those of some jobs that are being rendered. Read at every poll, so without prompts and raw replies."""
    found = []
    for row in (await conn.execute(_RENDERING, {"job_ids": list(job_ids)})).mappings():
        fields = dict(row)
        job_values = [fields.pop(name) for name in ("progress", "cancel_requested", "cancel_outcome", "overdue")]
        found.append(RenderingJob(_submission(fields), *job_values))
    return found


async def connections_of(conn: AsyncConnection, job_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The connection of the live submission of each job."""
    rows = await conn.execute(
        select(submissions.c.job_id, submissions.c.connection).where(submissions.c.job_id.in_(job_ids), _LIVE)
    )
    return dict(rows.all())


async def of_job(conn: AsyncConnection, account_id: UUID, job_id: UUID) -> list[Submission]:
    """A job's whole ledger, in order."""
    rows = await conn.execute(
        select(*_COLUMNS)
        .where(submissions.c.job_id == job_id, submissions.c.account_id == account_id)
        .order_by(submissions.c.number)
    )
    return [_submission(row) for row in rows.mappings()]


async def ledger_of(conn: AsyncConnection, job_id: UUID) -> list[Submission]:
    """A job's whole ledger, in order, for the worker."""
    rows = await conn.execute(select(*_COLUMNS).where(submissions.c.job_id == job_id).order_by(submissions.c.number))
    return [_submission(row) for row in rows.mappings()]


async def record_callback(conn: AsyncConnection, submission_id: UUID, remote_id: str) -> None:
    """Record the remote id that a callback named, unless one is known."""
    await conn.execute(
        update(submissions)
        .where(submissions.c.id == submission_id, submissions.c.remote_id.is_(None))
        .values(callback_remote_id=remote_id)
    )


async def known_references(conn: AsyncConnection, submission_ids: Collection[UUID]) -> frozenset[UUID]:
    """The ids among ``submission_ids`` that exist."""
    rows = await conn.scalars(select(submissions.c.id).where(submissions.c.id.in_(list(submission_ids))))
    return frozenset(rows)


async def owned_of(
    conn: AsyncConnection, connections: Collection[str], remote_ids: Collection[str]
) -> dict[str, datetime]:
    """The remote ids that belong to a submission on one of the connections, with the time of their acceptance."""
    rows = await conn.execute(
        select(submissions.c.remote_id, func.coalesce(submissions.c.accepted_at, NOW)).where(
            submissions.c.connection.in_(list(connections)), submissions.c.remote_id.in_(list(remote_ids))
        )
    )
    return dict(rows.all())


_OPEN_RIVALS = text(
    f"""
    SELECT id, job_id, account_id, model, upstream_model, order_hash FROM submissions
    WHERE connection = ANY(cast(:connections AS text[])) AND submissions.{LIVE} AND remote_id IS NULL AND id <> :id
    UNION ALL
    SELECT id, job_id, account_id, model, upstream_model, order_hash FROM submissions
    WHERE connection = ANY(cast(:connections AS text[])) AND created_at BETWEEN :since AND :until
        AND state = 'abandoned' AND remote_id IS NULL AND id <> :id
    LIMIT :limit
    """  # noqa: S608  # constants
)


@dataclass(frozen=True, slots=True)
class OpenSubmission:
    """A submission whose result is open: any remote job that no submission owns may be its."""

    id: UUID
    job_id: UUID
    account_id: UUID
    model: str
    upstream_model: str
    order_hash: bytes | None


async def open_rivals(
    conn: AsyncConnection, submission: Submission, connections: Collection[str], around: timedelta, limit: int
) -> list[OpenSubmission]:
    """The other open submissions on connections of one upstream account, of all accounts; at most ``limit``.

    Includes abandoned ones made ``around`` the same time: their remote jobs may still be listed.
    """
    fields = {
        "id": submission.id,
        "connections": list(connections),
        "since": submission.created_at - around,
        "until": submission.send_deadline + around,
        "limit": limit,
    }
    return [OpenSubmission(*row) for row in await conn.execute(_OPEN_RIVALS, fields)]


async def mark_missing(conn: AsyncConnection, submission_id: UUID) -> float:
    """Record that the provider does not know the remote job; returns for how many seconds it has not."""
    since = await conn.scalar(
        update(submissions)
        .where(submissions.c.id == submission_id)
        .values(missing_since=func.coalesce(submissions.c.missing_since, NOW))
        .returning(func.extract("epoch", NOW - submissions.c.missing_since))
    )
    return float(since or 0)


async def clear_missing(conn: AsyncConnection, submission_ids: Sequence[UUID]) -> None:
    """Record that the provider knows these remote jobs (again)."""
    await conn.execute(
        update(submissions)
        .where(submissions.c.id.in_(submission_ids), submissions.c.missing_since.is_not(None))
        .values(missing_since=None)
    )


def _submission(row: Mapping[Any, Any]) -> Submission:
    fields = dict(row)
    fields["state"] = SubmissionState(fields["state"])
    fields["charge_certainty"] = ChargeCertainty(fields["charge_certainty"])
    fields["results"] = tuple(fields["results"] or ())
    return Submission(**fields)
