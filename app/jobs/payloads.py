"""The payload of events and webhooks of jobs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from app.assets.records import Kind
from app.assets.schemas import Asset
from app.events.types import EventType
from app.ids import Prefix, encode
from app.jobs.errors import CODES, FAULTS
from app.jobs.records import AcceptedRequest, Job
from app.jobs.states import PUBLIC, ChargeCertainty, Phase, Status
from app.web.schema_types import Int64, Percent
from app.webhooks.schemas import WebhookEnvelope


class Adjustment(BaseModel):
    """One value that `mode: adjust` changed."""

    field: str
    requested: Any
    used: Any
    reason: str


class JobError(BaseModel):
    """Why a job failed. Branch on `code`; `fault` names the responsible party."""

    code: str = Field(
        description="Stable; new ones may be added. The introduction of the API's document lists them.",
        json_schema_extra={"x-extensible-enum": [*sorted(CODES)]},
    )
    message: str
    fault: str = Field(
        description=(
            "`prompt`, `input`, `output_moderation`, `capacity`, `quota`, `account`, `provider` or `network`. For "
            "submissions also `gateway`: no request was sent."
        ),
        json_schema_extra={"x-extensible-enum": [*FAULTS]},
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


class JobAssets(BaseModel):
    """The stored files of a job that succeeded, or whose video arrived after it had failed."""

    video: Asset
    poster: Asset | None = None

    @classmethod
    def of(cls, assets: Sequence[Asset]) -> Self | None:
        by_kind = {asset.kind: asset for asset in assets}
        video = by_kind.get(Kind.VIDEO)
        return cls(video=video, poster=by_kind.get(Kind.POSTER)) if video else None


class JobEventData(BaseModel):
    """The state of the job at the time of the event; `GET /v1/jobs/{id}` returns all fields."""

    id: str
    status: Status
    phase: Phase | None
    progress: Percent
    notice: str | None
    version: Int64
    model: str
    model_used: str | None
    cost: Cost
    error: JobError | None
    cancel: Cancel | None
    assets: JobAssets | None = Field(
        description="The files that were stored: set in `job.succeeded` and `job.video_late`, null in all others."
    )
    metadata: dict[str, str]

    @classmethod
    def first(cls, accepted: AcceptedRequest) -> Self:
        """The data of the first event, of a job that is about to be inserted."""
        spec = accepted.spec
        status, phase = PUBLIC[accepted.state]
        return cls(
            id=encode(Prefix.JOB, accepted.id),
            status=status,
            phase=phase,
            progress=0,
            notice=accepted.notice,
            version=1,
            model=spec.model,
            model_used=None,
            cost=Cost(estimated=money(spec.estimated_cost), charged=None, certainty=ChargeCertainty.NONE),
            error=None,
            cancel=None,
            assets=None,
            metadata=dict(accepted.metadata),
        )

    @classmethod
    def of(cls, job: Job, assets: Sequence[Asset]) -> Self:
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
            assets=JobAssets.of(assets),
            metadata=dict(job.metadata),
        )

    def logged(self) -> dict[str, Any]:
        """The form in the event log, with the ids of the files only: their URLs depend on who reads them, and where."""
        files = [self.assets.video, self.assets.poster] if self.assets else []
        return {**self.model_dump(mode="json"), "assets": {file.kind.value: file.id for file in files if file}}

    @classmethod
    def of_logged(cls, data: Mapping[str, Any], assets: Sequence[Asset]) -> Self:
        """The inverse of :meth:`logged`; ``assets`` are all files of the job."""
        named = data["assets"].values()
        return cls.model_validate({**data, "assets": JobAssets.of([file for file in assets if file.id in named])})


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
