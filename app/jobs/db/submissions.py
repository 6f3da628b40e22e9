"""SQL of the submissions: what we tried to buy, what we bought, what it cost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.infra.db import NOW, interval
from app.jobs.db.tables import LIVE, jobs, submissions
from app.jobs.records import Submission
from app.jobs.states import ChargeCertainty, State, SubmissionState
from app.providers.base import Accepted

# As text, so that the partial indexes are seen to fit whatever the parameters: planned once, not at each execution.
_LIVE = text(f"submissions.{LIVE}")
# All but the provider's own words: they may be long, and nothing is decided by them.
_COLUMNS = [column for column in submissions.c if column.name != "raw"]


class TwinTookIt(Exception):
    """A remote id belongs to another submission: an interchangeable one, or the provider gave one id to two orders."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A purchase about to be made, written before a byte leaves."""

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


async def slots_taken(connection: AsyncConnection, upstream: str) -> int:
    """How many slots of a connection are taken. A render that has finished takes none, even while it is stored."""
    live = await connection.scalar(
        select(func.count()).where(submissions.c.connection == upstream, _LIVE, submissions.c.results.is_(None))
    )
    return int(live or 0)


async def sent_within(connection: AsyncConnection, upstream: str, seconds: float) -> int:
    """How many submissions a connection had within the last so many seconds."""
    sent = await connection.scalar(
        select(func.count()).where(
            submissions.c.connection == upstream,
            submissions.c.created_at > func.statement_timestamp() - interval(seconds),
        )
    )
    return int(sent or 0)


async def write_intent(connection: AsyncConnection, intent: Intent) -> None:
    """Insert the submission as `sending`. The partial unique index refuses a second live one."""
    number = (
        select(func.coalesce(func.max(submissions.c.number), 0) + 1)
        .where(submissions.c.job_id == intent.job_id)
        .scalar_subquery()
    )
    await connection.execute(
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
            created_at=NOW,  # and not when the transaction began: it may have waited long for the connection's row
            send_deadline=NOW + interval(intent.send_within),
            charge_certainty=ChargeCertainty.POSSIBLE.value,
        )
    )


async def claim_remote_id(connection: AsyncConnection, submission: Submission, remote_id: str) -> None:
    """Take a remote id for a submission.

    Raises:
        TwinTookIt: it is another submission's.
    """
    mine = update(submissions).where(submissions.c.id == submission.id).values(remote_id=remote_id)
    try:
        async with connection.begin_nested():
            await connection.execute(mine)
    except IntegrityError as error:
        raise TwinTookIt(f"the record {remote_id} belongs to another submission") from error


async def accept(
    connection: AsyncConnection, submission_id: UUID, outcome: Accepted, certainty: ChargeCertainty
) -> None:
    """The submission is live at the provider."""
    values = _accepted(outcome, certainty)
    await change(connection, submission_id, state=SubmissionState.ACCEPTED.value, ended_at=None, **values)


async def accept_late(
    connection: AsyncConnection, submission_id: UUID, outcome: Accepted, certainty: ChargeCertainty
) -> None:
    """The provider accepted what nobody waits for any more: the ledger says so, and the submission stays ended."""
    values = _accepted(outcome, certainty)
    await change(connection, submission_id, state=SubmissionState.ABANDONED.value, ended_at=NOW, **values)


def _accepted(outcome: Accepted, certainty: ChargeCertainty) -> dict[str, Any]:
    return {
        "cost_limit": outcome.cost_limit,
        "charge_certainty": certainty.value,
        "raw": outcome.raw,
        "accepted_at": NOW,
        "missing_since": None,  # whatever was not found until now, this record is there
    }


async def change(connection: AsyncConnection, submission_id: UUID, **values: Any) -> None:
    """Change facts of a submission."""
    await connection.execute(update(submissions).where(submissions.c.id == submission_id).values(**values))


async def end(connection: AsyncConnection, submission_id: UUID, state: SubmissionState, **values: Any) -> None:
    """Put a submission to an end."""
    await change(connection, submission_id, state=state.value, ended_at=NOW, **values)


async def get(connection: AsyncConnection, submission_id: UUID) -> Submission | None:
    """One submission."""
    row = await connection.execute(select(*_COLUMNS).where(submissions.c.id == submission_id))
    found = row.mappings().one_or_none()
    return _submission(found) if found else None


async def live_of(connection: AsyncConnection, job_id: UUID) -> Submission | None:
    """The job's live submission; there is at most one."""
    row = await connection.execute(select(*_COLUMNS).where(submissions.c.job_id == job_id, _LIVE))
    found = row.mappings().one_or_none()
    return _submission(found) if found else None


@dataclass(frozen=True, slots=True)
class Rendering:
    """A purchase that a provider is working on, with what a look at it needs to know of its job."""

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


