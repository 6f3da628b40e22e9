"""What callers send and see. Nothing here knows the tables."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from app.assets.records import Kind
from app.assets.schemas import Asset
from app.ids import Prefix, encode
from app.jobs.records import Job, Submission
from app.jobs.states import PUBLIC, ChargeCertainty, Phase, Status, SubmissionState
from app.webhooks.schemas import WebhookEnvelope

MAX_METADATA = 16
MAX_DEPTH = 16
MAX_SECONDS = 86_400
MAX_DEADLINE = 31_536_000
Size = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$")]


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not hold a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not hold half of a surrogate pair") from None
    return value


def _shallow(value: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return value
    raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        for name in value:
            _storable(name)
        return value.values()
    return value if isinstance(value, list) else ()


#: Text that the database can hold.
Text = Annotated[str, AfterValidator(_storable)]
MetadataKey = Annotated[Text, StringConstraints(min_length=1, max_length=40)]
MetadataValue = Annotated[Text, StringConstraints(max_length=500)]


class NewJob(BaseModel):
    """An order for one film."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "model": "sandbox/film",
                    "prompt": "a purple elephant dancing on a blue beach ball",
                    "seconds": 4,
                    "size": "1280x720",
                    "webhook_url": "https://example.com/films/done",
                    "metadata": {"order": "1234"},
                }
            ]
        },
    )

    prompt: Text = Field(min_length=1, max_length=32_000, description="What the film shows.")
    model: Text = Field(
        min_length=1, max_length=200, description="A model of `GET /v1/models`, or an alias of this gateway."
    )
    seconds: int | None = Field(
        default=None, ge=1, le=MAX_SECONDS, description="Length of the film; the model's default otherwise."
    )
    size: Size | None = Field(default=None, description="`WIDTHxHEIGHT` in pixels; the model's default otherwise.")
    aspect_ratio: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,2}:[0-9]{1,2}$",
        description="Instead of `size`: such as `16:9`.",
    )
    resolution: str | None = Field(
        default=None,
        pattern=r"^([0-9]{3,4}p|[248]k)$",
        description="With `aspect_ratio`: the shorter side, such as `720p`.",
    )
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    negative_prompt: Text | None = Field(default=None, max_length=4000, description="What the film must not show.")
    audio: bool | None = Field(default=None, description="Whether the film has sound, where the model lets one choose.")
    provider_options: Annotated[dict[str, Any], AfterValidator(_shallow)] = Field(
        default_factory=dict, description="Vendor-only settings, passed through as they are; each model lists its own."
    )
    mode: Literal["strict", "adjust"] = Field(
        default="strict",
        description="`strict` refuses what the model cannot do; `adjust` takes the nearest and lists `adjustments`.",
    )
    max_cost: Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=6)] | None = Field(
        default=None, description="In USD. The job is refused when its price is higher, or not known."
    )
    deadline_seconds: int | None = Field(
        default=None,
        ge=10,
        le=MAX_DEADLINE,
        description="How long the job may take from now on; the gateway's default otherwise.",
    )
    webhook_url: Text | None = Field(
        default=None, max_length=2048, description="Where the signed event goes when the job has ended."
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)] = Field(
        default_factory=dict, description="Yours: up to 16 pairs, returned with the job and in its webhook."
    )

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _is_not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("must not be blank")
        return value


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
        description="`prompt`, `input`, `output_moderation`, `capacity`, `quota`, `account`, `provider` or `network`."
    )
    retryable: bool = Field(description="Whether the same order, sent again as a new job, may succeed.")


class Cost(BaseModel):
    """Money, in USD, as decimal strings."""

    estimated: str | None = Field(description="The catalogue's price for the order; null when it is not known.")
    charged: str | None = Field(description="What providers charged so far; null when they have not said.")
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


class JobAssets(BaseModel):
    """The stored files of a job that succeeded."""

    film: Asset
    poster: Asset | None = None


