"""Upgrade the database schema to the newest version."""

from typing import Annotated

import typer

from app.cli._database import database_errors
from app.cli._options import Check
from app.cli._settings import load_settings
from app.infra.migrate import check as check_schema
from app.infra.migrate import upgrade
from app.terminal import CommandError, fail, run

To = Annotated[
    str, typer.Option(metavar="REVISION", help="Stop at this revision; release notes say when this is needed.")
]


def migrate(check: Check = False, to: To = "head") -> None:
    if check and to != "head":
        fail("--check compares with the newest schema; leave out --to", 2)
    url = load_settings().database.url.get_secret_value()
    run(_check(url) if check else _upgrade(url, to))


async def _check(url: str) -> None:
    with database_errors():
        differences = await check_schema(url)
    if differences:
        raise CommandError("\n".join(differences))
    typer.echo("the database is up to date")


async def _upgrade(url: str, to: str) -> None:
    with database_errors():
        revision = await upgrade(url, to)
    if to in {"head", revision}:
        typer.echo("the database is up to date" if to == "head" else f"the database is at {revision}")
    else:
        typer.echo(f"the database is at {revision} already; nothing was done")
