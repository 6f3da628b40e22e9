"""The public schema of webhooks."""

from datetime import datetime
from typing import Generic, Self, TypeVar

from pydantic import BaseModel, Field

from app.ids import Prefix, encode
from app.web.schema_types import Int32
from app.webhooks import records

Data = TypeVar("Data")


class WebhookEnvelope(BaseModel, Generic[Data]):
    """The body of every webhook, as recommended by Standard Webhooks."""

    type: str = Field(description="The event type.", examples=["job.succeeded"])
    timestamp: datetime = Field(description="Time of the event; the same on every attempt.")
    data: Data


class WebhookSecret(BaseModel):
    """The secret to verify webhook signatures with (Standard Webhooks 1.0.0)."""

    secret: str = Field(description="`whsec_` and base64: pass it to any Standard Webhooks library")


class Attempt(BaseModel):
    """One POST to the receiver."""

    number: Int32 = Field(description="1 for the first attempt.")
    started_at: datetime
    duration_ms: Int32
    status_code: Int32 | None = Field(description="Status of the receiver's response; null when there was none.")
    error: str | None = Field(description="Why there was no response.")
    reply: str | None = Field(description="The beginning of the body of an unsuccessful response.")

    @classmethod
    def of(cls, attempt: records.Attempt) -> Self:
        return cls(
            number=attempt.number,
            started_at=attempt.started_at,
            duration_ms=attempt.duration_ms,
            status_code=attempt.status_code,
            error=attempt.error,
            reply=attempt.reply,
        )


class Delivery(BaseModel):
    """The delivery of one event to one URL."""

    id: str = Field(examples=["whd_01h455vb4pex5vsknk084sn02q"])
    event_id: str = Field(
        description="The `webhook-id` header of every attempt.", examples=["evt_01h455vb4pex5vsknk084sn02q"]
    )
    event_type: str = Field(examples=["job.succeeded"])
    url: str
    state: records.State
    next_attempt_at: datetime | None = Field(description="When the next attempt is due; null when there will be none.")
    created_at: datetime
    ended_at: datetime | None
    attempts: list[Attempt] = Field(description="Oldest first.")

    @classmethod
    def of(cls, delivery: records.Delivery) -> Self:
        return cls(
            id=encode(Prefix.DELIVERY, delivery.id),
            event_id=encode(Prefix.EVENT, delivery.event_id),
            event_type=delivery.event_type,
            url=delivery.url,
            state=delivery.state,
            next_attempt_at=delivery.next_at if delivery.state == "pending" else None,
            created_at=delivery.created_at,
            ended_at=delivery.ended_at,
            attempts=[Attempt.of(attempt) for attempt in delivery.attempts],
        )
