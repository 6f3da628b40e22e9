"""SQL of webhooks. The caller owns the transaction; queries on behalf of an API caller filter by account."""

from collections import defaultdict
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.infra.db import NOW, interval
from app.webhooks.records import Attempt, Delivery
from app.webhooks.tables import attempts, deliveries, webhook_secrets

# Secrets -----------------------------------------------------------------------------------------------------------


async def encrypted_secret(conn: AsyncConnection, account_id: UUID) -> bytes | None:
    """The account's signing secret, encrypted."""
    return await conn.scalar(
        select(webhook_secrets.c.sealed).where(webhook_secrets.c.account_id == account_id),
    )


async def keep_secret(conn: AsyncConnection, account_id: UUID, encrypted: bytes) -> None:
    """Store the account's secret unless it already has one."""
    await conn.execute(
        postgres_insert(webhook_secrets).values(account_id=account_id, sealed=encrypted).on_conflict_do_nothing()
    )


async def secrets_after(
    conn: AsyncConnection, after: UUID | None, limit: int, *, lock: bool = False
) -> list[tuple[UUID, bytes]]:
    """The next accounts after an id, with their encrypted secrets. ``lock``: the rows stay locked until the commit."""
    wanted = select(webhook_secrets.c.account_id, webhook_secrets.c.sealed).order_by(webhook_secrets.c.account_id)
    if after is not None:
        wanted = wanted.where(webhook_secrets.c.account_id > after)
    wanted = wanted.limit(limit)
    rows = await conn.execute(wanted.with_for_update() if lock else wanted)
    return [(account_id, encrypted) for account_id, encrypted in rows]


async def replace_secret(conn: AsyncConnection, account_id: UUID, encrypted: bytes) -> None:
    """Store the same secret in another encryption."""
    await conn.execute(
        update(webhook_secrets).where(webhook_secrets.c.account_id == account_id).values(sealed=encrypted)
    )


# Deliveries --------------------------------------------------------------------------------------------------------


async def create(
    conn: AsyncConnection,
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
    """Create the delivery of an event to a URL; its first attempt is due in ``first_in`` seconds."""
    await conn.execute(
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


async def of_subject(conn: AsyncConnection, account_id: UUID, subject_id: UUID) -> list[Delivery]:
    """The deliveries of a subject's events with their attempts, oldest first."""
    found = await conn.execute(
        select(deliveries)
        .where(deliveries.c.account_id == account_id, deliveries.c.subject_id == subject_id)
        .order_by(deliveries.c.id)
    )
    rows = found.mappings().all()
    made = await conn.execute(
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
