"""Maps errors to HTTP responses: RFC 9457 problems.

Every error of a request becomes a :class:`ProblemResponse` in :func:`problem_of`; no other module knows a status code.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app import errors
from app.errors import FieldError, FilmgateError
from app.infra.db import advice_on, is_outage
from app.web.field_errors import explain
from app.web.forwarded import path_prefix
from app.web.problem_codes import BY_ERROR, BY_NAME, CODES, METHOD_NOT_ALLOWED
from app.web.schema_types import Int32

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
PROBLEM = "#/components/schemas/Problem"
RETRY_AFTER = 5.0


#: Errors raised by the framework itself, by status.
_BY_STATUS: Final = {
    400: errors.InvalidRequest("The body of the request could not be read; check its Content-Type and its syntax."),
    401: errors.Unauthenticated("The request was not authenticated."),
    403: errors.Forbidden("This is not allowed."),
    404: errors.NotFound("There is nothing at this path."),
    408: errors.TooSlow("The request did not arrive in time."),
    413: errors.TooLarge("The body of the request is too large."),
    500: FilmgateError(BY_ERROR[FilmgateError].example),
    503: errors.Unavailable(BY_ERROR[errors.Unavailable].example),
}


class ProblemField(BaseModel):
    """An error of one field."""

    field: str = Field(description="Path of the field: `inputs[0].url`, `query.limit`, `header.Idempotency-Key`.")
    code: str = Field(description="The error code, for programs.")
    message: str = Field(description="The error message, for people.")


class Problem(BaseModel):
    """An error (RFC 9457). Branch on `code`; show `detail`; quote `request_id` to the operator."""

    type: str = Field(description="The kind of problem: the path of a page about it.")
    title: str = Field(description="A summary of the kind of problem; the same for each code.")
    status: Int32 = Field(description="The HTTP status.")
    detail: str = Field(description="The cause of this error, and how to correct it.")
    code: str = Field(
        description=(
            "The kind of problem, for programs. Stable; new ones may be added. The introduction of the API's document "
            "lists them."
        ),
        json_schema_extra={"x-extensible-enum": [known.code for known in CODES]},
    )
    request_id: str = Field(description="The X-Request-Id of this response.")
    errors: list[ProblemField] = Field(default_factory=list, description="The invalid fields, if any.")


@dataclass(frozen=True, slots=True)
class ProblemResponse:
    """The public form of an error."""

    status: int
    code: str
    title: str
    detail: str
    fields: tuple[FieldError, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_of(error: Exception, route: object = None) -> ProblemResponse:
    """The public form of any error. Of errors that are not a FilmgateError, only the kind is shown."""
    if isinstance(error, RequestValidationError):
        error = _invalid(error, route)
    elif isinstance(error, HTTPException):
        if error.status_code == METHOD_NOT_ALLOWED.status:
            known = METHOD_NOT_ALLOWED
            return ProblemResponse(known.status, known.code, known.title, known.example)
        error = _BY_STATUS.get(error.status_code) or _BY_STATUS[400 if error.status_code < 500 else 500]
    elif not isinstance(error, FilmgateError):
        kind = errors.Unavailable if is_outage(error) else FilmgateError
        error = kind(BY_ERROR[kind].example)
    assert isinstance(error, FilmgateError)
    return ProblemResponse(
        status=next(BY_ERROR[kind].status for kind in type(error).__mro__ if kind in BY_ERROR),
        code=error.code,
        title=error.title,
        detail=error.message,
        fields=error.fields if isinstance(error, errors.InvalidRequest) else (),
        headers=_headers(error),
    )


def _invalid(error: RequestValidationError, route: object) -> errors.InvalidRequest:
    fields = explain(error, route)
    names = ["The body" if item.field == "body" else f"`{item.field}`" for item in fields]
    if len(fields) == 1:
        return errors.InvalidRequest(f"{names[0]} {fields[0].message}.", fields)
    return errors.InvalidRequest(f"{len(fields)} fields are wrong: {', '.join(names)}.", fields)


def _headers(error: FilmgateError) -> dict[str, str]:
    headers = {}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    retry_after = error.retry_after
    if retry_after is None and isinstance(error, errors.Unavailable):
        retry_after = RETRY_AFTER
    if retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return headers


def render(problem: ProblemResponse, request_id: str) -> Response:
    """The HTTP response of a problem."""
    content: dict[str, Any] = {
        "type": type_of(problem.code),
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.fields:
        content["errors"] = [
            {"field": item.field, "code": item.code, "message": item.message} for item in problem.fields
        ]
    # A field's name comes from the request and may contain a lone surrogate.
    body = json.dumps(content, ensure_ascii=False).encode(errors="replace")
    return Response(body, problem.status, dict(problem.headers), MEDIA_TYPE)


def type_of(code: str) -> str:
    """The `type` of a problem: the path of a page about it, behind the path prefix of the request."""
    return f"{path_prefix.get()}/docs/problems/{code}"


def request_id(scope: Mapping[str, Any]) -> str:
    """The id of a request: the middleware's, or a new one where there is no middleware."""
    return str(scope.get("state", {}).get("request_id") or uuid4().hex)


