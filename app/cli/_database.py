"""Reports database errors of commands in one line, without a traceback."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.errors import InvalidRequest
from app.infra.db import advice_on, lacks_tables
from app.terminal import CommandError, UsageError


@contextmanager
def database_errors() -> Iterator[None]:
    """Report database errors as a :class:`CommandError`, rejected arguments as a :class:`UsageError`."""
    try:
        yield
    except InvalidRequest as error:
        raise UsageError(error.message) from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        raise CommandError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if lacks_tables(error):
        return "the database has no tables; run: filmgate migrate"
    if advice := advice_on(error):
        return advice
    if isinstance(error, DBAPIError) and error.orig is not None:
        # SQLAlchemy wraps asyncpg's exception twice.
        error = error.orig.__cause__ if isinstance(error.orig.__cause__, Exception) else error.orig
    if isinstance(error, TimeoutError):
        return "the database did not respond in time"
    if isinstance(error, socket.gaierror):
        return "the database cannot be reached: its host name cannot be resolved"
    if isinstance(error, OSError):
        return f"the database cannot be reached: {os.strerror(error.errno).lower() if error.errno else error}"
    lines = str(error).splitlines() or [type(error).__name__]
    return f"database error: {lines[0]}"
