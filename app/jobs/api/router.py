"""HTTP for jobs: parse, one service call, answer."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from app.accounts.auth import Caller, require
from app.errors import FieldError, InvalidRequest
from app.events.service import EventService
from app.jobs.api.requests import NewJob, Text
from app.jobs.api.schemas import JobView, SubmissionView
from app.jobs.api.service import Filters, JobService
from app.jobs.payloads import JobEvent, JobEventData
from app.jobs.states import FINAL_EVENTS, Status
from app.web import problems
from app.web.pagination import Page, Paging, paging
from app.webhooks.schemas import Delivery

MAX_KEY_LENGTH = 255
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
METADATA_FILTER = re.compile(r"metadata\[([^\]]{1,40})\]")
LIST_PARAMETERS = ("status", "model", "created_after", "created_before", "limit", "cursor")
WAIT = re.compile(r"(?:^|[,;]\s*)wait=(\d{1,5})(?:$|[\s,;])")


def _written_out(value: object) -> object:
    if isinstance(value, str) and not RFC_3339.fullmatch(value):
        raise ValueError("must be a time such as 2026-11-22T12:00:00Z; write the + of an offset as %2B")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999 in UTC") from None


Time = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]


def jobs(request: Request) -> JobService:
    # Not a dependency: each costs a request as much as reading its body does.
    service: JobService = request.app.state.jobs
    return service


def events(request: Request) -> EventService:
    service: EventService = request.app.state.events
    return service


def _printable(value: str | None) -> str | None:
    if value is not None and not value.isprintable():
        raise ValueError("must be printable text")
    return value


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        description="Any text of yours, new for each job. The same key and body, sent again, give the same job.",
    ),
    AfterValidator(_printable),
]
Prefer = Annotated[
    str | None, Header(description="`wait=30` holds the answer for up to 30 seconds, until the job has ended.")
]


def preferred_wait(prefer: str | None, longest: float) -> float:
    """Seconds to hold the answer: RFC 7240, as far as it goes, and never longer than the settings allow."""
    found = WAIT.search(prefer or "")
    return min(float(found[1]), longest) if found else 0.0


async def wanted(
    request: Request,
    status: Status | None = None,
    model: Annotated[Text | None, Query(max_length=200, description="A model or an alias.")] = None,
    created_after: Annotated[Time | None, Query(description="RFC 3339; inclusive.")] = None,
    created_before: Annotated[Time | None, Query(description="RFC 3339; exclusive.")] = None,
) -> Filters:
    metadata = {}
    for name, value in request.query_params.multi_items():
        found = METADATA_FILTER.fullmatch(name)
        if found and "\x00" not in found[1] + value:
            metadata[found[1]] = value
        elif name not in LIST_PARAMETERS:
            message = f"is not a filter; there are {', '.join(LIST_PARAMETERS)} and metadata[name]"
            raise InvalidRequest(f"`{name[:80]}` {message}.", [FieldError(f"query.{name[:80]}", "unknown", message)])
    return Filters(
        status=status, model=model, metadata=metadata, created_after=created_after, created_before=created_before
    )


@dataclass(frozen=True, slots=True)
class Followed:
    """Whose job to follow, and from where."""

    account_id: UUID
    job_id: UUID
    after: int
    ended: bool  # nothing will follow what the log holds already


Reader = Annotated[Caller, Depends(require("jobs:read"))]
Writer = Annotated[Caller, Depends(require("jobs:write"))]

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post(
    "",
    operation_id="create_job",
    status_code=202,
    summary="Order a film",
    responses={
        202: {
            "description": "Committed: the job will end, whatever happens to us.",
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "The job."},
                "Idempotency-Replayed": {
                    "schema": {"type": "string", "enum": ["true"]},
                    "description": "Present when an earlier request with the same key made this job.",
                },
            },
        },
        **problems.responses(
            "unauthenticated",
            "forbidden",
            "body_timeout",
            "body_too_large",
            "invalid_request",
            "unknown_model",
            "idempotency_mismatch",
            "unavailable",
        ),
    },
)
async def create_job(
    request: Request,
    new: NewJob,
    caller: Writer,
    response: Response,
    key: IdempotencyKey = None,
) -> JobView:
    created = await jobs(request).create(caller.account_id, new, key)
    response.headers["Location"] = f"/v1/jobs/{created.job.id}"
    if created.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return created.job


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    description="Filter by metadata with `metadata[name]=value`, several of which must all match.",
    responses=problems.responses("unauthenticated", "forbidden", "invalid_request", "unavailable"),
)
async def list_jobs(
    request: Request,
    caller: Reader,
    filters: Annotated[Filters, Depends(wanted)],
    page: Annotated[Paging, Depends(paging)],
) -> Page[JobView]:
    return await jobs(request).page(caller.account_id, filters, page)


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Get a job, or wait for its end",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "unavailable"),
)
async def get_job(request: Request, job_id: str, caller: Reader, prefer: Prefer = None) -> JobView:
    wait = preferred_wait(prefer, request.app.state.settings.api.max_wait)
    return await jobs(request).wait(caller.account_id, job_id, wait)


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Ask for a job to be stopped",
    description="`cancel.outcome` of the answer tells which of the three it came to; it may change later.",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "conflict", "unavailable"),
)
async def cancel_job(request: Request, job_id: str, caller: Writer) -> JobView:
    return await jobs(request).cancel(caller.account_id, job_id)


@router.get(
    "/{job_id}/submissions",
    operation_id="list_job_submissions",
    summary="The ledger of a job: what was tried, what was bought, what it cost",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "unavailable"),
)
async def list_job_submissions(request: Request, job_id: str, caller: Reader) -> list[SubmissionView]:
    return [SubmissionView.of(item) for item in await jobs(request).submissions(caller.account_id, job_id)]


@router.get(
    "/{job_id}/deliveries",
    operation_id="list_job_deliveries",
    summary="The webhooks of a job, with every attempt",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "unavailable"),
)
async def list_job_deliveries(request: Request, job_id: str, caller: Reader) -> list[Delivery]:
    return [Delivery.of(item) for item in await jobs(request).deliveries(caller.account_id, job_id)]


async def followed(
    request: Request,
    job_id: str,
    caller: Reader,
    last_event_id: Annotated[
        int, Header(ge=0, le=2**63 - 1, description="The `id` of the last event seen: the stream goes on behind it.")
    ] = 0,
) -> Followed:
    """Checks before the stream begins, so that errors are still problems."""
    found, ended = await jobs(request).identify(caller.account_id, job_id)
    return Followed(caller.account_id, found, last_event_id, ended)


@router.get(
    "/{job_id}/events",
    operation_id="stream_job_events",
    summary="Follow a job (server-sent events)",
    description=(
        "Every event of the job, from the first or behind `Last-Event-ID`, as they happen; `data` is the body that a "
        "webhook would have. The stream ends after the job's last event."
    ),
    response_class=EventSourceResponse,
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "invalid_request", "unavailable"),
)
async def stream_job_events(
    request: Request, follow: Annotated[Followed, Depends(followed)]
) -> AsyncIterator[ServerSentEvent]:
    async for event in events(request).follow(follow.account_id, follow.job_id, follow.after, ended=follow.ended):
        body = JobEvent(type=event.type, timestamp=event.created_at, data=JobEventData.model_validate(event.data))
        yield ServerSentEvent(event=event.type, id=str(event.seq), data=body)
        if event.type in FINAL_EVENTS:
            return
