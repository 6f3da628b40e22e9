"""Migrates a database to the current schema; used by ``filmgate migrate``, the embedded stack and the tests.

New revisions are created with Alembic's own command, configured in ``pyproject.toml``:
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

from app.database_settings import DatabaseSettings, DatabaseUrl
from app.infra import db, driver
from app.terminal import CommandError

APP = Path(__file__).parents[1]
MIGRATIONS = APP.parent / "migrations"

#: A migration waits this long for a lock: meanwhile, all queries on the table wait behind it.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "60s"
CONNECT_SECONDS = 60


class MigrationFailed(CommandError):
    """The database could not be migrated."""


class UnknownRevision(MigrationFailed):
    """There is no migration of that name."""

    code = 2


async def upgrade(database_url: str, to: str = "head") -> str:
    """Run the migrations that the database lacks, up to a revision. Safe to run concurrently.

    Returns the revision that the database is at: a later one than ``to`` where it was there already. A migration that
    fails leaves the database at the revision before it; the next run continues.

    Raises:
        UnknownRevision: there is no revision ``to``.
        MigrationFailed: this code does not know the revision that the database is at.
    """
    known = _revisions()
    if to not in {"head", *known}:
        raise UnknownRevision(f"there is no revision {to or '(empty)'}; the newest is {known[0]}")
    async with connect(database_url) as conn:
        try:
            await conn.run_sync(_upgrade, to)
            return await conn.run_sync(_revision)
        except AlembicError as error:
            raise MigrationFailed(f"the database was made by another version of filmgate: {error}") from error


async def check(database: str | DatabaseSettings) -> list[str]:
    """Differences between the database and the schema that the code expects; empty if there are none."""
    async with connect(database) as conn:
        return await conn.run_sync(_differences)


@asynccontextmanager
async def connect(database: str | DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """A connection with the timeouts of a migration, to a URL of Postgres itself or with the gateway's settings."""
    settings = database
    if isinstance(settings, str):
        seconds = DatabaseUrl.read(settings).connect_timeout or CONNECT_SECONDS
        settings = DatabaseSettings.model_validate({"url": settings, "connect_timeout": seconds})
    engine = create_async_engine(
        db.DRIVER,
        poolclass=NullPool,
        connect_args=driver.arguments(
            settings,
            application="filmgate migrate",
            session={"lock_timeout": LOCK_TIMEOUT, "statement_timeout": STATEMENT_TIMEOUT},
            command_timeout=None,
        ),
    )
    try:
        async with engine.connect() as conn:
            yield conn
    finally:
        await engine.dispose()


def all_tables() -> MetaData:
    """The metadata with the tables and triggers of every ``tables.py`` and ``triggers.py`` of ``app/``."""
    for file in sorted([*APP.rglob("tables.py"), *APP.rglob("triggers.py")]):
        import_module(".".join(("app", *file.relative_to(APP).with_suffix("").parts)))
    return db.metadata


def config() -> Config:
    """Alembic's configuration, independent of the working directory."""
    result = Config()
    result.set_main_option("script_location", str(MIGRATIONS))
    return result


def _revisions() -> list[str]:
    """Every revision, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]


def _revision(conn: Connection) -> str:
    return MigrationContext.configure(conn).get_current_revision() or "no revision"


def _upgrade(conn: Connection, to: str) -> None:
    alembic = config()
    alembic.attributes["connection"] = conn
    command.upgrade(alembic, to)


def _differences(conn: Connection) -> list[str]:
    context = MigrationContext.configure(conn, opts={"compare_server_default": True})
    head = ScriptDirectory.from_config(config()).get_current_head()
    current = context.get_current_revision()
    if current != head:
        return [f"the database is at revision {current}, the code at {head}; run: filmgate migrate"]
    return [f"the tables differ from the code: {difference}" for difference in _compare(context)]


def _compare(context: MigrationContext) -> list[object]:
    return list(compare_metadata(context, all_tables()))
