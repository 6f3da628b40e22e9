"""What events and webhooks say of a job."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from app.ids import Prefix, encode
from app.jobs.records import Job
from app.jobs.states import PUBLIC, ChargeCertainty, Phase, Status
from app.webhooks.schemas import WebhookEnvelope


class Adjustment(BaseModel):
    """One thing that `mode: adjust` changed."""

    field: str
    requested: Any
    used: Any
    reason: str


class JobError(BaseModel):
    """Why a job failed. Decide by `code`; whose fault it is says `fault`."""

    code: str = Field(description="Stable: see the list of job error codes in the documentation.")
    message: str
    fault: str = Field(
        description=(
            "`prompt`, `input`, `output_moderation`, `capacity`, `quota`, `account`, `provider` or `network`; of a "
            "submission also `gateway`: nothing was sent."
        )
    )
    retryable: bool = Field(description="Whether the same order, sent again as a new job, may succeed.")


class Cost(BaseModel):
    """Money, in USD, as decimal strings."""

    estimated: str | None = Field(description="The catalogue's price for the order; null when it is not known.")
    charged: str | None = Field(
        description="What providers said that they charged so far; more where one has not said, null where none has."
    )
    certainty: ChargeCertainty = Field(
        description="`none`: nothing was charged. `possible`: nobody can say. `certain`: charged, or will be."
    )
    currency: Literal["USD"] = "USD"


class Cancel(BaseModel):
    """What a request to cancel came to."""

    requested_at: datetime
    outcome: Literal["requested", "confirmed", "not_cancellable"] = Field(
        description=(
            "`requested`: the provider has been or will be asked. `confirmed`: it stopped, or nothing had been bought. "
            "`not_cancellable`: it will finish, and it stays billable."
        )
    )


class JobEventData(BaseModel):
    """What an event says of its job: enough to act on, the rest is one GET away."""

    id: str
    status: Status
    phase: Phase | None
    progress: int
    notice: str | None
    version: int
    model: str
    model_used: str | None
    cost: Cost
    error: JobError | None
    cancel: Cancel | None
    assets: dict[str, str] = Field(description="Ids of the stored files by kind: `film`, `poster`; of a success only.")
    metadata: dict[str, str]

    @classmethod
    def of(cls, job: Job, assets: Mapping[str, str]) -> Self:
        status, phase = PUBLIC[job.state]
        return cls(
            id=encode(Prefix.JOB, job.id),
            status=status,
            phase=phase,
            progress=job.progress,
            notice=job.notice,
            version=job.version,
            model=job.model,
            model_used=job.model_used,
            cost=cost_of(job),
            error=JobError(**job.error) if job.error else None,
            cancel=cancel_of(job),
            assets=dict(assets),
            metadata=dict(job.metadata),
        )


JobEvent = WebhookEnvelope[JobEventData]


def money(amount: Decimal | None) -> str | None:
    """USD as a decimal string without trailing zeros, at least two decimals."""
    if amount is None:
        return None
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def describe(job: Job, assets: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The data of an event about a job, as JSON values; ``assets`` are ids by kind."""
    return JobEventData.of(job, assets or {}).model_dump(mode="json")


def cost_of(job: Job) -> Cost:
    return Cost(estimated=money(job.estimated_cost), charged=money(job.cost), certainty=job.charge_certainty)


def cancel_of(job: Job) -> Cancel | None:
    if job.cancel_requested_at is None:
        return None
    outcome: Any = job.cancel_outcome or "requested"
    return Cancel(requested_at=job.cancel_requested_at, outcome=outcome)
