"""Value types of webhooks: immutable snapshots of rows."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from app.webhooks.retry import Decision

State = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed delivery: the right to make its next attempt until the lease expires.

    ``attempts`` counts those already made; ``host`` is the receiver's host and port; ``body`` is sent unchanged.
    ``encrypted_secret`` is the account's signing secret, None when it has none yet.
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
    encrypted_secret: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST. ``status_code`` is set if there was a response, else ``error`` is the reason.

    ``reply`` is the beginning of the body of an unsuccessful response, as text.
    """

    number: int
    started_at: datetime
    duration_ms: int
    status_code: int | None = None
    error: str | None = None
    reply: str | None = None


@dataclass(frozen=True, slots=True)
class Attempted:
    """A finished attempt and the decision that follows."""

    due: Due
    attempt: Attempt
    decision: Decision

    @property
    def key(self) -> tuple[UUID, int]:
        """The claim it was made under: delivery id and fence."""
        return self.due.id, self.due.fence


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of one event to one URL, with the attempts made so far."""

    id: UUID
    event_id: UUID
    event_type: str
    url: str
    state: State
    next_at: datetime
    created_at: datetime
    ended_at: datetime | None
    attempts: tuple[Attempt, ...]
