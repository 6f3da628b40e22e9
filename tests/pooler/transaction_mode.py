"""The gateway behind PgBouncer in transaction mode; ``make pooler`` runs it, and makes the environment it needs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.database_settings import DatabaseSettings
from app.embedded.servers import Postgres
from app.infra.db import Database
from app.retention import Retention
from app.settings import Settings
from tests.doctor.broken_gateway import examined
from tests.pooler.pgbouncer import running_pgbouncer
from tests.support.command_runner import filmgate
from tests.support.gateway import running_gateway

JOBS = 30
PARAMETERS = "jit,idle_in_transaction_session_timeout,lock_timeout"


def behind(settings: Settings, url: str, **database: Any) -> Settings:
    """The settings of the same gateway behind a pooler."""
    return settings.model_copy(update={"database": DatabaseSettings.model_validate({"url": url, **database})})


async def test_jobs_are_accepted_rendered_and_stored(settings: Settings, sandbox_url: str, pooler_url: str) -> None:
    async with running_gateway(behind(settings, pooler_url, pooler="transaction"), sandbox_url, workers=2) as gateway:
        assert (await gateway.client.get("/readyz")).json()["status"] == "ready"
        created = await asyncio.gather(*(gateway.create(key=f"key {number % 20}") for number in range(JOBS)))
        assert len({job["id"] for job in created}) == 20
        jobs = await asyncio.gather(*(gateway.ended(job["id"]) for job in created))
        assert {job["status"] for job in jobs} == {"succeeded"}
        await Retention(gateway.resources.database, gateway.settings).remove()
        async with gateway.resources.database.read() as conn:
            shown = [
                await conn.scalar(text("SELECT current_setting(:name)"), {"name": name})
                for name in PARAMETERS.split(",")
            ]
        assert shown == ["off", "1min", "1s"]


async def contended(database: Database) -> None:
    """The same statement of many clients at once, so that sessions change their owner between any two steps."""

    async def ask(number: int) -> None:
        for step in range(20):
            async with database.read() as conn:
                number_and_step = {"number": number, "step": step}
                assert await conn.scalar(text("SELECT CAST(:number AS int) + :step"), number_and_step) == number + step

    await asyncio.gather(*(ask(number) for number in range(16)))


async def test_no_statement_is_lost_between_sessions(pooler_url: str) -> None:
    settings = DatabaseSettings.model_validate({"url": pooler_url, "pooler": "transaction"})
    database = Database.open(settings, application="tests")
    await contended(database)
    await database.close()


async def test_without_the_setting_statements_are_lost(postgres: Postgres, postgres_url: str) -> None:
    del postgres_url
    async with running_pgbouncer(postgres, ignored=PARAMETERS) as url:
        database = Database.open(DatabaseSettings.model_validate({"url": url}), application="tests")
        with pytest.raises(DBAPIError, match=r"prepared statement .* (does not exist|already exists)"):
            await contended(database)
        await database.close()


async def test_migrations_take_the_direct_url(postgres: Postgres, pooler_url: str, tmp_path: Path) -> None:
    environment = {
        "FILMGATE_DATABASE_URL": pooler_url,
        "FILMGATE_DATABASE_DIRECT_URL": postgres.url,
        "FILMGATE_DATABASE_POOLER": "transaction",
        "FILMGATE_REDIS_URL": "redis://127.0.0.1:1",
        "FILMGATE_SECRET_KEY": "a-secret-of-more-than-32-characters-for-tests",
    }
    for arguments in ((), ("--check",)):
        ended = await filmgate("migrate", *arguments, directory=tmp_path, environment=environment)
        assert (ended.code, ended.out, ended.err) == (0, "the database is up to date\n", "")


async def test_the_doctor_names_a_pooler_that_is_not_declared(
    settings: Settings, postgres: Postgres, pooler_url: str
) -> None:
    """Whether it lets the gateway in, or refuses its parameters; and not when it is declared, or harmless."""
    assert list(await examined(behind(settings, pooler_url))) == ["pooler_not_declared"]
    async with running_pgbouncer(postgres, ignored=f"{PARAMETERS},statement_timeout") as url:
        found = await examined(behind(settings, url))
        assert "pooler_not_declared" in found
        assert 'database.pooler = "transaction"' in found["pooler_not_declared"].advice
    assert list(await examined(behind(settings, pooler_url, pooler="transaction"))) == []
    async with running_pgbouncer(postgres, mode="session", ignored=f"{PARAMETERS},statement_timeout") as url:
        assert list(await examined(behind(settings, url))) == []
    async with running_pgbouncer(postgres, mode="session") as url:
        (finding,) = (await examined(behind(settings, url))).values()
        assert finding.code == "database_unusable"
        assert 'set database.pooler = "transaction"' in finding.message


async def test_commands_say_what_to_set(pooler_url: str, tmp_path: Path) -> None:
    environment = {
        "FILMGATE_DATABASE_URL": pooler_url,
        "FILMGATE_REDIS_URL": "redis://127.0.0.1:1",
        "FILMGATE_SECRET_KEY": "a-secret-of-more-than-32-characters-for-tests",
    }
    for command in (("migrate",), ("migrate", "--check"), ("keys", "list")):
        ended = await filmgate(*command, directory=tmp_path, environment=environment)
        assert (ended.code, ended.err) == (
            1,
            'a pooler before the database refuses what the gateway sends; set database.pooler = "transaction"\n',
        )
