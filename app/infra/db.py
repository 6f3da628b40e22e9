"""Postgres: the metadata object, the engine, transactions and autocommit connections."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import Connection, MetaData, event, func
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.database_settings import DatabaseSettings
from app.infra import driver
from app.infra.pool import PoolGuard

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: What SQLAlchemy is told of the URL. The rest goes to ``driver.connect``, which knows libpq's parameters.
DRIVER = "postgresql+asyncpg://"

#: Storage parameters of growing tables: vacuum at 2 % dead rows instead of the default 20 %.
VACUUMED_IN_TIME = {"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02}
#: Storage parameters of small tables whose rows change every few seconds: vacuum by the number of dead rows, without
#: throttling and without truncation.
ALL_THE_TIME = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_vacuum_cost_delay": 0,
    "vacuum_truncate": "off",
}


#: The database's clock, the only one that all workers share. Unlike ``now()`` it advances within a transaction.
NOW = func.clock_timestamp()


def interval(seconds: float) -> Any:
    """An interval, for arithmetic with the database's clock."""
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)


class Database:
    """A pool of connections. Repositories get a connection; they never open or commit one."""

    def __init__(self, engine: AsyncEngine, *, pooled: bool = False) -> None:
        """``pooled``: behind a pooler every statement runs in a transaction, which has what a session cannot keep."""
        self.engine = engine
        self._pooled = pooled
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(cls, settings: DatabaseSettings, *, application: str, lock_timeout: float = 0) -> "Database":
        """Connects lazily, with the first statement.

        ``command_timeout`` ends a statement on a frozen server. ``lock_timeout`` is how many seconds a statement waits
        for a lock; 0 means no limit.
        """
        session = {
            "jit": "off",
            "idle_in_transaction_session_timeout": "60s",
            "lock_timeout": f"{lock_timeout * 1000:.0f}ms",
        }
        engine = create_async_engine(
            DRIVER,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.pool_timeout,
            pool_recycle=settings.pool_recycle,
            pool_pre_ping=False,  # PoolGuard checks those that were idle
            pool_use_lifo=True,
            hide_parameters=True,  # they hold prompts, and errors are logged
            connect_args=driver.arguments(
                settings, application=application, session=session, command_timeout=settings.command_timeout
            ),
        )
        PoolGuard(check_idle=settings.pool_check_idle, check_timeout=settings.connect_seconds).attach(engine)
        if settings.pooled:
            _set_in_each_transaction(engine, session)
        return cls(engine, pooled=settings.pooled)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with self.engine.begin() as conn:
            yield conn

    def single(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection in autocommit mode, for single statements: one round trip instead of three.

        Behind a pooler it is one transaction.
        """
        return self.engine.begin() if self._pooled else self._autocommit.connect()

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """The same, for SELECTs."""
        return self.single()

    async def close(self) -> None:
        await self.engine.dispose()


def _set_in_each_transaction(engine: AsyncEngine, settings: Mapping[str, str]) -> None:
    """Behind a pooler a transaction sets what otherwise a session does, for itself."""
    functions = (f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    statement = f"SELECT {', '.join(functions)}"

    def apply(conn: Connection) -> None:
        conn.exec_driver_sql(statement)

    event.listen(engine.sync_engine, "begin", apply)


# SQLSTATE classes of transient errors: connection, read-only session (failover), transaction rollback (deadlock),
# resources, operator intervention (shutdown, timeout), lock not available.
_TRANSIENT = ("08", "25006", "40", "53", "57", "55P03")

# Data exception, constraint violation, lock not available.
_REJECTED = ("22", "23", "55P03")

#: A prepared statement that is unknown, or exists already: it was made in another session, or by another client.
_FOREIGN_STATEMENT = {"26000", "42P05"}


def lacks_tables(error: BaseException) -> bool:
    """Whether a statement failed because the database was never migrated."""
    return _sqlstate(error) == "42P01"


def advice_on(error: BaseException) -> str | None:
    """What to set, for an error that a setting of the database's connection causes; None for others."""
    if _sqlstate(error) in _FOREIGN_STATEMENT or "unsupported startup parameter" in str(error):
        return 'a pooler before the database refuses what the gateway sends; set database.pooler = "transaction"'
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return "the database has no TLS, which sslmode of database.url requires; switch it on there, or remove sslmode"
    return None


def left_nothing(error: BaseException) -> bool:
    """Whether the server itself rejected the transaction for its content, so that certainly nothing was committed."""
    return _sqlstate(error).startswith(_REJECTED)


def _sqlstate(error: BaseException) -> str:
    """The SQLSTATE that the server returned for a statement; empty for every other error."""
    return getattr(error.orig, "sqlstate", None) or "" if isinstance(error, DBAPIError) else ""


def is_outage(error: BaseException) -> bool:
    """Whether a dependency is unavailable or overloaded, so that a retry may succeed."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_outage(error.orig))
    sqlstate = getattr(error, "sqlstate", None) or ""
    if sqlstate.startswith(_TRANSIENT):
        return True
    # SQLAlchemy's asyncpg dialect wraps the driver's error as the cause.
    if error.__cause__ is not None and is_outage(error.__cause__):
        return True
    return isinstance(
        error, OSError | PoolTimeoutError | asyncpg.InterfaceError | asyncpg.TargetServerAttributeNotMatched
    )
