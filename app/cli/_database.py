"""Database errors for commands: one line each, no traceback."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.errors import InvalidRequest
from app.infra.db import lacks_tables
from app.terminal import CommandError


@contextmanager
def database_errors() -> Iterator[None]:
    """Report errors of the database, and refused arguments, as a :class:`CommandError`."""
    try:
        yield
    except InvalidRequest as error:
        raise CommandError(error.message) from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        raise CommandError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if lacks_tables(error):
        return "the tables are not there; run: filmgate migrate"
    if isinstance(error, DBAPIError) and error.orig is not None:
        # Two wrappers around what the driver said.
        error = error.orig.__cause__ if isinstance(error.orig.__cause__, Exception) else error.orig
    if isinstance(error, TimeoutError):
        return "the database did not answer in time"
    if isinstance(error, socket.gaierror):
        return "the database cannot be reached: there is no host of that name"
    if isinstance(error, OSError):
        return f"the database cannot be reached: {os.strerror(error.errno).lower() if error.errno else error}"
    lines = str(error).splitlines() or [type(error).__name__]
    return f"the database refused: {lines[0]}"
