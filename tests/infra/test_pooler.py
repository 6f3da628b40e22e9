"""``database.pooler = "transaction"``: nothing is asked of a session, and every promise of one is kept.

Against Postgres itself; ``make pooler`` runs the gateway against PgBouncer.
"""

from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from app.database_settings import DatabaseSettings
from app.embedded.servers import Postgres
from app.infra.db import Database, advice_on
from app.web.problems import respond
from tests.support.command_runner import filmgate

SETTINGS = ("jit", "idle_in_transaction_session_timeout", "lock_timeout")
SHOWN = text("SELECT current_setting(:name)")


def pooled(url: str) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"url": url, "pooler": "transaction"})


async def test_a_transaction_has_the_settings_and_its_session_does_not(postgres_url: str) -> None:
    database = Database.open(pooled(postgres_url), application="tests", lock_timeout=1.5)
    for opened in (database.begin, database.single, database.read):
        async with opened() as conn:
            shown = [await conn.scalar(SHOWN, {"name": name}) for name in SETTINGS]
            assert shown == ["off", "1min", "1500ms"]
            raw = await conn.get_raw_connection()
            driver = raw.driver_connection
            assert driver is not None
        assert [await driver.fetchval(SHOWN.text.replace(":name", "$1"), name) for name in SETTINGS] == ["on", "0", "0"]
    await database.close()


async def test_no_statement_stays_prepared(postgres_url: str) -> None:
    prepared = text("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
    for settings, expected in (
        (DatabaseSettings.model_validate({"url": postgres_url}), True),
        (pooled(postgres_url), False),
    ):
        database = Database.open(settings, application="tests")
        async with database.read() as conn:
            assert bool(await conn.scalar(prepared)) is expected
        await database.close()


async def test_a_single_statement_is_committed(postgres_url: str) -> None:
    database = Database.open(pooled(postgres_url), application="tests")
    async with database.single() as conn:
        await conn.execute(text("CREATE TABLE once (number int)"))
        await conn.execute(text("INSERT INTO once VALUES (1)"))
    async with database.single() as conn:
        assert await conn.scalar(text("SELECT number FROM once")) == 1
        await conn.execute(text("DROP TABLE once"))
    await database.close()


def test_what_a_pooler_refuses_is_refused_before(postgres_url: str) -> None:
    with pytest.raises(ValidationError, match="a pooler refuses the parameter options of the URL"):
        pooled(f"{postgres_url}?options=-c%20search_path%3Dx")
    assert pooled(f"{postgres_url}?application_name=x&sslmode=prefer").pooled


@pytest.mark.servers
async def test_migrations_go_to_postgres_itself(tmp_path: Path, postgres: Postgres) -> None:
    url = await postgres.create_database("behind_a_pooler")
    environment = {
        "FILMGATE_DATABASE_URL": url,
        "FILMGATE_DATABASE_POOLER": "transaction",
        "FILMGATE_REDIS_URL": "redis://127.0.0.1:1",
        "FILMGATE_SECRET_KEY": "a-secret-of-more-than-32-characters-for-tests",
    }
    ended = await filmgate("migrate", directory=tmp_path, environment=environment)
    assert ended.code == 2
    assert ended.err.startswith("database.direct_url: is not set; ")
    assert "FILMGATE_DATABASE_DIRECT_URL" in ended.err
    nowhere = {**environment, "FILMGATE_DATABASE_URL": "postgresql://u@127.0.0.1:9/x"}
    ended = await filmgate("migrate", directory=tmp_path, environment={**nowhere, "FILMGATE_DATABASE_DIRECT_URL": url})
    assert (ended.code, ended.out) == (0, "the database is up to date\n")
    ended = await filmgate("migrate", "--check", directory=tmp_path, environment=environment)
    assert (ended.code, ended.out) == (0, "the database is up to date\n")


async def test_an_error_that_only_a_pooler_causes_comes_with_advice(postgres_url: str) -> None:
    database = Database.open(
        DatabaseSettings.model_validate({"url": postgres_url, "pool_size": 2}), application="tests of advice"
    )
    async with database.read() as conn:
        await conn.execute(text("SELECT 1"))
        raw = await conn.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute("DEALLOCATE ALL")  # as if the next transaction had another session
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text("SELECT 1"))
        assert "database.pooler" in (advice_on(caught.value) or "")
        with capture_logs() as logs:
            assert respond({}, caught.value).status_code == 500
        assert [line["advice"] for line in logs] == [advice_on(caught.value)]
        await conn.invalidate()
    with pytest.raises(DBAPIError) as caught:
        async with database.read() as conn:
            await conn.execute(text("SELECT 1 / 0"))
    assert advice_on(caught.value) is None
