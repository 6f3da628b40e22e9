"""The bodies of the commands that work on the database: ``filmgate migrate`` and ``filmgate keys``."""

import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app import migrate
from app.accounts.service import KeyInfo, KeyService
from app.console import CommandError
from app.db import Database, lacks_tables
from app.errors import InvalidRequest
from app.settings import Settings


async def upgrade(settings: Settings) -> None:
    """Bring the schema up to date."""
    with explained():
        await migrate.upgrade(settings.database.url.get_secret_value())
    typer.echo("the database is up to date")


async def check(settings: Settings) -> None:
    """Fail unless the schema is the code's."""
    with explained():
        differences = await migrate.check(settings.database.url.get_secret_value())
    if differences:
        raise CommandError("\n".join(differences))
    typer.echo("the database is up to date")


async def create_key(settings: Settings, account: str, name: str, scopes: Sequence[str] | None) -> None:
    """Make a key and show it."""
    async with _keys(settings) as service:
        created = await (service.create(account, name, scopes) if scopes else service.create(account, name))
    typer.echo(f"id:  {created.id}\nkey: {created.text}\nThe key is not shown again.")


async def list_keys(settings: Settings) -> None:
    """Show what there is, without the keys themselves: a table for a person, tabs for a program."""
    async with _keys(settings) as service:
        rows = [_row(info) for info in await service.list()]
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(box=None)
    table.add_column("id", no_wrap=True)
    for heading in ("account", "name", "state", "created", "scopes"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


async def revoke_key(settings: Settings, key_id: str) -> None:
    """End a key for good."""
    async with _keys(settings) as service:
        revoked = await service.revoke(key_id)
    if not revoked:
        raise CommandError(f"there is no live key {key_id}; see: filmgate keys list")
    typer.echo(f"{key_id} is revoked")


def _row(info: KeyInfo) -> tuple[str, ...]:
    scopes = " ".join(sorted(info.scopes))
    return info.id, info.account, info.name, _state(info), f"{info.created_at:%Y-%m-%d}", scopes


def _state(info: KeyInfo) -> str:
    if info.revoked_at:
        return f"revoked {info.revoked_at:%Y-%m-%d}"
    return f"until {info.expires_at:%Y-%m-%d}" if info.expires_at else "live"


@asynccontextmanager
async def _keys(settings: Settings) -> AsyncIterator[KeyService]:
    database = Database.open(settings.database, application="filmgate keys")
    try:
        with explained():
            yield KeyService(database)
    finally:
        await database.close()


@contextmanager
def explained() -> Iterator[None]:
    """What can go wrong with a database or an argument, as one line for the person at the terminal."""
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
