"""Creates many jobs by SQL, as row-by-row copies of one real job in every table that refers to it.

The tables are read from the catalogue: ``jobs`` and all with a column ``job_id`` or ``subject_id``. The id of a copy is
derived from the original's id and the number of the copy, so references stay intact and ids increase with the number,
like real ones. Triggers and foreign keys are off during the copy: the original already satisfies them.
"""

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from app.ids import Prefix, encode

_TABLES = """
    SELECT DISTINCT ON (columns.table_name) columns.table_name, columns.column_name
    FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
        AND (column_name IN ('job_id', 'subject_id') OR (table_name = 'jobs' AND column_name = 'id'))
    ORDER BY columns.table_name, column_name = 'job_id'
"""
_COLUMNS = """
    SELECT column_name, data_type FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name = $1 AND is_identity = 'NO' AND is_generated = 'NEVER'
    ORDER BY ordinal_position
"""
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Creation times of copies: copy ``n`` has an id of ``first + (n - base) * step`` Unix milliseconds. With ``moved``
    the times in its rows are shifted accordingly, as needed for jobs that ended long ago."""

    first: int
    step: float
    moved: bool
    base: int = 0

    @classmethod
    def now(cls) -> "Spread":
        """For copies of live jobs: created within the last hour."""
        return cls(int(time.time() * 1000) - 3_600_000, 1, moved=False)

    @classmethod
    def past(cls, number: int, base: int) -> "Spread":
        """For copies of ended jobs, numbered from ``base``: spread over 19 days, within every retention period."""
        return cls(int(time.time() * 1000) - 20 * DAY_MS, 19 * DAY_MS / number, moved=True, base=base)


async def copy(connection: asyncpg.Connection, job: UUID, numbers: range, spread: Spread) -> None:
    """Copy ``job`` once for each number. A number must be used only once per database."""
    async with _triggers_off(connection):
        for table, column in await connection.fetch(_TABLES):
            await connection.execute(await _statement(connection, table, column, spread), job, numbers[0], numbers[-1])
        if await connection.fetchval("SELECT to_regclass('public.webhook_attempts') IS NOT NULL"):
            await connection.execute(await _attempts(connection, spread), job, numbers[0], numbers[-1])


def copied_ids(job: UUID, numbers: range, spread: Spread) -> list[str]:
    """The public ids of the copies."""
    return [encode(Prefix.JOB, _derived(job, number, spread)) for number in numbers]


def _derived(original: UUID, number: int, spread: Spread) -> UUID:
    digest = hashlib.md5(f"{original}{number}".encode()).hexdigest()  # not for security
    moment = f"{int(spread.first + (number - spread.base) * spread.step):012x}"
    return UUID(f"{moment}7{digest[:3]}8{digest[4:19]}")


def _id(column: str, spread: Spread) -> str:
    moment = (
        f"lpad(to_hex(trunc({spread.first}::float8 + (n - {spread.base}) * {spread.step}::float8)::bigint), 12, '0')"
    )
    digest = f"md5({column}::text || n)"
    return f"({moment} || '7' || substr({digest}, 1, 3) || '8' || substr({digest}, 5, 15))::uuid"


def _value(name: str, kind: str, spread: Spread) -> str:
    if kind == "uuid" and name != "account_id":
        return _id(f't."{name}"', spread)
    if name in {"remote_id", "key"}:
        return f"t.\"{name}\" || '-' || n"
    if kind == "timestamp with time zone" and spread.moved:
        ago = f"({int(time.time() * 1000) - spread.first}::float8 - (n - {spread.base}) * {spread.step}::float8) / 1000"
        return f't."{name}" - make_interval(secs => {ago})'
    return f't."{name}"'


async def _statement(connection: asyncpg.Connection, table: str, column: str, spread: Spread) -> str:
    columns = await connection.fetch(_COLUMNS, table)
    names = ", ".join(f'"{name}"' for name, _ in columns)
    values = ", ".join(_value(name, kind, spread) for name, kind in columns)
    return (
        f'INSERT INTO "{table}" ({names}) SELECT {values} FROM "{table}" AS t, generate_series($2::int, $3::int) AS n '
        f'WHERE t."{column}" = $1'
    )


async def _attempts(connection: asyncpg.Connection, spread: Spread) -> str:
    columns = await connection.fetch(_COLUMNS, "webhook_attempts")
    names = ", ".join(f'"{name}"' for name, _ in columns)
    values = ", ".join(_value(name, kind, spread) for name, kind in columns)
    return (
        f"INSERT INTO webhook_attempts ({names}) SELECT {values} FROM webhook_attempts AS t "
        "JOIN webhook_deliveries AS d ON d.id = t.delivery_id, generate_series($2::int, $3::int) AS n "
        "WHERE d.subject_id = $1"
    )


async def delete_jobs(connection: asyncpg.Connection, since: UUID | None = None) -> None:
    """Delete all jobs with their dependent rows; with ``since``, only jobs with ids from ``since`` on."""
    async with _triggers_off(connection):
        tables = await connection.fetch(_TABLES)
        if since is None:
            await connection.execute(f"TRUNCATE {', '.join(table for table, _ in tables)} CASCADE")
            return
        for table, column in tables:
            await connection.execute(f'DELETE FROM "{table}" WHERE "{column}" >= $1', since)


async def vacuum(connection: asyncpg.Connection) -> None:
    """Bring the database into a steady state: fresh statistics and visibility map, no dirty pages."""
    await connection.execute("VACUUM (ANALYZE)")
    await connection.execute("CHECKPOINT")


@asynccontextmanager
async def _triggers_off(connection: asyncpg.Connection) -> AsyncIterator[None]:
    await connection.execute("SET session_replication_role = replica")
    try:
        async with connection.transaction():
            yield
    finally:
        await connection.execute("SET session_replication_role = origin")
