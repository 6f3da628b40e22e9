"""HTTP routes of jobs: parse the request, call the service, return the response."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from app.accounts.auth import Caller, require
from app.accounts.limits import PerAccount
from app.errors import FieldError, InvalidRequest
from app.events.service import EventService
from app.jobs.api.requests import MAX_METADATA_NAME, JobRequest, Text
from app.jobs.api.schemas import JobView, SubmissionView
from app.jobs.api.service import Filters, JobService
from app.jobs.states import FINAL_EVENTS, Status
from app.web import problems
from app.web.concurrency import release, unless_gone
from app.web.input_types import DIGITS
from app.web.pagination import Page, Paging, paging
from app.webhooks.schemas import Delivery

MAX_KEY_LENGTH = 255
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
METADATA_FILTER = re.compile(r"metadata\[(.+)\]", re.DOTALL)
#: For the document: FastAPI has no such parameters.
METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    "description": "Only jobs with these values in their metadata: `metadata[order]=1042`.",
}
SINGLE_PARAMETERS = ("created_after", "created_before", "limit", "cursor")
LARGEST_FILTER = 20
ANY = "Repeat it to match any of several."
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


async def filters_of(
    request: Request,
    status: Annotated[list[Status] | None, Query(max_length=LARGEST_FILTER, description=ANY)] = None,
    model: Annotated[
        list[Annotated[Text, Field(max_length=200)]] | None,
        Query(max_length=LARGEST_FILTER, description=f"A model or an alias, as in the request. {ANY}"),
    ] = None,
    created_after: Annotated[Time | None, Query(description="RFC 3339; inclusive.")] = None,
    created_before: Annotated[Time | None, Query(description="RFC 3339; exclusive.")] = None,
) -> Filters:
    metadata: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        found = METADATA_FILTER.fullmatch(name)
        if found:
            _check_metadata(name, found[1], value)
            values = metadata.setdefault(found[1], [])
            values.append(value)
            if len(values) > LARGEST_FILTER:
                raise _refused(name, "too_long", f"has more than {LARGEST_FILTER} values")
        elif name not in LIST_PARAMETERS:
            known = f"the filters are {', '.join(LIST_PARAMETERS)} and metadata[name]"
            raise _refused(name, "unknown", f"is not a filter; {known}")
        elif name in seen and name in SINGLE_PARAMETERS:
            raise _refused(name, "repeated", "is given more than once")
        seen.add(name)
    return Filters(
        statuses=status or (),
        models=model or (),
        metadata=metadata,
        created_after=created_after,
        created_before=created_before,
    )


def _once(request: Request, header: str) -> None:
    """Of two values, one would be ignored: then a retry with only that one would make a second job."""
    if len(request.headers.getlist(header)) > 1:
        message = "is sent more than once"
        raise InvalidRequest(f"The header {header} {message}.", [FieldError(f"header.{header}", "repeated", message)])


def _check_metadata(parameter: str, name: str, value: str) -> None:
    if len(name) > MAX_METADATA_NAME:
        raise _refused(parameter, "too_long", f"names more than {MAX_METADATA_NAME} characters")
    if "\x00" in name + value:
        raise _refused(parameter, "invalid_format", "must not hold a NUL character")


def _refused(name: str, code: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"`{name[:80]}` {message}.", [FieldError(f"query.{name[:80]}", code, message)])


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


@router.post(
    "",
    operation_id="create_job",
    status_code=202,
    summary="Create a job",
    description=(
        "Responds with 202 as soon as the job is committed. Send an `Idempotency-Key` and repeat the request after any "
        "doubt: the same key returns the same job. The end is sent to `webhook_url`; or wait for it with `get_job`."
    ),
    responses={
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
    },
)
async def create_job(
    request: Request,
    body: JobRequest,
    caller: Writer,
    response: Response,
    key: IdempotencyKey = None,
) -> JobView:
    _once(request, "Idempotency-Key")
    created = await jobs(request).create(caller.account_id, body, key)
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
