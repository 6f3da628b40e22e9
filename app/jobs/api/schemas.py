"""What callers see. Nothing here knows the tables."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app.assets.records import Kind
from app.assets.schemas import Asset
from app.ids import Prefix, encode
from app.jobs.api.requests import PRIORITIES, Priority, Size
from app.jobs.payloads import Adjustment, Cancel, Cost, JobError, cancel_of, cost_of, money
from app.jobs.records import NO_OUTLOOK, Choice, Job, Outlook, Submission
from app.jobs.states import PUBLIC, ChargeCertainty, Phase, Status, SubmissionState


class JobAssets(BaseModel):
    """The stored files of a job that succeeded, or whose film came out after it had failed."""

    film: Asset
    poster: Asset | None = None


class FallbackView(BaseModel):
    """Another model that may make the film, with the order as it was fitted to that model."""

    model_config = ConfigDict(title="Fallback")

    model: str
    seconds: int
    size: Size
    estimated_cost: str | None
    adjustments: list[Adjustment]

    @classmethod
    def of(cls, choice: Choice) -> Self:
        return cls(
            model=choice.model,
            seconds=choice.ordered.seconds,
            size=choice.ordered.size,
            estimated_cost=money(choice.estimated_cost),
            adjustments=[Adjustment(**item) for item in choice.adjustments],
        )


class Waiting(BaseModel):
    """Where a queued job stands."""

    position: int = Field(ge=1, description="1 is next. Accounts take turns, so it may grow when others order films.")
    estimated_start_at: datetime | None = Field(description="Learned from past renders; null while nobody can say.")


class JobView(BaseModel):
    """A job as callers see it."""

    model_config = ConfigDict(title="Job")

    id: str = Field(examples=["job_01h455vb4pex5vsknk084sn02q"])
    status: Status
    phase: Phase | None = Field(description="What is going on inside the status; null when the job has ended.")
    progress: int = Field(ge=0, le=100, description="Of the render, as far as the provider tells.")
    notice: str | None = Field(description="What a live job is waiting for, in words.")
    queue: Waiting | None = Field(
        description="Of a queued job that some connection serves; null in lists and in the answer to a create."
    )
    estimated_finish_at: datetime | None = Field(description="Of a live job, learned from past renders.")
    priority: Priority
    model: str
    model_used: str | None = Field(description="Whose film it is, or will be: `model`, or one of `fallbacks`.")
    fallbacks: list[FallbackView]
    fallback_on_refusal: bool
    max_cost: str | None
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
    def of(cls, job: Job, assets: Sequence[Asset], outlook: Outlook = NO_OUTLOOK) -> Self:
        status, phase = PUBLIC[job.state]
        ordered = job.ordered
        return cls(
            id=encode(Prefix.JOB, job.id),
            status=status,
            phase=phase,
            progress=job.progress,
            notice=job.notice,
            queue=_waiting(outlook),
            estimated_finish_at=outlook.finish_at,
            priority=PRIORITIES[job.priority],
            model=job.model,
            model_used=job.model_used,
            fallbacks=[FallbackView.of(choice) for choice in job.fallbacks],
            fallback_on_refusal=job.fallback_on_refusal,
            max_cost=money(job.max_cost),
            prompt=ordered.prompt,
            seconds=ordered.seconds,
            size=ordered.size,
            seed=ordered.seed,
            negative_prompt=ordered.negative_prompt,
            audio=ordered.audio,
            provider_options=dict(ordered.options or {}),
            adjustments=[Adjustment(**item) for item in job.adjustments],
            cost=cost_of(job),
            error=JobError(**job.error) if job.error else None,
            cancel=cancel_of(job),
            assets=_files(assets),
            webhook_url=job.webhook_url,
            metadata=dict(job.metadata),
            version=job.version,
            created_at=job.created_at,
            deadline_at=job.deadline_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class SubmissionView(BaseModel):
    """One purchase: where, when, what came of it, what it cost."""

    model_config = ConfigDict(title="Submission")

    id: str = Field(description="Also our reference at the provider.")
    number: int
    connection: str
    model: str
    upstream_model: str
    state: SubmissionState
    remote_id: str | None = Field(description="The provider's own record.")
    estimated_cost: str | None = Field(description="The catalogue's price of this purchase, in USD.")
    cost_limit: str | None = Field(description="The most the provider said it may charge, in USD.")
    cost: str | None = Field(description="What it charged, in USD; null when it has not said.")
    charge_certainty: ChargeCertainty
    late: bool = Field(description="The truth came after the job had ended: a late film, or a late bill.")
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
            model=submission.model,
            upstream_model=submission.upstream_model,
            state=submission.state,
            remote_id=submission.remote_id,
            estimated_cost=money(submission.estimated_cost),
            cost_limit=money(submission.cost_limit),
            cost=money(submission.cost),
            charge_certainty=submission.charge_certainty,
            late=submission.late,
            error=JobError(**{name: failure[name] for name in JobError.model_fields}) if failure else None,
            created_at=submission.created_at,
            send_deadline=submission.send_deadline,
            accepted_at=submission.accepted_at,
            ended_at=submission.ended_at,
        )


def _waiting(outlook: Outlook) -> Waiting | None:
    if outlook.position is None:
        return None
    return Waiting(position=outlook.position, estimated_start_at=outlook.start_at)


def _files(assets: Sequence[Asset]) -> JobAssets | None:
    by_kind = {asset.kind: asset for asset in assets}
    film = by_kind.get(Kind.FILM)
    return JobAssets(film=film, poster=by_kind.get(Kind.POSTER)) if film else None
