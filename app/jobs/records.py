"""The values that the jobs code works with: rows read once, never changed in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
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
class Job:
    """A row of ``jobs``."""

    id: UUID
    account_id: UUID
    state: State
    version: int
    model: str
    ordered: Ordered
    adjustments: list[Mapping[str, Any]]
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


@dataclass(frozen=True, slots=True)
class Submission:
    """A row of ``submissions``: one purchase, tried or made."""

    id: UUID
    job_id: UUID
    account_id: UUID
    number: int
    connection: str
    upstream_model: str
    state: SubmissionState
    send_deadline: datetime
    remote_id: str | None
    results: tuple[str, ...]
    cost_limit: Decimal | None
    cost: Decimal | None
    charge_certainty: ChargeCertainty
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