class JobView(BaseModel):
    """A job as callers see it."""

    model_config = ConfigDict(title="Job")

    id: str = Field(examples=["job_01h455vb4pex5vsknk084sn02q"])
    status: Status
    phase: Phase | None = Field(description="What is going on inside the status; null when the job has ended.")
    progress: int = Field(ge=0, le=100, description="Of the render, as far as the provider tells.")
    notice: str | None = Field(description="What a live job is waiting for, in words.")
    model: str
    prompt: str
    seconds: int
    size: Size
    seed: int | None
    negative_prompt: str | None
    audio: bool | None
    provider_options: dict[str, Any]
    adjustments: list[Adjustment]
    cost: Cost
    error: JobError | None
    cancel: Cancel | None
    assets: JobAssets | None
    webhook_url: str | None
    metadata: dict[str, str]
    version: int = Field(description="Grows with every change; a webhook carries it too.")
    created_at: datetime
    deadline_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job, assets: list[Asset]) -> Self:
        status, phase = PUBLIC[job.state]
        ordered = job.ordered
        return cls(
            id=encode(Prefix.JOB, job.id),
            status=status,
            phase=phase,
            progress=job.progress,
            notice=job.notice,
            model=job.model,
            prompt=ordered.prompt,
            seconds=ordered.seconds,
            size=ordered.size,
            seed=ordered.seed,
            negative_prompt=ordered.negative_prompt,
            audio=ordered.audio,
            provider_options=dict(ordered.options or {}),
            adjustments=[Adjustment(**item) for item in job.adjustments],
            cost=_cost(job),
            error=JobError(**job.error) if job.error else None,
            cancel=_cancel(job),
            assets=_files(assets),
            webhook_url=job.webhook_url,
            metadata=dict(job.metadata),
            version=job.version,
            created_at=job.created_at,
            deadline_at=job.deadline_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
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
            cost=_cost(job),
            error=JobError(**job.error) if job.error else None,
            cancel=_cancel(job),
            assets=dict(assets),
            metadata=dict(job.metadata),
        )


JobEvent = WebhookEnvelope[JobEventData]


class SubmissionView(BaseModel):
    """One purchase: where, when, what came of it, what it cost."""

    model_config = ConfigDict(title="Submission")

    id: str = Field(description="Also our reference at the provider.")
    number: int
    connection: str
    upstream_model: str
    state: SubmissionState
    remote_id: str | None = Field(description="The provider's own record.")
    cost_limit: str | None = Field(description="The most the provider said it may charge, in USD.")
    cost: str | None = Field(description="What it charged, in USD; null when it has not said.")
    charge_certainty: ChargeCertainty
    error: JobError | None
    created_at: datetime = Field(description="When the intent was committed: before a byte left.")
    send_deadline: datetime
    accepted_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, submission: Submission) -> Self:
        failure = submission.failure
        return cls(
            id=encode(Prefix.SUBMISSION, submission.id),
            number=submission.number,
            connection=submission.connection,
            upstream_model=submission.upstream_model,
            state=submission.state,
            remote_id=submission.remote_id,
            cost_limit=money(submission.cost_limit),
            cost=money(submission.cost),
            charge_certainty=submission.charge_certainty,
            error=JobError(**{name: failure[name] for name in JobError.model_fields}) if failure else None,
            created_at=submission.created_at,
            send_deadline=submission.send_deadline,
            accepted_at=submission.accepted_at,
            ended_at=submission.ended_at,
        )


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


def _cost(job: Job) -> Cost:
    return Cost(estimated=money(job.estimated_cost), charged=money(job.cost), certainty=job.charge_certainty)


def _files(assets: list[Asset]) -> JobAssets | None:
    by_kind = {asset.kind: asset for asset in assets}
    film = by_kind.get(Kind.FILM)
    return JobAssets(film=film, poster=by_kind.get(Kind.POSTER)) if film else None


def _cancel(job: Job) -> Cancel | None:
    if job.cancel_requested_at is None:
        return None
    outcome: Any = job.cancel_outcome or "requested"
    return Cancel(requested_at=job.cancel_requested_at, outcome=outcome)
