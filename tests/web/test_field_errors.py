"""What is wrong with a request, told to the person who sent it."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Header, Query
from fastapi.exceptions import RequestValidationError
from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, field_validator

from app.errors import FieldError
from app.web import field_errors, problems


class Input(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["first_frame", "last_frame"] = "first_frame"
    url: AnyHttpUrl


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=20)
    seconds: int | None = Field(default=None, ge=1, le=60)
    audio: bool | Literal["auto"] | None = None
    max_cost: Decimal | None = Field(default=None, ge=0, decimal_places=2)
    size: str = Field(default="1280x720", pattern=r"^\d+x\d+$")
    inputs: list[Input] = Field(default=[], max_length=2)
    after: datetime | None = None
    metadata: dict[str, str] = {}
    given_name: str = Field(default="", alias="givenName")

    @field_validator("given_name")
    @classmethod
    def _is_nobody(cls, name: str) -> str:
        if name == "nobody":
            raise ValueError("must be somebody")
        return name


class Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=20, ge=1, le=100)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter()

    @router.post("/jobs")
    async def create_job(order: Order, idempotency_key: Annotated[str, Header(max_length=5)] = "") -> str:
        return order.prompt + idempotency_key

    @router.get("/jobs")
    async def list_jobs(query: Annotated[Filter, Query()]) -> int:
        return query.limit

    @router.get("/jobs/{number}")
    async def get_job(number: int) -> int:
        return number

    app = FastAPI()
    app.include_router(router, prefix="/v1")
    problems.install(app)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway") as opened:
        yield opened


def problem_in(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == "invalid_request"
    return problem


@pytest.mark.parametrize(
    ("order", "field", "code", "message"),
    [
        ({}, "prompt", "required", "is required"),
        ({"prompt": None}, "prompt", "invalid_type", "must be text"),
        ({"prompt": ""}, "prompt", "too_short", "must not be empty"),
        ({"prompt": "x" * 21}, "prompt", "too_long", "must have 20 or fewer characters"),
        ({"prompt": "\ud800"}, "prompt", "invalid_format", "must be valid Unicode text"),
        ({"seconds": "four"}, "seconds", "invalid_type", "must be a whole number"),
        ({"seconds": 4.5}, "seconds", "invalid_type", "must be a whole number"),
        ({"seconds": 0}, "seconds", "too_small", "must be 1 or more"),
        ({"seconds": 61}, "seconds", "too_large", "must be 60 or less"),
        ({"audio": "x"}, "audio", "invalid_type", "must be true or false; or must be 'auto'"),
        ({"audio": {"x": 1}}, "audio", "invalid_type", "must be true or false; or must be 'auto'"),
        ({"max_cost": "1.234"}, "max_cost", "invalid_format", "must have at most 2 decimal places"),
        ({"size": "big"}, "size", "invalid_format", r"must match the pattern ^\d+x\d+$"),
        ({"inputs": {}}, "inputs", "invalid_type", "must be a list"),
        ({"inputs": [1]}, "inputs[0]", "invalid_type", "must be an object"),
        ({"inputs": [{}]}, "inputs[0].url", "required", "is required"),
        ({"inputs": [{"url": "x"}] * 3}, "inputs", "too_long", "must have 2 or fewer items"),
        (
            {"inputs": [{"url": "ftp://x"}]},
            "inputs[0].url",
            "invalid_format",
            "must be a URL that starts with 'http' or 'https'",
        ),
        (
            {"inputs": [{"url": "http://x", "role": "middle"}]},
            "inputs[0].role",
            "not_allowed",
            "must be 'first_frame' or 'last_frame'",
        ),
        (
            {"inputs": [{"url": "http://x", "rol": "first_frame"}]},
            "inputs[0].rol",
            "unknown_field",
            "is not a known field (did you mean `role`?)",
        ),
        (
            {"inputs": [{"url": "http://x", "zzz": 1}]},
            "inputs[0].zzz",
            "unknown_field",
            "is not a known field; the fields are role, url",
        ),
        ({"secnds": 4}, "secnds", "unknown_field", "is not a known field (did you mean `seconds`?)"),
        ({"given_name": "x"}, "given_name", "unknown_field", "is not a known field (did you mean `givenName`?)"),
        ({"givenName": "nobody"}, "givenName", "invalid", "must be somebody"),
        ({"after": "tomorrow"}, "after", "invalid_format", "must be a time such as 2026-11-22T10:30:00Z"),
        ({"metadata": {"a b": 1}}, "metadata.a b", "invalid_type", "must be text"),
        ({"metadata": {"a": {"b": 1}}}, "metadata.a", "invalid_type", "must be text"),
    ],
)
async def test_a_wrong_field_is_named_and_explained(
    client: httpx2.AsyncClient, order: dict[str, Any], field: str, code: str, message: str
) -> None:
    body = json.dumps(order if order == {} or "prompt" in order else {"prompt": "a boat", **order})
    problem = problem_in(await client.post("/v1/jobs", content=body, headers={"content-type": "application/json"}))
    assert problem["errors"] == [{"field": field, "code": code, "message": message}]
    assert problem["detail"] == f"`{field}` {message}."


async def test_everything_that_is_wrong_is_told_at_once(client: httpx2.AsyncClient) -> None:
    order = {"prompt": "", "seconds": 0, "inputs": [{"url": "x"}, {}], "nonsense": 1}
    problem = problem_in(await client.post("/v1/jobs", json=order, headers={"idempotency-key": "123456"}))
    fields = [error["field"] for error in problem["errors"]]
    assert fields == ["header.idempotency-key", "prompt", "seconds", "inputs[0].url", "inputs[1].url", "nonsense"]
    assert problem["detail"] == f"6 fields are wrong: {', '.join(f'`{field}`' for field in fields)}."


async def test_a_thousand_mistakes_make_a_short_response(client: httpx2.AsyncClient) -> None:
    order = {"prompt": "x"} | {f"{number}{'x' * 1000}": 1 for number in range(1000)}
    answer = await client.post("/v1/jobs", json=order)
    assert len(problem_in(answer)["errors"]) == 50
    assert len(answer.content) < 50_000


async def test_queries_headers_and_paths_are_named_as_such(client: httpx2.AsyncClient) -> None:
    async def only_error(answer: httpx2.Response) -> tuple[str, str]:
        [error] = problem_in(answer)["errors"]
        return error["field"], error["message"]

    assert await only_error(await client.get("/v1/jobs?limit=0")) == ("query.limit", "must be 1 or more")
    assert await only_error(await client.get("/v1/jobs?limt=1")) == (
        "query.limt",
        "is not a known field (did you mean `limit`?)",
    )
    assert await only_error(await client.get("/v1/jobs/x")) == ("path.number", "must be a whole number")
    headers = {"idempotency-key": "123456"}
    assert await only_error(await client.post("/v1/jobs", json={"prompt": "x"}, headers=headers)) == (
        "header.idempotency-key",
        "must have 5 or fewer characters",
    )


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"prompt": }', "line 1, column 12"),
        (b'{\n  "prompt": "a boat"\n  "seconds": 4\n}', "line 3, column 3"),
        (b"{'prompt': 'x'}", "line 1, column 2"),
        (b"prompt=x", "line 1, column 1"),
    ],
)
async def test_a_slip_in_json_is_shown_by_line_and_column(client: httpx2.AsyncClient, body: bytes, place: str) -> None:
    answer = await client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    [error] = problem_in(answer)["errors"]
    assert (error["field"], error["code"]) == ("body", "invalid_json")
    assert error["message"].startswith("is not valid JSON: ")
    assert error["message"].endswith(f" at {place}")


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"[]", "application/json"),
        (b'"x"', "application/json"),
        (b"null", "application/json"),
        (b"", None),
        (b'{"prompt":"x"}', "text/plain"),
        (b'{"prompt":"x"}', "application/x-www-form-urlencoded"),
    ],
)
async def test_what_is_no_json_object_is_told_how_to_become_one(
    client: httpx2.AsyncClient, body: bytes, media_type: str | None
) -> None:
    answer = await client.post("/v1/jobs", content=body, headers={"content-type": media_type} if media_type else {})
    detail = "The body must be a JSON object, sent with `Content-Type: application/json`."
    assert problem_in(answer)["detail"] == detail


@pytest.mark.parametrize("body", [b"\xff{}", b"[" * 200_000, b"1" * 5000], ids=["encoding", "depth", "digits"])
async def test_a_body_made_to_break_the_parser_is_refused_like_any_other(
    client: httpx2.AsyncClient, body: bytes
) -> None:
    answer = await client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert problem_in(answer)["code"] == "invalid_request"


async def test_a_field_name_that_is_no_text_gets_a_response(client: httpx2.AsyncClient) -> None:
    body = b'{"prompt": "x", "\\ud800": 1}'
    answer = await client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert problem_in(answer)["code"] == "invalid_request"


async def test_values_of_a_request_are_never_sent_back(client: httpx2.AsyncClient) -> None:
    canary = "canary-7731"
    order = {"prompt": [canary], "seconds": canary, "audio": canary, "inputs": [{"url": canary, "role": canary}]}
    answer = await client.post("/v1/jobs", json=order | {"size": canary, "after": canary, "metadata": canary})
    assert len(problem_in(answer)["errors"]) == 8
    assert canary not in answer.text


def test_a_name_is_called_unknown_also_where_the_right_ones_are_unknown() -> None:
    error = RequestValidationError([{"type": "extra_forbidden", "loc": ("body", "x"), "msg": ""}], body={"x": 1})
    assert field_errors.explain(error) == [FieldError("x", "unknown_field", "is not a known field")]


def test_a_kind_of_mistake_that_has_no_words_yet_gets_the_validators_own() -> None:
    error = RequestValidationError([{"type": "new_kind", "loc": ("body", "x"), "msg": "Input is odd"}], body={"x": 1})
    assert field_errors.explain(error) == [FieldError("x", "invalid", "input is odd")]
