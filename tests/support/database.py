"""A Postgres of our own for one test session."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import ids
from app.accounts.tables import accounts
from app.database_settings import DatabaseSettings
from app.embedded.servers import Postgres
from app.infra import migrate
from app.infra.db import Database


@asynccontextmanager
async def running_postgres(*, durable: bool = False) -> AsyncIterator[Postgres]:
    """A started server with an empty database, on a free port; its data goes away with it."""
    with tempfile.TemporaryDirectory(prefix="filmgate-postgres-") as directory:
        server = Postgres(Path(directory) / "postgres", durable=durable)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


class Kept(Database):
    """A pool that stays open when the gateway that opened it closes it."""

    async def close(self) -> None:
        pass


@asynccontextmanager
async def kept_pools(url: str) -> AsyncIterator[None]:
    """Gateways that are opened one after the other on this database use the same connections.

    A new connection costs more than most tests do with it: Postgres fills its caches and plans every statement anew,
    SQLAlchemy compiles them again.
    """
    kept: dict[str, Kept] = {}
    loop = asyncio.get_running_loop()
    open_new = Database.open

    def open_kept(settings: DatabaseSettings, *, application: str, **options: Any) -> Database:
        if settings.url.get_secret_value() != url or asyncio.get_running_loop() is not loop:
            return open_new(settings, application=application, **options)
        key = repr((settings, application, options))
        if key not in kept:
            opened = open_new(settings, application=application, **options)
            kept[key] = Kept(opened.engine, pooled=settings.pooled)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "open", open_kept)
        yield
        for database in kept.values():
            await database.engine.dispose()


async def empty(database: Database) -> None:
    """Delete every row of every table; ids of events go on counting."""
    tables = reversed(migrate.all_tables().sorted_tables)
    async with database.begin() as conn:
        # One round trip. TRUNCATE would cost a new file per table and index, DELETE of few rows costs nothing.
        deletions = [f"deleted_{number} as (delete from {table})" for number, table in enumerate(tables)]
        await conn.execute(text(f"with {', '.join(deletions)} select"))


async def add_account(conn: AsyncConnection, name: str | None = None) -> UUID:
    """A new account's id."""
    account_id = ids.new_id()
    await conn.execute(insert(accounts).values(id=account_id, name=name or f"account {account_id}"))
    return account_id
