"""Brings a database to the newest schema: ``filmgate migrate``, the embedded stack and the tests.

New revisions are made with Alembic's own command, configured in ``pyproject.toml``:
``FILMGATE_DATABASE_URL=… alembic revision --autogenerate -m "add column to jobs"``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError as AlembicError
from sqlalchemy import Connection, MetaData, NullPool
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.infra import db
from app.settings import DatabaseSettings
from app.terminal import CommandError

APP = Path(__file__).parents[1]
MIGRATIONS = APP.parent / "migrations"

#: A migration waits this long for a lock: behind it, every query on the table would queue up.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "60s"


class MigrationFailed(CommandError):
    """The schema could not be brought up to date."""


async def upgrade(database_url: str) -> None:
    """Run every migration that the database lacks, all or none. Two callers at once do it once.

    Raises:
        MigrationFailed: the database is at a revision that this code does not know.
    """
    async with connect(database_url) as connection:
        try:
            await connection.run_sync(_upgrade)
        except AlembicError as error:
            raise MigrationFailed(f"the database was made by another version of filmgate: {error}") from error


async def check(database_url: str) -> list[str]:
    """What keeps the database from being exactly what the code expects; nothing when all is well."""
    async with connect(database_url) as connection:
        return await connection.run_sync(_differences)


@asynccontextmanager
async def connect(database_url: str) -> AsyncIterator[AsyncConnection]:
    """One connection with the time-outs of a migration."""
    engine = create_async_engine(
        DatabaseSettings.model_validate({"url": database_url}).sqlalchemy_url,
        poolclass=NullPool,
        connect_args={
            "server_settings": {
                "application_name": "filmgate migrate",
                "lock_timeout": LOCK_TIMEOUT,
                "statement_timeout": STATEMENT_TIMEOUT,
            }
        },
    )
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


def all_tables() -> MetaData:
    """The metadata with every ``tables.py`` of ``app/`` loaded into it, and the triggers that go with them."""
    for file in sorted([*APP.rglob("tables.py"), *APP.rglob("triggers.py")]):
        import_module(".".join(("app", *file.relative_to(APP).with_suffix("").parts)))
    return db.metadata


def config() -> Config:
    """Alembic's configuration, wherever the process was started."""
    result = Config()
    result.set_main_option("script_location", str(MIGRATIONS))
    return result


def _upgrade(connection: Connection) -> None:
    alembic = config()
    alembic.attributes["connection"] = connection
    command.upgrade(alembic, "head")


def _differences(connection: Connection) -> list[str]:
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    head = ScriptDirectory.from_config(config()).get_current_head()
    current = context.get_current_revision()
    if current != head:
        return [f"the database is at revision {current}, the code at {head}; run: filmgate migrate"]
    return [f"the tables are not what the migrations make: {difference}" for difference in _compare(context)]


def _compare(context: MigrationContext) -> list[object]:
    return list(compare_metadata(context, all_tables()))
