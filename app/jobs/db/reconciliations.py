"""SQL of the reconciliations: submissions that are polled after their job has ended or continued without them.

The table is called ``watches``.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import ClaimTable, Held
from app.infra.db import NOW, interval
from app.jobs.db.tables import watches

_CLAIMS = ClaimTable("watches", "submission_id", returning=("job_id", "until <= clock_timestamp() AS expired"))


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A claim on a submission to reconcile; ``expired``: its period has ended, and it is not polled again."""

    submission_id: UUID
    fence: int
    job_id: UUID
    expired: bool

    @property
    def held(self) -> Held:
        return self.submission_id, self.fence


async def add(conn: AsyncConnection, submission_id: UUID, job_id: UUID, *, next_in: float, last: float) -> None:
    """Reconcile a submission for ``last`` seconds at most. If it already is, its next poll is moved up."""
    statement = insert(watches).values(
        submission_id=submission_id, job_id=job_id, next_at=NOW + interval(next_in), until=NOW + interval(last)
    )
    await conn.execute(
        statement.on_conflict_do_update(
            index_elements=[watches.c.submission_id],
            set_={
                "next_at": func.least(watches.c.next_at, statement.excluded.next_at),
                "until": func.greatest(watches.c.until, statement.excluded.until),
                "fence": watches.c.fence + 1,
            },
        )
    )


async def claim(conn: AsyncConnection, limit: int, lease: float) -> list[Reconciliation]:
    """Take up to ``limit`` due submissions for ``lease`` seconds."""
    rows = await _CLAIMS.claim(conn, limit, lease)
    return [Reconciliation(row.submission_id, row.fence, row.job_id, row.expired) for row in rows]


async def next_due(conn: AsyncConnection) -> float | None:
    """Seconds until the next poll; None when there is nothing to reconcile."""
    return await _CLAIMS.next_due(conn)


async def extend(conn: AsyncConnection, one: Reconciliation, lease: float) -> bool:
    """Extend the lease. False if the claim is no longer held."""
    return await _CLAIMS.extend(conn, [one.held], lease)


async def defer(conn: AsyncConnection, one: Reconciliation, delay: float) -> None:
    """Poll again after ``delay`` seconds, unless the claim was lost."""
    await _CLAIMS.defer(conn, [one.held], [delay])


async def end(conn: AsyncConnection, one: Reconciliation) -> None:
    """Stop reconciling: the final result is recorded, or the period has ended.

    Raises:
        ClaimLost: another worker has it.
    """
    await _CLAIMS.end(conn, one.held)
