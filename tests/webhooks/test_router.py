"""GET /v1/webhook-secret through the real application parts."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI
from standardwebhooks import Webhook

from app.accounts.auth import Authenticator
from app.accounts.service import CreatedKey, KeyService
from app.infra.db import Database
from app.web import problems
from app.webhooks.router import router
from app.webhooks.service import WebhookService

PATH = "/v1/webhook-secret"


@pytest.fixture
async def http(database: Database, webhooks: WebhookService) -> AsyncIterator[httpx2.AsyncClient]:
    api = FastAPI()
    problems.install(api)
    api.include_router(router, prefix="/v1")
    api.state.auth = Authenticator(database)
    api.state.webhooks = webhooks
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api), base_url="http://filmgate.test") as client:
        yield client


def bearer(key: CreatedKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


async def test_account_reads_the_secret_that_signs_its_webhooks(
    http: httpx2.AsyncClient, database: Database, webhooks: WebhookService
) -> None:
    key = await KeyService(database).create("studio", "backend", ["webhooks:read"])
    answer = await http.get(PATH, headers=bearer(key))
    assert answer.status_code == 200
    assert answer.json() == {"secret": await webhooks.secret(key.account_id)}
    assert answer.headers["cache-control"] == "no-store"
    Webhook(answer.json()["secret"])


async def test_secret_needs_a_key_with_the_scope(http: httpx2.AsyncClient, database: Database) -> None:
    key = await KeyService(database).create("studio", "backend", ["jobs:read"])
    assert (await http.get(PATH)).status_code == 401
    assert (await http.get(PATH, headers=bearer(key))).status_code == 403


async def test_accounts_never_share_a_secret(http: httpx2.AsyncClient, database: Database) -> None:
    keys = [await KeyService(database).create(name, "backend") for name in ("one", "other")]
    one, other = [(await http.get(PATH, headers=bearer(key))).json()["secret"] for key in keys]
    assert one != other
