"""HTTP routes of jobs: parse the request, call the service, return the response."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator

from app.accounts.auth import Caller, require
from app.accounts.limits import PerAccount
from app.errors import FieldError, InvalidRequest
from app.events.service import EventService
from app.jobs.api.again import JobChanges
from app.jobs.api.filters import METADATA_PARAMETER, Filters, filters_of
from app.jobs.api.requests import JobRequest
from app.jobs.api.schemas import JobView, SubmissionView
from app.jobs.api.service import Created, JobService
from app.jobs.states import FINAL_EVENTS
from app.web import problems
from app.web.concurrency import release, unless_gone
from app.web.input_types import DIGITS
from app.web.pagination import Page, Paging, paging
from app.webhooks.schemas import Delivery

MAX_KEY_LENGTH = 255
WAIT = re.compile(r"(?:^|[,;]\s*)wait=(\d{1,5})(?:$|[\s,;])")


def jobs(request: Request) -> JobService:
    # Not a dependency: resolving one costs as much time as reading the request body.
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
        description="Any text, unique for each job. Repeating a request with the same key returns the same job.",
    ),
    AfterValidator(_printable),
]
Prefer = Annotated[
    str | None,
    Header(alias="Prefer", description="`wait=30` delays the response for up to 30 seconds, until the job has ended."),
]


def preferred_wait(prefer: str | None, longest: float) -> float:
    """Seconds to delay the response: `wait` of RFC 7240, limited by the settings."""
    found = WAIT.search(prefer or "")
    return min(float(found[1]), longest) if found else 0.0


def _once(request: Request, header: str) -> None:
    """Of two values, one would be ignored: then a retry with only that one would make a second job."""
    if len(request.headers.getlist(header)) > 1:
        message = "is sent more than once"
        raise InvalidRequest(f"The header {header} {message}.", [FieldError(f"header.{header}", "repeated", message)])


@dataclass(frozen=True, slots=True)
class Followed:
    """The job to follow, and the last event already received."""

    account_id: UUID
    job_id: UUID
    after: int
    ended: bool  # the log is complete


Reader = Annotated[Caller, Depends(require("jobs:read"))]
Writer = Annotated[Caller, Depends(require("jobs:write"))]

router = APIRouter(prefix="/jobs", tags=["jobs"])

CREATED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The job is committed and survives a restart of the gateway.",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "URL path of the job."},
            "Idempotency-Replayed": {
                "schema": {"type": "string", "enum": ["true"]},
                "description": "Present if an earlier request with the same key created this job.",
            },
        },
    },
    **problems.responses(
        "unauthenticated",
        "forbidden",
        "invalid_request",
        "unknown_model",
        "idempotency_mismatch",
        "rate_limited",
        "unavailable",
    ),
}


@router.post(
    "",
    operation_id="create_job",
    status_code=202,
    summary="Create a job",
    description=(
        "Responds with 202 as soon as the job is committed. Send an `Idempotency-Key` and repeat the request after any "
        "doubt: the same key returns the same job. The end is sent to `webhook_url`; or wait for it with `get_job`."
    ),
    responses=CREATED,
)
async def create_job(
    request: Request,
    body: JobRequest,
    caller: Writer,
    response: Response,
    key: IdempotencyKey = None,
) -> JobView:
    _once(request, "Idempotency-Key")
    return _accepted(request, response, await jobs(request).create(caller.account_id, body, key))


def _accepted(request: Request, response: Response, created: Created) -> JobView:
    response.headers["Location"] = f"{request.scope['root_path']}/v1/jobs/{created.job.id}"
    if created.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return created.job


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    description=(
        "Filter by metadata with `metadata[name]=value`. A job must match all filters; of a filter that is repeated, "
        "any value."
    ),
    responses=problems.responses("unauthenticated", "forbidden", "invalid_request", "unavailable"),
    openapi_extra={"parameters": [METADATA_PARAMETER]},
)
async def list_jobs(
    request: Request,
    caller: Reader,
    filters: Annotated[Filters, Depends(filters_of)],
    page: Annotated[Paging, Depends(paging)],
) -> Page[JobView]:
    return await jobs(request).page(caller.account_id, filters, page)


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Get a job, optionally waiting for its end",
    description="With `Prefer: wait=30` the response comes when the job has ended, or after 30 seconds as it is then.",
    responses={
        200: {
            "headers": {
                "Preference-Applied": {
                    "schema": {"type": "string"},
                    "description": "The longest delay of this response, as in `wait=50`: yours or the allowed one.",
                }
            }
        },
        **problems.responses("unauthenticated", "forbidden", "not_found", "rate_limited", "unavailable"),
    },
)
async def get_job(request: Request, response: Response, job_id: str, caller: Reader, prefer: Prefer = None) -> JobView:
    wait = preferred_wait(prefer, request.app.state.settings.api.max_wait)
    if not wait:
        return await jobs(request).get(caller.account_id, job_id)
    response.headers["Preference-Applied"] = f"wait={wait:.0f}"
    waits: PerAccount = request.app.state.waits
    async with waits.one(request, caller.account_id):
        release(request)
        return await unless_gone(request, jobs(request).wait(caller.account_id, job_id, wait))


@router.post(
    "/{job_id}/again",
    operation_id="create_job_again",
    status_code=202,
    summary="Order a job again, with changes",
    description=(
        "Creates a job with the request of an earlier one, whatever became of that: the same pictures, another seed. "
        "The body names only what is to be different; `{}` is another take. The new job has `parent_id`."
    ),
    responses={**CREATED, **problems.responses("not_found")},
)
async def create_job_again(  # noqa: PLR0917  # FastAPI names the parameters
    request: Request,
    job_id: str,
    body: JobChanges,
    caller: Writer,
    response: Response,
    key: IdempotencyKey = None,
) -> JobView:
    _once(request, "Idempotency-Key")
    return _accepted(request, response, await jobs(request).again(caller.account_id, job_id, body, key))


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Request the cancellation of a job",
    description="`cancel.outcome` of the response is the result so far; it may change later.",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "conflict", "unavailable"),
)
async def cancel_job(request: Request, job_id: str, caller: Writer) -> JobView:
    return await jobs(request).cancel(caller.account_id, job_id)


@router.get(
    "/{job_id}/submissions",
    operation_id="list_job_submissions",
    summary="List the submissions of a job with their results and costs",
    description="The ledger, oldest first: what was sent to which provider, what became of it, and what was charged.",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "unavailable"),
)
async def list_job_submissions(request: Request, job_id: str, caller: Reader) -> list[SubmissionView]:
    return [SubmissionView.of(item) for item in await jobs(request).submissions(caller.account_id, job_id)]


@router.get(
    "/{job_id}/deliveries",
    operation_id="list_job_deliveries",
    summary="List the webhooks of a job with all attempts",
    description="What was sent to `webhook_url`, what the receiver responded, and when the next attempt is due.",
    responses=problems.responses("unauthenticated", "forbidden", "not_found", "unavailable"),
)
async def list_job_deliveries(request: Request, job_id: str, caller: Reader) -> list[Delivery]:
    return [Delivery.of(item) for item in await jobs(request).deliveries(caller.account_id, job_id)]


async def followed(
    request: Request,
    job_id: str,
    caller: Reader,
    last_event_id: Annotated[
        int,
        Header(
            alias="Last-Event-ID",
            ge=0,
            le=2**63 - 1,
            description="The `id` of the last event received; the stream resumes after it.",
        ),
        DIGITS,
    ] = 0,
) -> AsyncIterator[Followed]:
    """Validate before the stream starts, so that errors can still be returned as problems."""
    _once(request, "Last-Event-ID")
    streams: PerAccount = request.app.state.streams
    async with streams.one(request, caller.account_id):
        found, ended = await jobs(request).identify(caller.account_id, job_id)
        yield Followed(caller.account_id, found, last_event_id, ended)


@router.get(
    "/{job_id}/events",
    operation_id="stream_job_events",
    summary="Follow a job (server-sent events)",
    description=(
        "All events of the job in order, from the first or after `Last-Event-ID`, and then new ones as they happen. "
        "`data` has the form of a webhook body. The stream ends after the job's last event."
    ),
    response_class=EventSourceResponse,
    responses=problems.responses(
        "unauthenticated", "forbidden", "not_found", "invalid_request", "rate_limited", "unavailable"
    ),
)
async def stream_job_events(
    request: Request, follow: Annotated[Followed, Depends(followed)]
) -> AsyncIterator[ServerSentEvent]:
    service = jobs(request)
    async for logged in events(request).follow(follow.account_id, follow.job_id, follow.after, ended=follow.ended):
        event = await service.event(follow.job_id, logged)
        yield ServerSentEvent(event=event.type.value, id=str(logged.seq), data=event)
        if event.type in FINAL_EVENTS:
            return
