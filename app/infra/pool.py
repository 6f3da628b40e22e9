"""Keeps the pool of connections usable: none that is closed, read-only or silently dropped is used again and again.

A failover can leave sessions that are read-only, a firewall or pooler ends idle connections, a NAT gateway forgets them
without a word. A statement on such a connection fails once at most; connections in constant use cost no round trip.
"""

import time
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

USED_AT = "used_at"
#: SQLSTATEs, and classes of them, after which a session is of no use: the connection failed, the session is read-only
#: (a server that was demoted), the server shuts down.
USELESS = ("08", "25006", "57P")


class PoolGuard:
    """Decides at checkout whether a pooled connection is used, checked first, or replaced."""

    def __init__(self, *, check_idle: float, check_timeout: float) -> None:
        """A connection that was idle for ``check_idle`` seconds is checked; ``check_timeout`` limits the check."""
        self._check_idle = check_idle
        self._check_timeout = check_timeout
        self._suspicious_before = 0.0

    def attach(self, engine: AsyncEngine) -> None:
        event.listen(engine.sync_engine, "checkin", self._checked_in)
        event.listen(engine.sync_engine, "checkout", self._checked_out)
        event.listen(engine.sync_engine, "handle_error", self._failed)

    def _checked_in(self, _connection: Any, entry: ConnectionPoolEntry) -> None:
        entry.info[USED_AT] = time.monotonic()

    def _checked_out(self, connection: Any, entry: ConnectionPoolEntry, _proxy: Any) -> None:
        """
        Raises:
            DisconnectionError: SQLAlchemy replaces the connection by a new one.
        """
        if connection.driver_connection.is_closed():
            raise DisconnectionError("the connection was closed while it was idle")
        used_at = entry.info.get(USED_AT)
        if used_at is None:  # a new connection
            return
        if used_at >= self._suspicious_before and time.monotonic() - used_at < self._check_idle:
            return
        try:
            # Not an empty statement: asyncpg fails on the reply to one.
            connection.run_async(lambda driver: driver.execute("SELECT 1", timeout=self._check_timeout))
        except TimeoutError:
            # What dropped this connection has probably dropped the others that were idle. There is no one to close it
            # with: SQLAlchemy would wait for two seconds.
            connection.driver_connection.terminate()
            raise InvalidatePoolError("the connection was dropped while it was idle") from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise DisconnectionError("the connection does not work any more") from error

    def _failed(self, context: ExceptionContext) -> None:
        if context.connection is None:
            return
        error = context.original_exception
        if isinstance(error, TimeoutError):
            # Slow or dropped: this connection is replaced, and each other one is checked before its next use.
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
            self._suspicious_before = time.monotonic()
        elif (getattr(error, "sqlstate", None) or "").startswith(USELESS):
            context.is_disconnect = True  # and all others are replaced before their next use
