"""Keys in front of routes: who gets in, and who does not."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx2
import pytest
import structlog
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel

from app import ids
from app.accounts.auth import Authenticator, Caller, optional, require
from app.accounts.service import CreatedKey, KeyService
from app.ids import Prefix
from app.infra.db import Database
from app.settings import ApiSettings
from app.web import middleware, problems


@pytest.fixture
async def key(database: Database) -> CreatedKey:
    return await KeyService(database).create("acme", "backend", ["jobs:read"])


class Order(BaseModel):
    prompt: str


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    router = APIRouter()

    @router.get("/jobs/{job_id}")
    async def get_job(job_id: str, caller: Annotated[Caller, Depends(require("jobs:read"))]) -> dict[str, Any]:
        context = structlog.contextvars.get_contextvars()
        return {"id": job_id, "account": str(caller.account_id), "logged": context["account_id"]}

    @router.post("/jobs")
    async def create_job(order: Order, caller: Annotated[Caller, Depends(require("jobs:write"))]) -> str:
        return f"{order.prompt} for {caller.account_id}"

    @router.get("/video", openapi_extra={"security": [{}]})
    async def get_video(caller: Annotated[Caller | None, Depends(optional("assets:read", other="signature"))]) -> bool:
        return caller is not None

    app = FastAPI(redirect_slashes=False)
    app.state.auth = Authenticator(database)
    app.include_router(router, prefix="/v1")
    problems.install(app)
    middleware.install(app, ApiSettings(), lambda _: None)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gateway") as opened:
        yield opened


def bearing(key: CreatedKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


async def test_a_route_knows_its_caller_and_so_do_its_logs(client: httpx2.AsyncClient, key: CreatedKey) -> None:
    answer = await client.get("/v1/jobs/1", headers=bearing(key))
    assert answer.json() == {
        "id": "1",
        "account": str(key.account_id),
        "logged": ids.encode(Prefix.ACCOUNT, key.account_id),
    }


async def test_no_key_is_401_with_a_challenge_and_help(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/jobs/1")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthenticated"
    assert answer.json()["detail"] == "The request carries no API key; send it as `Authorization: Bearer fgk_…`."


async def test_a_missing_scope_is_403_that_names_it(client: httpx2.AsyncClient, key: CreatedKey) -> None:
    answer = await client.post("/v1/jobs", headers=bearing(key), json={"prompt": "a boat"})
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert answer.json()["detail"] == "The API key lacks the scope `jobs:write`."
    assert "www-authenticate" not in answer.headers


async def test_two_authorization_headers_are_refused(client: httpx2.AsyncClient, key: CreatedKey) -> None:
    good = ("Authorization", f"Bearer {key.text}")
    for other in (good, ("Authorization", "Basic dXNlcjpwYXNz")):
        answer = await client.get("/v1/jobs/1", headers=[good, other])
        assert answer.status_code == 401
        assert "more than one Authorization header" in answer.json()["detail"]


async def test_where_a_key_is_optional_a_wrong_one_is_still_wrong(
    client: httpx2.AsyncClient, database: Database, key: CreatedKey
) -> None:
    reader = await KeyService(database).create("acme", "reader", ["assets:read"])
    assert (await client.get("/v1/video")).json() is False
    assert (await client.get("/v1/video", headers=bearing(reader))).json() is True
    assert (await client.get("/v1/video", headers=bearing(key))).status_code == 403
    assert (await client.get("/v1/video", headers={"Authorization": "Bearer x"})).status_code == 401
    # Beside the other credential, it is none.
    assert (await client.get("/v1/video?signature=x", headers={"Authorization": "Bearer x"})).json() is False


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost"},
        {"Host": "127.0.0.1"},
        {"Host": "gateway/healthz"},
        {"Host": "metrics"},
        {"X-Forwarded-Host": "localhost", "X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"},
        {"X-Original-URL": "/healthz", "X-Rewrite-URL": "/healthz"},
        {"X-HTTP-Method-Override": "OPTIONS"},
        {"Proxy-Authorization": "Bearer {key}"},
        {"X-API-Key": "{key}"},
        {"Cookie": "Authorization=Bearer {key}; session={key}"},
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/1",
        "/v1/jobs/1?authorization=Bearer%20{key}&access_token={key}&api_key={key}",
        "/v1/jobs/..%2f..%2fhealthz",
        "/v1/jobs/1;/healthz",
        "/v1/jobs/1%00",
        "/v1/jobs/%2e%2e",
        "/v1//jobs/1",
        "//v1/jobs/1",
        "/V1/jobs/1",
        "/v1/jobs/1/",
        "/healthz/../v1/jobs/1",
    ],
)
async def test_nothing_but_the_authorization_header_authenticates(
    client: httpx2.AsyncClient, key: CreatedKey, path: str, headers: dict[str, str]
) -> None:
    answer = await client.get(
        path.format(key=key.text), headers={name: value.format(key=key.text) for name, value in headers.items()}
    )
    assert answer.status_code in {401, 404}
    assert str(key.account_id) not in answer.text


async def test_a_key_works_whatever_the_host_says(client: httpx2.AsyncClient, key: CreatedKey) -> None:
    for host in ("localhost", "evil.example", "gateway:1"):
        assert (await client.get("/v1/jobs/1", headers=bearing(key) | {"Host": host})).status_code == 200


async def test_a_wrong_body_is_not_discussed_with_strangers(client: httpx2.AsyncClient, key: CreatedKey) -> None:
    assert (await client.post("/v1/jobs", json={"nonsense": 1})).status_code == 401
    assert (await client.post("/v1/jobs", json={"nonsense": 1}, headers=bearing(key))).status_code == 403


async def test_generated_clients_and_docs_learn_of_the_key(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["ApiKey"] == {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "fgk_…",
        "description": "An API key, made with `filmgate keys create`.",
    }
    assert document["paths"]["/v1/jobs"]["post"]["security"] == [{"ApiKey": []}]
    assert document["paths"]["/v1/video"]["get"]["security"] == [{"ApiKey": []}, {}]


def test_a_scope_that_does_not_exist_is_noticed_at_import() -> None:
    with pytest.raises(ValueError, match="jobs:fly"):
        require("jobs:fly")
