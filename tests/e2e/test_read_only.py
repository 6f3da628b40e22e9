"""A failover that leaves the gateway's sessions read-only: 503 until they are replaced, without a restart."""

from contextlib import AsyncExitStack

from sqlalchemy import text

from app.database_settings import DatabaseSettings
from app.infra.db import Database
from app.settings import Settings
from tests.support.gateway import PROMPT, running_gateway

SESSIONS = 3
JOB = {"prompt": PROMPT, "model": "sandbox/video"}


async def make_read_only(database: Database) -> None:
    async with AsyncExitStack() as stack:
        for conn in [await stack.enter_async_context(database.single()) for _ in range(SESSIONS)]:
            await conn.execute(text("SET default_transaction_read_only = on"))


async def test_a_gateway_recovers_from_sessions_that_became_read_only(settings: Settings, sandbox_url: str) -> None:
    url = settings.database.url.get_secret_value()
    few = DatabaseSettings.model_validate({"url": url, "pool_size": SESSIONS})
    async with running_gateway(settings.model_copy(update={"database": few}), sandbox_url, workers=0) as gateway:
        database = gateway.resources.database
        await make_read_only(database)
        refused = await gateway.client.post("/v1/jobs", json=JOB)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
        for _ in range(SESSIONS):
            await gateway.create()
        await make_read_only(database)
        ready = await gateway.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["postgres"]["reason"] == "the database is read-only"
        while ready.status_code != 200:
            ready = await gateway.client.get("/readyz")
        assert ready.json()["checks"]["postgres"]["ok"]
        async with database.single() as conn:
            await conn.execute(text("SET default_transaction_read_only = off"))
