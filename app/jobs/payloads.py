"""The payload of events and webhooks of jobs."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from app.events.types import EventType
from app.ids import Prefix, encode
from app.jobs.records import AcceptedRequest, Job
from app.jobs.states import PUBLIC, ChargeCertainty, Phase, Status
from app.webhooks.schemas import WebhookEnvelope


class Adjustment(BaseModel):
    """One value that `mode: adjust` changed."""

    field: str
    requested: Any
    used: Any
    reason: str


class JobError(BaseModel):
    """Why a job failed. Branch on `code`; `fault` names the responsible party."""

    code: str = Field(description="Stable; the documentation lists the job error codes.")
    message: str
    fault: str = Field(
        description=(
            "`prompt`, `input`, `output_moderation`, `capacity`, `quota`, `account`, `provider` or `network`. For "
            "submissions also `gateway`: no request was sent."
        )
    )
    retryable: bool = Field(description="Whether the same request may succeed as a new job.")


class Cost(BaseModel):
    """Money, in USD, as decimal strings."""

    estimated: str | None = Field(description="Price of the request by the catalogue; null when unknown.")
    charged: str | None = Field(
        description="Sum of the charges reported by providers so far, possibly incomplete; null if there is none."
    )
    certainty: ChargeCertainty = Field(
        description="`none`: not charged. `possible`: unknown whether charged. `certain`: charged, or will be."
    )
    currency: Literal["USD"] = "USD"


class Cancel(BaseModel):
    """The result of a request to cancel."""

    requested_at: datetime
    outcome: Literal["requested", "confirmed", "not_cancellable"] = Field(
        description=(
            "`requested`: the provider has been or will be asked to cancel. `confirmed`: it stopped, or nothing had "
            "been submitted. `not_cancellable`: the render continues and stays billable."
        )
    )


class JobEventData(BaseModel):
    """The state of the job at the time of the event; `GET /v1/jobs/{id}` returns all fields."""

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
    assets: dict[str, str] = Field(description="Ids of the stored files by kind: `video`, `poster`.")
    metadata: dict[str, str]

    @classmethod
    def first(cls, accepted: AcceptedRequest) -> Self:
        """The data of the first event, of a job that is about to be inserted."""
        spec = accepted.spec
        return cls(
            id=encode(Prefix.JOB, accepted.id),
            status=Status.QUEUED,
            phase=Phase.WAITING,
            progress=0,
            notice=accepted.notice,
            version=1,
            model=spec.model,
            model_used=None,
            cost=Cost(estimated=money(spec.estimated_cost), charged=None, certainty=ChargeCertainty.NONE),
            error=None,
            cancel=None,
            assets={},
            metadata=dict(accepted.metadata),
        )

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


class JobEvent(WebhookEnvelope[JobEventData]):
    """An event of a job: the body of a webhook, and the data of a server-sent event."""

    type: EventType = Field(description="The event type; see the table of events.", examples=["job.succeeded"])


def money(amount: Decimal | None) -> str | None:
    """USD as a decimal string without trailing zeros, at least two decimals."""
    if amount is None:
        return None
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def cost_of(job: Job) -> Cost:
    return Cost(estimated=money(job.spec.estimated_cost), charged=money(job.cost), certainty=job.charge_certainty)


def cancel_of(job: Job) -> Cancel | None:
    if job.cancel_requested_at is None:
        return None
    outcome: Any = job.cancel_outcome or "requested"
    return Cancel(requested_at=job.cancel_requested_at, outcome=outcome)
