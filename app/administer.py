"""The bodies of the commands that work on the database: ``filmgate migrate`` and ``filmgate keys``."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from app import migrate
from app.accounts.service import KeyInfo, KeyService
from app.console import CommandError
from app.db import Database
from app.errors import InvalidRequest
from app.settings import Settings


async def upgrade(settings: Settings) -> None:
    """Bring the schema up to date."""
    with _explained():
        await migrate.upgrade(settings.database.url.get_secret_value())
    typer.echo("the database is up to date")


async def check(settings: Settings) -> None:
    """Fail unless the schema is the code's."""
    with _explained():
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
    """Show what there is, without the keys themselves."""
    async with _keys(settings) as service:
        infos = await service.list()
    table = Table(box=None)
    for heading in ("id", "account", "name", "state", "created", "scopes"):
        table.add_column(heading, overflow="fold")
    for info in infos:
        table.add_row(
            info.id,
            info.account,
            info.name,
            _state(info),
            f"{info.created_at:%Y-%m-%d}",
            " ".join(sorted(info.scopes)),
        )
    console = Console()
    # A table that is read by a program must not be folded to the width of a terminal that is not there.
    console.print(table, width=None if console.is_terminal else 200)


async def revoke_key(settings: Settings, key_id: str) -> None:
    """End a key for good."""
    async with _keys(settings) as service:
        revoked = await service.revoke(key_id)
    if not revoked:
        raise CommandError(f"there is no live key {key_id}; see: filmgate keys list")
    typer.echo(f"{key_id} is revoked")


def _state(info: KeyInfo) -> str:
    if info.revoked_at:
        return f"revoked {info.revoked_at:%Y-%m-%d}"
    return f"until {info.expires_at:%Y-%m-%d}" if info.expires_at else "live"


@asynccontextmanager
async def _keys(settings: Settings) -> AsyncIterator[KeyService]:
    database = Database.open(settings.database, application="filmgate keys")
    try:
        with _explained():
            yield KeyService(database)
    finally:
        await database.close()


@contextmanager
def _explained() -> Iterator[None]:
    """What can go wrong with a database or an argument, as one line for the person at the terminal."""
    try:
        yield
    except InvalidRequest as error:
        raise CommandError(error.message) from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise CommandError(f"the database did not do it: {lines[0]}") from error
