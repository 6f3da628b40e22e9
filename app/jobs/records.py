"""Values of the jobs code: immutable copies of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import ColumnElement

from app.claims import Held
from app.files.records import StoredFile
from app.jobs.states import FINAL, ChargeCertainty, State, SubmissionState
from app.providers.inputs import InputFile
from app.providers.job_spec import JobSpec


def input_file(file: StoredFile) -> InputFile:
    """What a job keeps of a file that it uses."""
    return InputFile(file.id, file.format, file.size_bytes, file.sha256.hex(), file.width, file.height, file.object_key)


@dataclass(frozen=True, slots=True)
class AcceptedRequest:
    """An accepted request: the values its job is inserted with.

    ``deadline_seconds`` count from the insert. ``key`` is the caller's idempotency key and ``body_hash`` the hash of
    the request body: both or neither.
    """

    id: UUID
    account_id: UUID
    spec: JobSpec
    fallbacks: tuple[JobSpec, ...]
    fallback_on_refusal: bool
    max_cost: Decimal | None
    priority: int
    metadata: Mapping[str, str]
    webhook_url: str | None
    notice: str | None
    deadline_seconds: float
    key: str | None = None
    body_hash: bytes | None = None
    parent_id: UUID | None = None

    @property
    def state(self) -> State:
        """The first state of the job."""
        return State.PREPARING if self.spec.inputs else State.QUEUED

    def job(self, created_at: datetime, deadline_at: datetime) -> "Job":
        """The job as it was inserted."""
        return Job(
            id=self.id,
            account_id=self.account_id,
            parent_id=self.parent_id,
            state=self.state,
            version=1,
            spec=self.spec,
            fallbacks=self.fallbacks,
            fallback_on_refusal=self.fallback_on_refusal,
            max_cost=self.max_cost,
            priority=self.priority,
            model_used=None,
            metadata=self.metadata,
            webhook_url=self.webhook_url,
            notice=self.notice,
            progress=0,
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
    parent_id: UUID | None
    state: State
    version: int
    spec: JobSpec
    fallbacks: tuple[JobSpec, ...]
    fallback_on_refusal: bool
    max_cost: Decimal | None
    priority: int
    model_used: str | None
    metadata: Mapping[str, str]
    webhook_url: str | None
    notice: str | None
    progress: int
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
    def model(self) -> str:
        """The requested model."""
        return self.spec.model

    @property
    def specs(self) -> tuple[JobSpec, ...]:
        """The specs of all models that may produce the video, in the order in which they are tried."""
        return (self.spec, *self.fallbacks)

    def spec_for(self, model: str) -> JobSpec:
        """The spec for one of the job's models."""
        return next(spec for spec in self.specs if spec.model == model)


class JobChange(TypedDict, total=False):
    """The columns of a job that a change may set. A time may be the database's: ``infra.db.NOW``."""

    progress: int
    notice: str | None
    error: Mapping[str, Any] | None
    model_used: str
    started_at: datetime | ColumnElement[datetime]
    cancel_requested_at: datetime | ColumnElement[datetime]
    cancel_outcome: str | None
    request: Mapping[str, Any]
    adjustments: list[Mapping[str, Any]]
    fallbacks: list[Mapping[str, Any]]


def changed_specs(specs: Sequence[JobSpec]) -> JobChange:
    """The columns that hold a job's specs: its own, and those of its fallbacks."""
    first, *others = specs
    return {
        "request": first.request(),
        "adjustments": list(first.adjustments),
        "fallbacks": [other.stored() for other in others],
    }


@dataclass(frozen=True, slots=True)
class Submission:
    """A row of ``submissions``: one attempt to have a connection produce the video."""

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
    callback_remote_id: str | None
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


class SubmissionChange(TypedDict, total=False):
    """The columns of a submission that a change may set, besides its state. A time may be ``infra.db.NOW``."""

    results: list[str]
    callback_remote_id: str | None
    cost: Decimal | None
    cost_limit: Decimal | None
    charge_certainty: ChargeCertainty
    late: bool
    failure: Mapping[str, Any] | None
    detail: str | None
    raw: Any
    lookups: int
    polls: int
    fetches: int
    missing_since: datetime | None
    accepted_at: datetime | ColumnElement[datetime] | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to advance a job until the lease ends: every write carries the fence."""

    job_id: UUID
    fence: int

    @property
    def held(self) -> Held:
        return self.job_id, self.fence


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a job may start and finish.

    ``position`` is its position in the line, 1 for the next; None if the job does not wait or nothing serves its model.
    """

    position: int | None = None
    start_at: datetime | None = None
    finish_at: datetime | None = None


NO_ESTIMATE = Estimate()
