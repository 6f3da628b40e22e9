"""Connections that have become useless while they were idle, or in a failover, are replaced without a restart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database_settings import DatabaseSettings
from app.embedded.servers import Postgres
from app.infra.db import Database, advice_on, is_outage
from tests.support.fault_proxy import FaultProxy, Link

WRITE = text("INSERT INTO numbers VALUES (1)")
SESSIONS = 3
#: Longer than any test.
LONG = 1000


class ForgetfulNat(FaultProxy):
    """Forgets the connections that there are, without a word to either side; counts what is sent on the others."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.sent = 0
        self._forgotten: set[Link] = set()

    def forget(self) -> None:
        self._forgotten.update(self._links.values())

    async def request(self, data: bytes, link: Link) -> bytes:
        self.sent += 1
        return b"" if link in self._forgotten else data


@pytest.fixture
async def url(postgres: Postgres) -> str:
    """A new database with a table."""
    url = await postgres.create_database(f"pool_{uuid4().hex}")
    database = opened(url)
    async with database.single() as conn:
        await conn.execute(text("CREATE TABLE numbers (number int)"))
    await database.close()
    return url


@pytest.fixture
async def nat(postgres: Postgres) -> AsyncIterator[ForgetfulNat]:
    async with ForgetfulNat(postgres.port) as proxy:
        yield proxy


def opened(url: str, **settings: Any) -> Database:
    return Database.open(
        DatabaseSettings.model_validate({"url": url, "pool_size": SESSIONS, **settings}), application="tests"
    )


def through(nat: ForgetfulNat, postgres: Postgres, **settings: Any) -> Database:
    return opened(postgres.url.replace(f":{postgres.port}/", f":{nat.port}/"), **settings)


async def all_sessions(database: Database, statement: str = "SELECT pg_backend_pid()") -> list[Any]:
    """Run a statement in every connection of the pool; the connections are idle afterwards."""
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(database.single()) for _ in range(SESSIONS)]
        results = [await conn.execute(text(statement)) for conn in held]
        return [result.scalar() if result.returns_rows else None for result in results]


async def writes(database: Database) -> bool:
    """Whether a statement that writes succeeds; False for an outage."""
    try:
        async with database.begin() as conn:
            await conn.execute(WRITE)
    except Exception as error:
        if not is_outage(error):
            raise
        return False
    return True


async def driver(conn: AsyncConnection) -> Any:
    return (await conn.get_raw_connection()).driver_connection


async def test_sessions_that_became_read_only_are_replaced(url: str) -> None:
    database = opened(url)
    await all_sessions(database, "SET default_transaction_read_only = on")
    assert await writes(database) is False
    assert await asyncio.gather(*(writes(database) for _ in range(SESSIONS))) == [True] * SESSIONS
    await database.close()


async def test_a_database_that_is_read_only_is_an_outage_until_it_is_not(url: str) -> None:
    database = opened(url)
    name = url.rpartition("/")[2]
    async with database.single() as conn:
        await conn.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
        await conn.invalidate()
    await all_sessions(database)
    assert [await writes(database) for _ in range(3)] == [False] * 3
    async with database.single() as conn:
        await conn.execute(text("SET default_transaction_read_only = off"))
        await conn.execute(text(f"ALTER DATABASE {name} RESET default_transaction_read_only"))
        await conn.invalidate()
    results = [await writes(database) for _ in range(3)]
    assert results[1:] == [True, True]
    await database.close()


async def test_connections_that_were_closed_while_idle_are_replaced(url: str) -> None:
    database, operator = opened(url), opened(url)
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(database.read()) for _ in range(SESSIONS)]
        drivers = [await driver(conn) for conn in held]
        pids = [await conn.scalar(text("SELECT pg_backend_pid()")) for conn in held]
    async with operator.single() as conn:
        await conn.execute(
            text("SELECT pg_terminate_backend(pid) FROM unnest(CAST(:pids AS int[])) pid"), {"pids": pids}
        )
    while not all(one.is_closed() for one in drivers):  # noqa: ASYNC110  # asyncpg has no event for it
        await asyncio.sleep(0.01)
    assert await asyncio.gather(*(writes(database) for _ in range(SESSIONS))) == [True] * SESSIONS
    await database.close()
    await operator.close()


async def test_connections_that_were_dropped_while_idle_are_replaced(nat: ForgetfulNat, postgres: Postgres) -> None:
    """The command time-out is long: it is the check of an idle connection that ends."""
    database = through(nat, postgres, pool_check_idle=1e-9, connect_timeout=1, command_timeout=LONG)
    before = await all_sessions(database)
    nat.forget()
    after = await all_sessions(database)
    assert not set(before) & set(after)
    await database.close()


async def test_connections_that_work_are_kept_after_the_check(nat: ForgetfulNat, postgres: Postgres) -> None:
    database = through(nat, postgres, pool_check_idle=1e-9)
    before = await all_sessions(database)
    await all_sessions(database)  # each connection has prepared the statement
    sent = nat.sent
    assert set(await all_sessions(database)) == set(before)
    assert nat.sent - sent == 2 * SESSIONS
    await database.close()


async def test_a_connection_that_is_dropped_in_use_costs_one_statement(nat: ForgetfulNat, postgres: Postgres) -> None:
    database = through(nat, postgres, pool_check_idle=LONG, connect_timeout=1, command_timeout=1)
    before = await all_sessions(database)
    nat.forget()
    with pytest.raises(TimeoutError):
        async with database.read() as conn:
            await conn.execute(text("SELECT 1"))
    after = await all_sessions(database)
    assert not set(before) & set(after)
    await database.close()


async def test_a_connection_in_use_costs_no_round_trip_more(nat: ForgetfulNat, postgres: Postgres) -> None:
    database = through(nat, postgres)
    for _ in range(2):
        await all_sessions(database)
    before = nat.sent
    for _ in range(5):
        async with database.read() as conn:
            await conn.execute(text("SELECT pg_backend_pid()"))
    assert nat.sent - before == 5
    await database.close()


async def test_old_connections_are_replaced(url: str) -> None:
    database = opened(url, pool_recycle=0.1)
    (first, *_) = await all_sessions(database)
    pid = first
    while pid == first:
        async with database.read() as conn:
            pid = await conn.scalar(text("SELECT pg_backend_pid()"))
    await database.close()


async def test_a_mistake_in_a_statement_replaces_nothing(url: str) -> None:
    database = opened(url)
    before = await all_sessions(database)
    for statement in ("SELECT 1 / 0", "SELECT * FROM nowhere"):
        with pytest.raises(DBAPIError):
            async with database.read() as conn:
                await conn.execute(text(statement))
    assert set(await all_sessions(database)) == set(before)
    await database.close()


async def test_a_database_without_tls_names_the_setting_that_requires_it(url: str) -> None:
    database = opened(f"{url}?sslmode=require")
    with pytest.raises(ConnectionError) as caught:
        async with database.single() as conn:
            await conn.execute(text("SELECT 1"))
    await database.close()
    assert "sslmode of database.url" in (advice_on(caught.value) or "")
    assert advice_on(ConnectionError("rejected")) is None
