"""Alembic's entry: inside a connection that ``app.infra.migrate`` has opened, or from the ``alembic`` command."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

from app.infra.migrate import all_tables, connect

#: Any number that nobody else uses: two processes that migrate at once take turns.
ADVISORY_LOCK = 0xF11A6A7E


def run(conn: Connection) -> None:
    # One transaction for each migration, so that one can rewrite rows in batches. The lock is the session's, to last.
    context.configure(
        connection=conn, target_metadata=all_tables(), compare_server_default=True, transaction_per_migration=True
    )
    conn.execute(text("select pg_advisory_lock(:number)"), {"number": ADVISORY_LOCK})
    conn.commit()
    try:
        with context.begin_transaction():
            context.run_migrations()
    finally:
        conn.rollback()
        conn.execute(text("select pg_advisory_unlock(:number)"), {"number": ADVISORY_LOCK})
        conn.commit()


async def run_alone() -> None:
    async with connect(os.environ["FILMGATE_DATABASE_URL"]) as conn:
        await conn.run_sync(run)


given = context.config.attributes.get("connection")
if given is None:
    asyncio.run(run_alone())
else:
    run(given)
