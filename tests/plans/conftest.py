"""A gateway that is a year old, on a server of its own that says what it does."""

from collections.abc import AsyncIterator

import pytest

from app.database_settings import DatabaseSettings
from app.embedded.servers import DATABASE, Postgres
from app.infra import migrate
from app.infra.db import Database
from tests.plans.auto_explain import explain_everything
from tests.plans.history import live_through
from tests.support.database import running_postgres
from tests.support.gateway_fixtures import plain_logs, sandbox_url

__all__ = ["plain_logs", "sandbox_url"]

FINISHED, LIVE = 30_000, 2_000


@pytest.fixture(scope="session")
async def old_postgres() -> AsyncIterator[Postgres]:
    async with running_postgres() as server:
        await migrate.upgrade(server.url)
        settings = DatabaseSettings.model_validate({"url": server.url, "command_timeout": 60})
        database = Database.open(settings, application="tests")
        await live_through(database, finished=FINISHED, live=LIVE)
        await explain_everything(database, DATABASE)
        await database.close()
        yield server
