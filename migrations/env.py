"""Alembic's entry: inside a connection that ``app.infra.migrate`` has opened, or from the ``alembic`` command."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

from app.infra.migrate import all_tables, connect

#: Any number that nobody else uses: two processes that migrate at once take turns.
ADVISORY_LOCK = 0xF11A6A7E


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=all_tables(), compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("select pg_advisory_xact_lock(:number)"), {"number": ADVISORY_LOCK})
        context.run_migrations()


async def run_alone() -> None:
    async with connect(os.environ["FILMGATE_DATABASE_URL"]) as connection:
        await connection.run_sync(run)


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(run_alone())
else:
    run(given)