async def rendering(connection: AsyncConnection, job_ids: Sequence[UUID]) -> list[Rendering]:
    """Those of some jobs that are with a provider. Read at every poll, so it reads no prompt and no answer."""
    found = []
    for row in (await connection.execute(_RENDERING, {"job_ids": list(job_ids)})).mappings():
        fields = dict(row)
        looks = [fields.pop(name) for name in ("progress", "cancel_requested", "cancel_outcome", "overdue")]
        found.append(Rendering(_submission(fields), *looks))
    return found


async def connections_of(connection: AsyncConnection, job_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Where the live submission of each of these jobs was bought."""
    rows = await connection.execute(
        select(submissions.c.job_id, submissions.c.connection).where(submissions.c.job_id.in_(job_ids), _LIVE)
    )
    return dict(rows.all())


async def of_job(connection: AsyncConnection, account_id: UUID, job_id: UUID) -> list[Submission]:
    """A job's whole ledger, in order."""
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(submissions.c.job_id == job_id, submissions.c.account_id == account_id)
        .order_by(submissions.c.number)
    )
    return [_submission(row) for row in rows.mappings()]


async def past_of(connection: AsyncConnection, job_id: UUID) -> list[Submission]:
    """A job's whole ledger, in order, for the worker."""
    rows = await connection.execute(
        select(*_COLUMNS).where(submissions.c.job_id == job_id).order_by(submissions.c.number)
    )
    return [_submission(row) for row in rows.mappings()]


async def take_hint(connection: AsyncConnection, submission_id: UUID, remote_id: str) -> None:
    """Note the remote id that a callback named, where none is known yet."""
    await connection.execute(
        update(submissions)
        .where(submissions.c.id == submission_id, submissions.c.remote_id.is_(None))
        .values(hint=remote_id)
    )


async def known_references(connection: AsyncConnection, submission_ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of some ids that are ids of submissions."""
    rows = await connection.scalars(select(submissions.c.id).where(submissions.c.id.in_(list(submission_ids))))
    return frozenset(rows)


async def owned_of(
    connection: AsyncConnection, upstreams: Collection[str], remote_ids: Collection[str]
) -> dict[str, datetime]:
    """Those of some remote ids on connections of one account that belong to a submission, and since when they exist."""
    rows = await connection.execute(
        select(submissions.c.remote_id, func.coalesce(submissions.c.accepted_at, NOW)).where(
            submissions.c.connection.in_(list(upstreams)), submissions.c.remote_id.in_(list(remote_ids))
        )
    )
    return dict(rows.all())


_OPEN_BESIDE = text(
    f"""
    SELECT id, job_id, account_id, model, upstream_model, order_hash FROM submissions
    WHERE connection = ANY(cast(:connections AS text[])) AND submissions.{LIVE} AND remote_id IS NULL AND id <> :id
    UNION ALL
    SELECT id, job_id, account_id, model, upstream_model, order_hash FROM submissions
    WHERE connection = ANY(cast(:connections AS text[])) AND created_at BETWEEN :since AND :until
        AND state = 'abandoned' AND remote_id IS NULL AND id <> :id
    LIMIT :limit
    """  # noqa: S608  # only our own constants are put in
)


@dataclass(frozen=True, slots=True)
class Open:
    """A submission whose outcome is open: its record may be any that no submission owns."""

    id: UUID
    job_id: UUID
    account_id: UUID
    model: str
    upstream_model: str
    order_hash: bytes | None


async def open_beside(
    connection: AsyncConnection, submission: Submission, upstreams: Collection[str], around: timedelta, limit: int
) -> list[Open]:
    """The other open submissions on connections of one account, of any of our accounts; at most ``limit``.

    Abandoned ones that were made ``around`` the same time count too: their records may still be listed.
    """
    fields = {
        "id": submission.id,
        "connections": list(upstreams),
        "since": submission.created_at - around,
        "until": submission.send_deadline + around,
        "limit": limit,
    }
    return [Open(*row) for row in await connection.execute(_OPEN_BESIDE, fields)]


async def mark_missing(connection: AsyncConnection, submission_id: UUID) -> float:
    """Note that the provider does not know of the purchase; returns for how many seconds it has not."""
    since = await connection.scalar(
        update(submissions)
        .where(submissions.c.id == submission_id)
        .values(missing_since=func.coalesce(submissions.c.missing_since, NOW))
        .returning(func.extract("epoch", NOW - submissions.c.missing_since))
    )
    return float(since or 0)


async def found_again(connection: AsyncConnection, submission_ids: Sequence[UUID]) -> None:
    """Note that a provider knows of these purchases, should it have missed some of them before."""
    await connection.execute(
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
