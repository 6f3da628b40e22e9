"""Upgrade the database schema to the newest version."""

from typing import Annotated

import typer

from app.cli._database import database_errors
from app.cli._options import Check
from app.cli._settings import load_settings
from app.database_settings import DatabaseSettings
from app.infra.migrate import check as check_schema
from app.infra.migrate import upgrade
from app.terminal import CommandError, fail, run

To = Annotated[
    str, typer.Option(metavar="REVISION", help="Stop at this revision; release notes say when this is needed.")
]


def migrate(check: Check = False, to: To = "head") -> None:
    if check and to != "head":
        fail("--check compares with the newest schema; leave out --to", 2)
    database = load_settings().database
    if check:
        run(_check(database))
        return
    url = database.direct_url or database.url
    if database.pooled and database.direct_url is None:
        fail(
            "database.direct_url: is not set; a migration holds a lock of its session, which a pooler gives to others: "
            "set FILMGATE_DATABASE_DIRECT_URL to the URL of Postgres itself",
            2,
        )
    run(_upgrade(url.get_secret_value(), to))


async def _check(database: DatabaseSettings) -> None:
    with database_errors():
        differences = await check_schema(database)
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