def respond(scope: Mapping[str, Any], error: Exception) -> Response:
    """The response to an error of a request. Logs errors that are not the caller's fault."""
    problem = problem_of(error, scope.get("route"))
    if problem.code == METHOD_NOT_ALLOWED.code:
        problem = replace(problem, headers={"Allow": ", ".join(_allowed(scope))})
    if problem.code == FilmgateError.code:
        log.error("request failed", exc_info=error, **_advice(error))
    elif isinstance(error, OSError | SQLAlchemyError):
        first_line = f"{type(error).__name__}: {error}".partition("\n")[0]
        log.warning("dependency unavailable", error=first_line, **_advice(error))
    return render(problem, request_id(scope))


def _advice(error: Exception) -> dict[str, str]:
    return {"advice": advice} if (advice := advice_on(error)) else {}


def path_of(scope: Mapping[str, Any]) -> str:
    """The path of a request without the path prefix, as the router reads it: a prefix ends where a segment ends."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path


def _allowed(scope: Mapping[str, Any]) -> list[str]:
    """The methods of a path, of all its routes; the framework considers only the first matching route."""
    path = path_of(scope)
    contexts = [route for route in iter_route_contexts(scope["app"].routes) if route.methods]
    return sorted({method for route in contexts if route.path_regex.match(path) for method in route.methods or ()})


def install(app: FastAPI) -> None:
    """Make every error of an app a problem, in its responses and in its OpenAPI document."""

    async def handle(request: Request, error: Exception) -> Response:
        return respond(request.scope, error)

    for kind in (
        FilmgateError,
        RequestValidationError,
        HTTPException,
        SQLAlchemyError,
        OSError,
        Exception,
    ):
        app.add_exception_handler(kind, handle)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        return _described(generate())

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


#: What a response of a status has beside the headers of every response.
HEADERS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("WWW-Authenticate", "How to authenticate: `Bearer`."),
    416: ("Content-Range", "The size of the file: `bytes */1048576`."),
    429: ("Retry-After", "Seconds after which to try again."),
    503: ("Retry-After", "Seconds after which to try again."),
}


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses=`` of a route: the problems that it may return, by code, each with an example."""
    described: dict[int | str, dict[str, Any]] = {}
    for known in (BY_NAME[code] for code in codes):
        example = {
            "type": type_of(known.code),
            "title": known.title,
            "status": known.status,
            "detail": known.example,
            "code": known.code,
            "request_id": "0b9f4e6c2d3f4b0e9a53c7a1f0b8d2e4",
        }
        entry = described.setdefault(
            known.status,
            {"model": Problem, "description": known.title, "content": {MEDIA_TYPE: {"examples": {}}}},
        )
        if known.status in HEADERS:
            name, description = HEADERS[known.status]
            entry["headers"] = {name: {"schema": {"type": "string"}, "description": description}}
        if known.title not in entry["description"]:
            entry["description"] += f"; or: {known.title}"
        entry["content"][MEDIA_TYPE]["examples"][known.code] = {"value": example}
    return described


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    """Set the media type of problems, which FastAPI cannot express, and leave out the 422 that it adds by itself."""
    for operation in operations({**schema.get("paths", {}), **schema.get("webhooks", {})}):
        if "HTTPValidationError" in str(operation["responses"].get("422")):
            del operation["responses"]["422"]
        for response in operation["responses"].values():
            _move(response.get("content", {}))
    schemas = schema.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return schema


def operations(paths: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every operation of a document's ``paths`` or ``webhooks``."""
    for item in paths.values():
        yield from item.values()


def _move(content: dict[str, Any]) -> None:
    """A problem has one media type, whatever that of the route is."""
    schema = {"$ref": PROBLEM}
    for media_type in [name for name, body in content.items() if name != MEDIA_TYPE and body.get("schema") == schema]:
        del content[media_type]
        content.setdefault(MEDIA_TYPE, {})["schema"] = schema
