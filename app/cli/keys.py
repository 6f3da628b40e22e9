"""Create, list and revoke API keys."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.accounts.service import KeyInfo, KeyService
from app.cli._database import database_errors
from app.cli._settings import load_settings
from app.infra.db import Database
from app.settings import Settings
from app.terminal import CommandError, run

keys = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Create, list and revoke API keys."
)


@keys.command("create")
def create_key(
    account: Annotated[str, typer.Option(help="Name of the account; a new name creates a new account.")],
    name: Annotated[str, typer.Option(help="Label of the key.")],
    scope: Annotated[list[str] | None, typer.Option(help="Scope of the key; repeatable. Default: all scopes.")] = None,
) -> None:
    """Create a key. It is shown only once."""
    run(_create(load_settings(), account, name, scope))


@keys.command("list")
def list_keys() -> None:
    """List all keys, without their secret part."""
    run(_list(load_settings()))


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="KEY_ID")]) -> None:
    """Revoke a key permanently."""
    run(_revoke(load_settings(), key_id))


async def _create(settings: Settings, account: str, name: str, scopes: Sequence[str] | None) -> None:
    """Create a key and show it."""
    async with _service(settings) as service:
        created = await (service.create(account, name, scopes) if scopes else service.create(account, name))
    typer.echo(f"id:  {created.id}\nkey: {created.text}\nThe key is not shown again.")


async def _list(settings: Settings) -> None:
    """List keys without their secret part: a table on a terminal, tab-separated lines elsewhere."""
    async with _service(settings) as service:
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


async def _revoke(settings: Settings, key_id: str) -> None:
    """Revoke a key permanently."""
    async with _service(settings) as service:
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
async def _service(settings: Settings) -> AsyncIterator[KeyService]:
    database = Database.open(settings.database, application="filmgate keys")
    try:
        with database_errors():
            yield KeyService(database)
    finally:
        await database.close()
