"""Response bodies of the jobs API. Independent of the tables."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app.assets.schemas import Asset
from app.ids import Prefix, encode
from app.jobs.api.requests import PRIORITIES, Priority, Size
from app.jobs.payloads import Adjustment, Cancel, Cost, JobAssets, JobError, cancel_of, cost_of, money
from app.jobs.records import NO_ESTIMATE, Estimate, Job, Submission
from app.jobs.states import PUBLIC, ChargeCertainty, Phase, Status, SubmissionState
from app.providers.inputs import InputFile, JobInput
from app.providers.job_spec import JobSpec
from app.web.schema_types import Int32, Int64, Percent, Position


class FallbackView(BaseModel):
    """Another model that may produce the video, with the parameters adapted to it."""

    model_config = ConfigDict(title="Fallback")

    model: str
    seconds: Int32
    size: Size
    estimated_cost: str | None
    adjustments: list[Adjustment]

    @classmethod
    def of(cls, spec: JobSpec) -> Self:
        return cls(
            model=spec.model,
            seconds=spec.seconds,
            size=spec.size,
            estimated_cost=money(spec.estimated_cost),
            adjustments=[Adjustment(**item) for item in spec.adjustments],
        )


class Waiting(BaseModel):
    """The position of a queued job."""

    position: Position = Field(
        description="1 is next. May grow with jobs of other accounts, since accounts take turns."
    )
    estimated_start_at: datetime | None = Field(description="Estimated from past renders; null while unknown.")


class InputView(BaseModel):
    """An input of a job."""

    model_config = ConfigDict(title="JobInput")

    role: str
    file_id: str | None = Field(description="The file; null while its URL was not fetched yet.")
    url: str | None = Field(description="Where the file was fetched, if it was given as a URL.")
    job_id: str | None = Field(description="The job whose video it is from, if it is a frame of one.")
    use: str | None = Field(description="Which frame of that video.")
    sent_file_id: str | None = Field(
        description="The file that the provider gets: upright, without metadata, and adjusted. Null until prepared."
    )

    @classmethod
    def of(cls, one: JobInput) -> Self:
        return cls(
            role=one.role.value,
            file_id=_file_id(one.file),
            url=one.url,
            job_id=None if one.job_id is None else encode(Prefix.JOB, one.job_id),
            use=one.use,
            sent_file_id=_file_id(one.sent),
        )


class JobView(BaseModel):
    """A job."""

    model_config = ConfigDict(title="Job")

    id: str = Field(examples=["job_01h455vb4pex5vsknk084sn02q"])
    status: Status
    phase: Phase | None = Field(description="The current step within the status; null once the job has ended.")
    progress: Percent = Field(description="Progress of the render in percent, as reported by the provider.")
    notice: str | None = Field(description="Human-readable note on what a live job is waiting for.")
    queue: Waiting | None = Field(
        description="Of a queued job with a configured connection; null in lists, and for a job that was just created."
    )
    estimated_finish_at: datetime | None = Field(
        description="Of a live job, estimated from past renders; null while unknown."
    )
    priority: Priority
    parent_id: str | None = Field(description="The job that this one varies, made with `again`.")
    model: str = Field(description="The model of the request; of an alias, the one that it stood for.")
    model_used: str | None = Field(description="The model that produces the video: `model` or one of `fallbacks`.")
    fallbacks: list[FallbackView]
    fallback_on_refusal: bool
    max_cost: str | None
    prompt: str
    seconds: Int32
    size: Size
    seed: Int64 | None
    negative_prompt: str | None
    audio: bool | None
    inputs: list[InputView]
    provider_options: dict[str, Any]
    adjustments: list[Adjustment]
    cost: Cost
    error: JobError | None
    cancel: Cancel | None
    assets: JobAssets | None
    webhook_url: str | None
    metadata: dict[str, str]
    version: Int64 = Field(description="Increases with every change; webhooks carry it, too.")
    created_at: datetime
    deadline_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job, assets: Sequence[Asset], estimate: Estimate = NO_ESTIMATE) -> Self:
        status, phase = PUBLIC[job.state]
        spec = job.spec
        return cls(
            id=encode(Prefix.JOB, job.id),
            status=status,
            phase=phase,
            progress=job.progress,
            notice=job.notice,
            queue=_waiting(estimate),
            estimated_finish_at=estimate.finish_at,
            priority=PRIORITIES[job.priority],
            parent_id=None if job.parent_id is None else encode(Prefix.JOB, job.parent_id),
            model=job.model,
            model_used=job.model_used,
            fallbacks=[FallbackView.of(spec) for spec in job.fallbacks],
            fallback_on_refusal=job.fallback_on_refusal,
            max_cost=money(job.max_cost),
            prompt=spec.prompt,
            seconds=spec.seconds,
            size=spec.size,
            seed=spec.seed,
            negative_prompt=spec.negative_prompt,
            audio=spec.audio,
            inputs=[InputView.of(one) for one in job.spec_for(job.model_used or job.model).inputs],
            provider_options=dict(spec.options),
            adjustments=[Adjustment(**item) for item in spec.adjustments],
            cost=cost_of(job),
            error=JobError(**job.error) if job.error else None,
            cancel=cancel_of(job),
            assets=JobAssets.of(assets),
            webhook_url=job.webhook_url,
            metadata=dict(job.metadata),
            version=job.version,
            created_at=job.created_at,
            deadline_at=job.deadline_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class SubmissionView(BaseModel):
    """One attempt to have a provider produce the video: connection, state, result and cost."""

    model_config = ConfigDict(title="Submission")

    id: str = Field(description="Also sent to the provider as the reference, where it accepts one.")
    number: Int32
    connection: str
    model: str
    upstream_model: str
    state: SubmissionState
    remote_id: str | None = Field(description="The provider's id of the remote job.")
    estimated_cost: str | None = Field(description="Price of this submission in USD, by the catalogue.")
    cost_limit: str | None = Field(description="Maximum charge in USD announced by the provider.")
    cost: str | None = Field(description="Charge in USD reported by the provider; null if it has not reported one.")
    certainty: ChargeCertainty = Field(description="What is known about a charge, as in `cost.certainty` of the job.")
    late: bool = Field(description="Whether the result arrived after the job had ended: a late video or a late charge.")
    error: JobError | None
    created_at: datetime = Field(description="When the intent was committed, before the request was sent.")
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
            certainty=submission.charge_certainty,
            late=submission.late,
            error=JobError(**{name: failure[name] for name in JobError.model_fields}) if failure else None,
            created_at=submission.created_at,
            send_deadline=submission.send_deadline,
            accepted_at=submission.accepted_at,
            ended_at=submission.ended_at,
        )


def _file_id(file: InputFile | None) -> str | None:
    return None if file is None else encode(Prefix.FILE, file.id)


def _waiting(estimate: Estimate) -> Waiting | None:
    if estimate.position is None:
        return None
    return Waiting(position=estimate.position, estimated_start_at=estimate.start_at)
