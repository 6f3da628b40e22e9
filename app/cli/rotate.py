"""Re-encrypt stored secrets with the current secret key, so that old keys can be removed. Safe on a live gateway."""

import typer

from app.cli._database import database_errors
from app.cli._settings import load_settings
from app.infra.db import Database
from app.infra.encryption import Encryptor
from app.settings import Settings
from app.terminal import CommandError, run
from app.webhooks.service import WebhookService


def rotate() -> None:
    run(_rotate(load_settings()))


async def _rotate(settings: Settings) -> None:
    database = Database.open(settings.database, application="filmgate rotate")
    try:
        with database_errors():
            rotated, failed = await WebhookService(database, Encryptor.of(settings), settings.webhooks).rotate()
    finally:
        await database.close()
    typer.echo(f"{rotated} webhook secrets are encrypted with the current key")
    if failed:
        accounts = "\n".join(f"  account {account}" for account in failed)
        raise CommandError(f"no configured key decrypts the webhook secrets of:\n{accounts}\nadd it to old_secret_keys")
