"""Errors on their way out."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from openapi_spec_validator import validate
from pydantic import BaseModel
from sqlalchemy import text
from starlette.exceptions import HTTPException
from structlog.testing import capture_logs

from app import errors
from app.database_settings import DatabaseSettings
from app.infra.db import Database
from app.settings import ApiSettings
from app.web import middleware, problems
from app.web.problem_codes import CODES
from tests.support.database import running_postgres

RAISED: dict[str, Callable[[], Exception]] = {
    "invalid_request": lambda: errors.InvalidRequest("No.", [errors.FieldError("seconds", "too_large", "is too long")]),
    "unknown_model": lambda: errors.UnknownModel("No."),
    "model_retired": lambda: errors.ModelRetired("No."),
    "idempotency_mismatch": lambda: errors.IdempotencyMismatch("No."),
    "unauthenticated": lambda: errors.Unauthenticated("No."),
    "forbidden": lambda: errors.Forbidden("No."),
    "not_found": lambda: errors.NotFound("No."),
    "conflict": lambda: errors.Conflict("No."),
    "gone": lambda: errors.Gone("No."),
    "range_not_satisfiable": lambda: errors.RangeNotSatisfiable("No.", 1234),
    "malformed_request": lambda: errors.Malformed("No."),
    "headers_too_large": lambda: errors.HeadersTooLarge("No."),
    "body_too_large": lambda: errors.TooLarge("No."),
    "body_timeout": lambda: errors.TooSlow("No."),
    "rate_limited": lambda: errors.RateLimited("No.", retry_after=1.2),
    "unavailable": lambda: errors.Unavailable("No.", retry_after=0.1),
}


class OverBudget(errors.Conflict):
    """An error that the table of statuses has never heard of."""

    code = "over_budget"


class Order(BaseModel):
    prompt: str


def build(database: Database | None = None) -> FastAPI:
    router = APIRouter()

    @router.post("/jobs", responses=problems.responses("invalid_request", "unknown_model", "conflict"))
    async def create_job(order: Order) -> str:
        return order.prompt

    @router.get("/jobs")
    async def list_jobs(limit: int = 20) -> int:
        return limit

    @router.get("/raise/{code}")
    async def fail(code: str) -> None:
        error = RAISED[code]()
        raise error

    @router.get("/http/{status}")
    async def fail_as_the_framework_does(status: int) -> None:
        raise HTTPException(status, "words of the framework")

    @router.get("/bug")
    async def bug() -> None:
        raise ValueError("the password is hunter2")

    @router.get("/lie")
    async def lie() -> int:
        return "hunter2"  # type: ignore[return-value]  # what FastAPI calls a ResponseValidationError

    @router.get("/query")
    async def query_database(statement: str = "select 1") -> None:
        assert database is not None
        async with database.read() as conn:
            await conn.execute(text(statement))

    app = FastAPI(redirect_slashes=False)
    app.include_router(router, prefix="/v1")

    @app.webhooks.post("job.ended")
    async def receive(event: Order) -> None:
        del event

    problems.install(app)
    middleware.install(app, ApiSettings(), lambda _: None)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(build()), base_url="http://gateway") as opened:
        yield opened


def problem_in(answer: httpx2.Response) -> dict[str, Any]:
    """The problem, after a look at what all of them have in common."""
    body: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problems.Problem.model_validate(body).status == answer.status_code
    assert body["type"] == f"/docs/problems/{body['code']}"
    assert body["request_id"] == answer.headers["x-request-id"]
    known = next(code for code in CODES if code.code == body["code"])
    assert (known.status, known.title) == (body["status"], body["title"])
    return body


# Our own errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", RAISED)
async def test_every_error_becomes_a_problem_with_its_own_words(client: httpx2.AsyncClient, code: str) -> None:
    problem = problem_in(await client.get(f"/v1/raise/{code}"))
    assert (problem["code"], problem["detail"]) == (code, "No.")


def test_every_error_class_has_a_status_and_every_code_is_listed_once() -> None:
    def below(kind: type[errors.FilmgateError]) -> list[str]:
        return [kind.code, *(code for child in kind.__subclasses__() for code in below(child))]

    listed = [code.code for code in CODES]
    assert len(listed) == len(set(listed))
    ours = set(below(errors.FilmgateError)) - {OverBudget.code}
    assert sorted(listed) == sorted([*ours, "method_not_allowed"])
    assert sorted(listed) == sorted([*RAISED, "internal_error", "method_not_allowed"])


async def test_fields_are_named(client: httpx2.AsyncClient) -> None:
    problem = problem_in(await client.get("/v1/raise/invalid_request"))
    assert problem["errors"] == [{"field": "seconds", "code": "too_large", "message": "is too long"}]
    assert "errors" not in problem_in(await client.get("/v1/raise/conflict"))


@pytest.mark.parametrize(
    ("code", "header", "value"),
    [
        ("unauthenticated", "www-authenticate", "Bearer"),
        ("range_not_satisfiable", "content-range", "bytes */1234"),
        ("rate_limited", "retry-after", "2"),
        ("unavailable", "retry-after", "1"),
    ],
)
async def test_a_response_has_the_header_that_its_status_asks_for(
    client: httpx2.AsyncClient, code: str, header: str, value: str
) -> None:
    assert (await client.get(f"/v1/raise/{code}")).headers[header] == value


async def test_a_subclass_has_the_status_of_its_parent_and_its_own_code() -> None:
    answer = problems.problem_of(OverBudget("No."))
    assert (answer.status, answer.code) == (409, "over_budget")


# What the framework says ----------------------------------------------------------------------------------------------


async def test_an_unknown_path_is_a_problem(client: httpx2.AsyncClient) -> None:
    problem = problem_in(await client.get("/nowhere"))
    assert (problem["code"], problem["detail"]) == ("not_found", "There is nothing at this path.")


async def test_a_wrong_method_is_told_all_the_right_ones(client: httpx2.AsyncClient) -> None:
    answer = await client.delete("/v1/jobs")
    assert problem_in(answer)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "invalid_request"),
        (401, "unauthenticated"),
        (403, "forbidden"),
        (404, "not_found"),
        (408, "body_timeout"),
        (413, "body_too_large"),
        (418, "invalid_request"),
        (500, "internal_error"),
        (503, "unavailable"),
        (504, "internal_error"),
    ],
)
async def test_the_frameworks_own_errors_speak_our_language(client: httpx2.AsyncClient, status: int, code: str) -> None:
    with capture_logs():
        answer = await client.get(f"/v1/http/{status}")
    assert problem_in(answer)["code"] == code
    assert "words of the framework" not in answer.text


# Our own failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "kind"), [("/v1/bug", ValueError), ("/v1/lie", Exception)])
async def test_a_bug_is_logged_with_its_traceback_and_told_only_by_its_request_id(
    client: httpx2.AsyncClient, path: str, kind: type[Exception]
) -> None:
    with capture_logs() as logs:
        answer = await client.get(path, headers={"x-request-id": "req-1"})
    problem = problem_in(answer)
    assert (problem["status"], problem["code"], problem["request_id"]) == (500, "internal_error", "req-1")
    assert "hunter2" not in answer.text
    [failed] = [line for line in logs if line["event"] == "request failed"]
    assert failed["log_level"] == "error"
    assert isinstance(failed["exc_info"], kind)
    assert failed["exc_info"].__traceback__ is not None


async def test_errors_are_problems_also_without_the_middleware() -> None:
    app = FastAPI()
    problems.install(app)

    @app.get("/bug")
    async def bug() -> None:
        raise ValueError("hunter2")

    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:
        with capture_logs():
            answer = await client.get("/bug")
    assert answer.status_code == 500
    assert len(answer.json()["request_id"]) == 32


@pytest.mark.servers
async def test_a_database_that_is_away_is_503_with_a_time_to_come_back() -> None:
    async with running_postgres() as server:
        settings = DatabaseSettings.model_validate(
            {"url": server.url, "command_timeout": 2, "pool_timeout": 0.2, "pool_size": 2}
        )
        database = Database.open(settings, application="tests")
        transport = httpx2.ASGITransport(build(database))
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as client:

            async def asked(statement: str = "select 1") -> str:
                answer = await client.get("/v1/query", params={"statement": statement})
                if answer.status_code == 200:
                    return "ok"
                problem = problem_in(answer)
                if problem["code"] == "unavailable":
                    assert answer.headers["retry-after"] == "5"
                    assert "postgres" not in answer.text.lower()
                return str(problem["code"])

            with capture_logs() as logs:
                assert await asked() == "ok"
                assert await asked("select 1 / 0") == "internal_error"
                assert await asked("select * from nowhere") == "internal_error"
                assert await asked("select pg_sleep(600)") == "unavailable"
                assert await asked("select pg_terminate_backend(pg_backend_pid())") == "unavailable"
                crowd = await asyncio.gather(*(asked("select pg_sleep(1)") for _ in range(8)))
                assert "unavailable" in crowd
                assert set(crowd) <= {"ok", "unavailable"}
                await server.kill()
                assert [await asked(), await asked(), await asked()] == ["unavailable"] * 3
                await server.start()
                assert await asked() == "ok"
            away = [line for line in logs if line["event"] == "dependency unavailable"]
            assert away
            assert all("\n" not in line["error"] and "exc_info" not in line for line in away)
        await database.close()


# The document ---------------------------------------------------------------------------------------------------------


def test_the_document_is_valid_and_knows_only_our_shape_of_errors() -> None:
    document = build().openapi()
    validate(document)
    assert "ValidationError" not in json.dumps(document)
    assert set(document["webhooks"]["job.ended"]["post"]["responses"]) == {"200"}
    content = document["paths"]["/v1/jobs"]["post"]["responses"]["422"]["content"]
    assert set(content) == {"application/problem+json"}
    assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert "422" not in document["paths"]["/v1/http/{status}"]["get"]["responses"]


def test_the_document_has_an_example_for_every_code_of_a_route() -> None:
    responses = build().openapi()["paths"]["/v1/jobs"]["post"]["responses"]
    assert set(responses) == {"200", "409", "422"}
    assert responses["422"]["description"] == "The request is not valid; or: No such model"
    examples = responses["422"]["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"invalid_request", "unknown_model"}
    for code, example in examples.items():
        assert problems.Problem.model_validate(example["value"]).code == code


def test_the_document_is_the_same_each_time_it_is_asked_for() -> None:
    app = build()
    first = json.dumps(app.openapi())
    assert json.dumps(app.openapi()) == first


def test_an_unknown_code_is_noticed_at_import() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        problems.responses("nonsense")
