"""The values that the webhook code works with: rows read once, never changed in memory."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from app.webhooks.retry import Decision

State = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed delivery: the right to make its next attempt until the lease is over.

    ``attempts`` counts those already made; ``host`` is the receiver's host and port; ``body`` is sent as it stands.
    ``sealed_secret`` is the account's signing secret, None when it has none yet.
    """

    id: UUID
    account_id: UUID
    event_id: UUID
    event_type: str
    url: str = field(repr=False)
    host: str
    body: str = field(repr=False)
    attempts: int
    fence: int
    sealed_secret: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST. Either it was answered, with ``status_code``, or ``error`` says why not.

    ``reply`` is the beginning of an answer that was no success, as text.
    """

    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None = None
    error: str | None = None
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Attempted:
    """An attempt that was made, and what follows from it."""

    due: Due
    attempt: Attempt
    decision: Decision

    @property
    def key(self) -> tuple[UUID, int]:
        """Which claim it was made under."""
        return self.due.id, self.due.fence


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one URL, with the attempts made so far."""

    id: UUID
    event_id: UUID
    event_type: str
    url: str
    state: State
    next_at: datetime
    created_at: datetime
    ended_at: datetime | None
    attempts: tuple[Attempt, ...]
