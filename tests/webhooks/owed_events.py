"""How tests owe an event to a receiver, and how they let time pass: by writing it into the row."""

from uuid import UUID

from sqlalchemy import func, select, update

from app.ids import new_id
from app.infra.db import Database
from app.webhooks.concurrency import HOST_SHARE
from app.webhooks.delivery import Deliverer, Outcome
from app.webhooks.records import Delivery, Due
from app.webhooks.service import WebhookService
from app.webhooks.tables import deliveries

SECRET_KEY = "the secret key of the webhook tests, long enough"
SUBJECT = new_id()
#: Slots of the lane.
LANE = 8 * HOST_SHARE


async def owe(
    database: Database,
    webhooks: WebhookService,
    account_id: UUID,
    url: str,
    *,
    subject_id: UUID = SUBJECT,
    event_id: UUID | None = None,
) -> UUID:
    """One event on its way to ``url``; returns the event's id."""
    event_id = event_id or new_id()
    async with database.begin() as conn:
        await webhooks.publish(
            conn,
            account_id=account_id,
            subject_id=subject_id,
            event_id=event_id,
            event_type="job.succeeded",
            url=url,
            payload={"status": "succeeded", "title": "Žluťoučký kůň"},
        )
    return event_id


async def make_due(database: Database) -> None:
    """As if every wait and every lease were over."""
    async with database.begin() as conn:
        await conn.execute(
            update(deliveries)
            .where(deliveries.c.state == "pending")
            .values(next_at=func.now() - func.make_interval(0, 0, 0, 0, 1))
        )


async def seconds_until_next(database: Database) -> float:
    """Of the only delivery: how long until its next attempt, by the database's clock."""
    async with database.read() as conn:
        wait = func.extract("epoch", deliveries.c.next_at - func.clock_timestamp())
        return float((await conn.execute(select(wait))).scalar_one())


async def claim_all(deliverer: Deliverer, limit: int) -> list[Due]:
    """What a claim takes."""
    return [due async for due in deliverer.claim(limit)]


async def attempt_next(deliverer: Deliverer) -> Outcome:
    """Claim the only due delivery and make its attempt."""
    (due,) = await claim_all(deliverer, 1)
    return await deliverer.advance(due)


async def only_delivery(webhooks: WebhookService, account_id: UUID, subject_id: UUID = SUBJECT) -> Delivery:
    (delivery,) = await webhooks.deliveries(account_id, subject_id)
    return delivery
