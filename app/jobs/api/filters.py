"""The filters of the list of jobs, as query parameters."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query, Request
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from app.errors import FieldError, InvalidRequest
from app.ids import Prefix, decode
from app.jobs.api.requests import MAX_METADATA_NAME, Text
from app.jobs.states import Status

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
SINGLE_PARAMETERS = ("parent_id", "created_after", "created_before", "limit", "cursor")
LARGEST_FILTER = 20
ANY = "Repeat it to match any of several."
LIST_PARAMETERS = ("status", "model", "parent_id", "created_after", "created_before", "limit", "cursor")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs of an account to list: those that match one value of each filter. An empty one matches all."""

    statuses: Collection[Status] = ()
    models: Collection[str] = ()
    metadata: Mapping[str, Sequence[str]] = field(default_factory=dict)
    created_after: datetime | None = None
    created_before: datetime | None = None
    parent_id: UUID | None = None


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


async def filters_of(  # noqa: PLR0917  # FastAPI names the parameters
    request: Request,
    status: Annotated[list[Status] | None, Query(max_length=LARGEST_FILTER, description=ANY)] = None,
    model: Annotated[
        list[Annotated[Text, Field(max_length=200)]] | None,
        Query(max_length=LARGEST_FILTER, description=f"A model or an alias, as in the request. {ANY}"),
    ] = None,
    parent_id: Annotated[str | None, Query(description="Only jobs made from this one with `again`.")] = None,
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
    parent = None if parent_id is None else decode(Prefix.JOB, parent_id)
    if parent_id is not None and parent is None:
        raise _refused("parent_id", "invalid_format", "is not the id of a job")
    return Filters(
        statuses=status or (),
        models=model or (),
        metadata=metadata,
        created_after=created_after,
        created_before=created_before,
        parent_id=parent,
    )


def _check_metadata(parameter: str, name: str, value: str) -> None:
    if len(name) > MAX_METADATA_NAME:
        raise _refused(parameter, "too_long", f"names more than {MAX_METADATA_NAME} characters")
    if "\x00" in name + value:
        raise _refused(parameter, "invalid_format", "must not hold a NUL character")


def _refused(name: str, code: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"`{name[:80]}` {message}.", [FieldError(f"query.{name[:80]}", code, message)])
