"""SQL of webhooks. Callers own the transaction; a query for callers carries the account."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import NOW, interval
from app.webhooks.decision import Decision, Delivered, RetryIn
from app.webhooks.records import Attempt, Delivery, Due
from app.webhooks.tables import attempts, deliveries, webhook_secrets

# Secrets -----------------------------------------------------------------------------------------------------------


async def sealed_secret(connection: AsyncConnection, account_id: UUID) -> bytes | None:
    """The account's signing secret, still sealed."""
    return await connection.scalar(
        select(webhook_secrets.c.sealed).where(webhook_secrets.c.account_id == account_id),
    )


async def keep_secret(connection: AsyncConnection, account_id: UUID, sealed: bytes) -> None:
    """Store the account's first secret; a secret that is there already stays."""
    await connection.execute(
        postgres_insert(webhook_secrets).values(account_id=account_id, sealed=sealed).on_conflict_do_nothing()
    )


# Deliveries --------------------------------------------------------------------------------------------------------


async def create(
    connection: AsyncConnection,
    *,
    delivery_id: UUID,
    account_id: UUID,
    subject_id: UUID,
    event_id: UUID,
    event_type: str,
    url: str,
    host: str,
    body: str,
    first_in: float,
) -> None:
    """Owe an event to a URL; its first attempt is due in ``first_in`` seconds."""
    await connection.execute(
        insert(deliveries).values(
            id=delivery_id,
            account_id=account_id,
            subject_id=subject_id,
            event_id=event_id,
            event_type=event_type,
            url=url,
            host=host,
            body=body,
            next_at=NOW + interval(first_in),
        )
    )


# From a window of the most overdue rows, at most `share` of one host: a host that hangs must not fill every slot.
# The conditions are repeated where rows are locked, because another worker may have claimed them meanwhile. The time is
# statement_timestamp(), which is the same throughout a statement, so that the index on next_at can be used.
_CLAIM = text(
    """
    WITH due AS (
        SELECT id, next_at, host FROM webhook_deliveries
        WHERE state = 'pending' AND next_at <= statement_timestamp() AND host <> ALL (cast(:busy AS text[]))
        ORDER BY next_at LIMIT :window
    ), ranked AS (
        SELECT id, row_number() OVER (PARTITION BY host ORDER BY next_at, id) AS place FROM due
    ), mine AS (
        SELECT delivery.id
        FROM webhook_deliveries AS delivery JOIN ranked ON ranked.id = delivery.id
        WHERE ranked.place <= :share AND delivery.state = 'pending' AND delivery.next_at <= statement_timestamp()
        ORDER BY delivery.next_at, delivery.id LIMIT :limit
        FOR UPDATE OF delivery SKIP LOCKED
    )
    UPDATE webhook_deliveries AS delivery
    SET fence = delivery.fence + 1, next_at = clock_timestamp() + make_interval(secs => :lease)
    FROM mine WHERE delivery.id = mine.id
    RETURNING delivery.id, delivery.account_id, delivery.event_id, delivery.event_type, delivery.url, delivery.host,
        delivery.body, delivery.attempts, delivery.fence
    """
)


async def next_due(connection: AsyncConnection, busy: Collection[str]) -> float | None:
    """Seconds until the next attempt to a host that is not busy is due, by the database's clock; None for none."""
    pending = (deliveries.c.state == "pending") & deliveries.c.host.not_in(list(busy))
    value = await connection.scalar(select(func.extract("epoch", func.min(deliveries.c.next_at) - NOW)).where(pending))
    return None if value is None else float(value)


async def claim(
    connection: AsyncConnection, limit: int, *, lease: float, share: int, busy: Collection[str]
) -> list[Due]:
    """Take up to ``limit`` due deliveries for ``lease`` seconds, by the database's clock.

    At most ``share`` of them go to one host, and none to the ``busy`` ones.
    """
    rows = await connection.execute(
        _CLAIM, {"limit": limit, "window": 16 * limit, "lease": lease, "share": share, "busy": list(busy)}
    )
    return [Due(**row) for row in rows.mappings()]


async def record(connection: AsyncConnection, due: Due, attempt: Attempt, decision: Decision) -> bool:
    """Write down an attempt and what follows from it; False, and nothing written, when the lease was lost."""
    values: dict[str, Any] = {"attempts": attempt.number}
    if isinstance(decision, RetryIn):
        values["next_at"] = NOW + interval(decision.seconds)
    else:
        values["state"] = "delivered" if isinstance(decision, Delivered) else "failed"
        values["ended_at"] = NOW
    result = await connection.execute(
        update(deliveries)
        .where(deliveries.c.id == due.id, deliveries.c.fence == due.fence, deliveries.c.state == "pending")
        .values(**values)
    )
    if result.rowcount != 1:
        return False
    await connection.execute(
        insert(attempts).values(
            delivery_id=due.id,
            number=attempt.number,
            started_at=attempt.started_at,
            duration_ms=attempt.duration_ms,
            status_code=attempt.status_code,
            error=attempt.error,
            reply=attempt.reply,
        )
    )
    return True


async def of_subject(connection: AsyncConnection, account_id: UUID, subject_id: UUID) -> list[Delivery]:
    """The deliveries of a subject's events with their attempts, oldest first."""
    found = await connection.execute(
        select(deliveries)
        .where(deliveries.c.account_id == account_id, deliveries.c.subject_id == subject_id)
        .order_by(deliveries.c.id)
    )
    rows = found.mappings().all()
    made = await connection.execute(
        select(attempts).where(attempts.c.delivery_id.in_([row["id"] for row in rows])).order_by(attempts.c.number)
    )
    by_delivery: defaultdict[UUID, list[Attempt]] = defaultdict(list)
    for row in made.mappings():
        by_delivery[row["delivery_id"]].append(Attempt(**{name: row[name] for name in Attempt.__dataclass_fields__}))
    return [
        Delivery(
            id=row["id"],
            event_id=row["event_id"],
            event_type=row["event_type"],
            url=row["url"],
            state=row["state"],
            next_at=row["next_at"],
            created_at=row["created_at"],
            ended_at=row["ended_at"],
            attempts=tuple(by_delivery[row["id"]]),
        )
        for row in rows
    ]
