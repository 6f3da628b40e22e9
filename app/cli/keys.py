"""Create, list and revoke API keys."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.accounts.scopes import DEFAULT
from app.accounts.service import KeyInfo, KeyService
from app.cli._database import database_errors
from app.cli._settings import load_settings
from app.clock import utc_now
from app.infra.db import Database
from app.settings import Settings
from app.terminal import CommandError, run

DAYS = re.compile(r"[0-9]{1,5}d")
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)

keys = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Create, list and revoke API keys."
)


def _expiry(text: str) -> datetime:
    """A future time in UTC, from an RFC 3339 time or a number of days such as ``30d``.

    Raises:
        typer.BadParameter: it is neither, or not in the future.
    """
    now = utc_now()
    try:
        if DAYS.fullmatch(text):
            moment = now + timedelta(days=int(text[:-1]))
        elif RFC_3339.fullmatch(text):
            moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
        else:
            raise ValueError  # noqa: TRY301  # as fromisoformat() does, which reads more than RFC 3339
    except (ValueError, OverflowError):
        raise typer.BadParameter("use a time with its offset, 2030-01-31T12:00:00Z, or days: 30d") from None
    if moment <= now:
        raise typer.BadParameter("the key would have expired already")
    return moment


@keys.command("create")
def create_key(
    account: Annotated[str, typer.Option(help="Name of the account; a new name creates a new account.")],
    name: Annotated[str, typer.Option(help="Label of the key.")],
    scope: Annotated[list[str] | None, typer.Option(help="Scope of the key; repeatable. Default: all scopes.")] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(
            parser=_expiry,
            metavar="TIME",
            help="When the key expires: a time with its offset, or a number of days such as 30d. Default: never.",
        ),
    ] = None,
) -> None:
    """Create a key. It is shown only once."""
    run(_create(load_settings(), account, name, scope, expires))


@keys.command("list")
def list_keys() -> None:
    """List all keys, without their secret part."""
    run(_list(load_settings()))


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="KEY_ID")]) -> None:
    """Revoke a key permanently."""
    run(_revoke(load_settings(), key_id))


async def _create(
    settings: Settings, account: str, name: str, scopes: Sequence[str] | None, expires: datetime | None
) -> None:
    """Create a key and show it."""
    async with _service(settings) as service:
        created = await service.create(account, name, scopes or DEFAULT, expires_at=expires)
    until = f"expires: {_minute(expires)}\n" if expires else ""
    typer.echo(f"id:  {created.id}\nkey: {created.text}\n{until}The key is not shown again.")


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
    if info.expires_at is None:
        return "live"
    return f"{'until' if info.expires_at > utc_now() else 'expired'} {_minute(info.expires_at)}"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


@asynccontextmanager
async def _service(settings: Settings) -> AsyncIterator[KeyService]:
    database = Database.open(settings.database, application="filmgate keys")
    try:
        with database_errors():
            yield KeyService(database)
    finally:
        await database.close()
