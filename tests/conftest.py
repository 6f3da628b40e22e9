"""What every test may ask for: a real Postgres, a real Valkey, an account; and no way out of this machine."""

from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import pytest
from redis.asyncio import Redis

from app.embedded.servers import Postgres, Valkey
from app.infra import migrate
from app.infra.db import Database
from app.settings import DatabaseSettings
from tests.support.database import add_account, empty, running_postgres
from tests.support.loopback_only import stay_on_loopback
from tests.support.redis import running_valkey


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """Sockets to anything but this machine are closed."""
    with pytest.MonkeyPatch.context() as patch:
        stay_on_loopback(patch)
        yield


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[Postgres]:
    """The server. Tests that stop or kill one start their own: see tests.support.database."""
    async with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
async def postgres_url(postgres: Postgres) -> str:
    """A database whose tables the migrations made."""
    await migrate.upgrade(postgres.url)
    return postgres.url


@pytest.fixture(scope="session")
async def _database(postgres_url: str) -> AsyncIterator[Database]:
    settings = DatabaseSettings.model_validate({"url": postgres_url})
    database = Database.open(settings, application="tests")
    yield database
    await database.close()


@pytest.fixture
async def database(_database: Database) -> Database:
    """The database, empty."""
    await empty(_database)
    return _database


@pytest.fixture(scope="session")
async def valkey() -> AsyncIterator[Valkey]:
    """The server. Tests that stop or freeze one start their own: see tests.support.redis."""
    async with running_valkey() as server:
        yield server


@pytest.fixture
async def redis_url(valkey: Valkey) -> str:
    """A Redis, empty. The URL is the same in the whole session."""
    async with Redis.from_url(valkey.url) as redis:
        await redis.flushall()
    return valkey.url


@pytest.fixture
async def account_id(database: Database) -> UUID:
    """A fresh account's id."""
    async with database.begin() as connection:
        return await add_account(connection)
