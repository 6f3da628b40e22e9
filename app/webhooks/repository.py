"""SQL of webhooks. Callers own the transaction; a query for callers carries the account."""

from collections import defaultdict
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.infra.db import NOW, interval
from app.webhooks.records import Attempt, Delivery
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
