"""The values that the jobs code works with: rows read once, never changed in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

from app.jobs.states import FINAL, ChargeCertainty, State, SubmissionState
from app.providers.base import Order


@dataclass(frozen=True, slots=True)
class Ordered:
    """What was ordered, after it was fitted to the model. Stored with the job as JSON.

    ``seconds`` is the length of the film; ``width`` and ``height`` are pixels.
    """

    prompt: str
    seconds: int
    width: int
    height: int
    seed: int | None = None
    negative_prompt: str | None = None
    audio: bool | None = None
    options: Mapping[str, Any] | None = None

    def stored(self) -> dict[str, Any]:
        """As JSON values, for the ``request`` of a job's row."""
        return {name: getattr(self, name) for name in self.__slots__}

    def order(self, upstream_model: str) -> Order:
        """The same, in the words of the provider port."""
        return Order(
            model=upstream_model,
            prompt=self.prompt,
            seconds=self.seconds,
            width=self.width,
            height=self.height,
            seed=self.seed,
            negative_prompt=self.negative_prompt,
            audio=self.audio,
            options=self.options or {},
        )

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One model that may make the film, with the order as it was fitted to that model. ``estimated_cost`` is USD."""

    model: str
    ordered: Ordered
    estimated_cost: Decimal | None
    adjustments: Sequence[Mapping[str, Any]]

    def stored(self) -> dict[str, Any]:
        """As JSON values, for the ``fallbacks`` of a job's row."""
        cost = None if self.estimated_cost is None else str(self.estimated_cost)
        return {
            "model": self.model,
            "ordered": self.ordered.stored(),
            "estimated_cost": cost,
            "adjustments": list(self.adjustments),
        }

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Self:
        cost = values["estimated_cost"]
        ordered = Ordered(**values["ordered"])
        return cls(values["model"], ordered, None if cost is None else Decimal(cost), values["adjustments"])


@dataclass(frozen=True, slots=True)
class Draft:
    """An order that was accepted and is not written down yet; ``deadline_seconds`` count from when it is.

    ``key`` is the caller's idempotency key, ``body_hash`` of what it was sent with: both or neither.
    """

    id: UUID
    account_id: UUID
    chosen: Choice
    fallbacks: tuple[Choice, ...]
    fallback_on_refusal: bool
    max_cost: Decimal | None
    priority: int
    metadata: Mapping[str, str]
    webhook_url: str | None
    notice: str | None
    deadline_seconds: float
    key: str | None = None
    body_hash: bytes | None = None

    def job(self, created_at: datetime, deadline_at: datetime) -> "Job":
        """The job that the database made of it."""
        return Job(
            id=self.id,
            account_id=self.account_id,
            state=State.QUEUED,
            version=1,
            model=self.chosen.model,
            ordered=self.chosen.ordered,
            adjustments=self.chosen.adjustments,
            fallbacks=self.fallbacks,
            fallback_on_refusal=self.fallback_on_refusal,
            max_cost=self.max_cost,
            priority=self.priority,
            model_used=None,
            metadata=self.metadata,
            webhook_url=self.webhook_url,
            notice=self.notice,
            progress=0,
            estimated_cost=self.chosen.estimated_cost,
            cost=None,
            charge_certainty=ChargeCertainty.NONE,
            error=None,
            cancel_requested_at=None,
            cancel_outcome=None,
            created_at=created_at,
            deadline_at=deadline_at,
            started_at=None,
            finished_at=None,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A row of ``jobs``."""

    id: UUID
    account_id: UUID
    state: State
    version: int
    model: str
    ordered: Ordered
    adjustments: Sequence[Mapping[str, Any]]
    fallbacks: tuple[Choice, ...]
    fallback_on_refusal: bool
    max_cost: Decimal | None
    priority: int
    model_used: str | None
    metadata: Mapping[str, str]
    webhook_url: str | None
    notice: str | None
    progress: int
    estimated_cost: Decimal | None
    cost: Decimal | None
    charge_certainty: ChargeCertainty
    error: Mapping[str, Any] | None
    cancel_requested_at: datetime | None
    cancel_outcome: str | None
    created_at: datetime
    deadline_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The models that may make the film, in the order in which they are tried."""
        return (Choice(self.model, self.ordered, self.estimated_cost, self.adjustments), *self.fallbacks)

    def choice(self, model: str) -> Choice:
        """The order as it was fitted to one of the job's models."""
        return next(choice for choice in self.choices if choice.model == model)


@dataclass(frozen=True, slots=True)
class Submission:
    """A row of ``submissions``: one purchase, tried or made."""

    id: UUID
    job_id: UUID
    account_id: UUID
    number: int
    connection: str
    model: str
    upstream_model: str
    state: SubmissionState
    body_hash: bytes
    order_hash: bytes | None
    send_deadline: datetime
    remote_id: str | None
    hint: str | None
    results: tuple[str, ...]
    estimated_cost: Decimal | None
    cost_limit: Decimal | None
    cost: Decimal | None
    charge_certainty: ChargeCertainty
    late: bool
    failure: Mapping[str, Any] | None
    detail: str | None
    lookups: int
    missing_since: datetime | None
    polls: int
    fetches: int
    created_at: datetime
    accepted_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to advance a job until its lease is over: every decision carries the fence."""

    job_id: UUID
    fence: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a job may start and finish, as far as anybody can say.

    ``position`` in the line, 1 is next; None when the job does not wait, or nothing serves its model.
    """

    position: int | None = None
    start_at: datetime | None = None
    finish_at: datetime | None = None


NO_OUTLOOK = Outlook()
