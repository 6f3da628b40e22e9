"""A Postgres of our own for one test session."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app import ids
from app.accounts.tables import accounts
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


async def empty(database: Database) -> None:
    """Delete every row of every table; ids of events go on counting."""
    tables = reversed(migrate.all_tables().sorted_tables)
    async with database.begin() as connection:
        # One round trip. TRUNCATE would cost a new file per table and index, DELETE of few rows costs nothing.
        deletions = [f"deleted_{number} as (delete from {table})" for number, table in enumerate(tables)]
        await connection.execute(text(f"with {', '.join(deletions)} select"))


async def add_account(connection: AsyncConnection, name: str | None = None) -> UUID:
    """A new account's id."""
    account_id = ids.new_id()
    await connection.execute(insert(accounts).values(id=account_id, name=name or f"account {account_id}"))
    return account_id
