"""Bring the database to the newest schema."""

import typer

from app.cli._database import database_errors
from app.cli._options import Check
from app.cli._settings import load_settings
from app.infra.migrate import check as check_schema
from app.infra.migrate import upgrade
from app.terminal import CommandError, run


def migrate(check: Check = False) -> None:
    run(_migrate(load_settings().database.url.get_secret_value(), check=check))


async def _migrate(url: str, *, check: bool) -> None:
    with database_errors():
        differences = [] if not check else await check_schema(url)
        if not check:
            await upgrade(url)
    if differences:
        raise CommandError("\n".join(differences))
    typer.echo("the database is up to date")
