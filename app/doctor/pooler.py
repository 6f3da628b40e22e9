"""Finds a pooler in transaction mode that the settings do not declare."""

import asyncpg
import structlog

from app.database_settings import DatabaseSettings, DatabaseUrl
from app.doctor.findings import Finding, problem
from app.infra import driver

#: Questions to each of two connections. One in transaction mode is enough to be seen; others may use the pooler too.
ROUNDS = 5

log = structlog.get_logger()


async def examine(settings: DatabaseSettings) -> list[Finding]:
    """Connects twice, with nothing that a pooler refuses."""
    if settings.pooled:
        return []
    try:
        shared = await _shares_sessions(settings)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The readiness check reports why the database is unusable.
        log.warning("pooler check failed", error=repr(error))
        return []
    if not shared:
        return []
    return [
        problem(
            "pooler_not_declared",
            "A pooler in transaction mode is between the gateway and Postgres, and database.pooler does not say so: "
            "statements fail under load.",
            'Set database.pooler = "transaction", and FILMGATE_DATABASE_DIRECT_URL where filmgate migrate runs.',
        )
    ]


async def _shares_sessions(settings: DatabaseSettings) -> bool:
    """Whether two connections use the same session of Postgres, or one of them several.

    A pooler makes up the process id that a connection gets at its start. Where it is the server's there is none, and
    one statement is all that is asked.
    """
    first = await _connect(settings)
    try:
        if await _session(first) == first.get_server_pid():
            return False
        second = await _connect(settings)
        try:
            sessions = [(await _session(first), await _session(second)) for _ in range(ROUNDS)]
        finally:
            await second.close(timeout=settings.connect_seconds)
    finally:
        await first.close(timeout=settings.connect_seconds)
    of_first, of_second = (set(pids) for pids in zip(*sessions, strict=True))
    return len(of_first) > 1 or len(of_second) > 1 or of_first == of_second


async def _connect(settings: DatabaseSettings) -> asyncpg.Connection:
    return await driver.connect(
        DatabaseUrl.read(settings.url.get_secret_value()),
        timeout=settings.connect_seconds,
        server_settings={},
        command_timeout=settings.command_timeout,
        statement_cache_size=0,
    )


async def _session(connection: asyncpg.Connection) -> int:
    async with connection.transaction():
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
        return pid
