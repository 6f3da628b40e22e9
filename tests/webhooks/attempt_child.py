"""A worker process that makes one attempt; a test kills it. Usage: python -m tests.webhooks.one_attempt DATABASE_URL"""

import asyncio
import sys

from app.database_settings import DatabaseSettings
from app.infra.db import Database
from app.infra.egress import GuardedClient
from app.infra.encryption import Encryptor
from app.webhooks.delivery import Deliverer
from app.webhooks.service import WebhookService
from tests.support.receiver import loopback_settings
from tests.webhooks.owed_events import LANE, SECRET_KEY, attempt_next


async def main(url: str) -> None:
    settings = loopback_settings(timeout=600)
    database = Database.open(DatabaseSettings.model_validate({"url": url}), application="one attempt")
    webhooks = WebhookService(database, Encryptor(SECRET_KEY), settings)
    client = GuardedClient(settings)
    await attempt_next(Deliverer(database, client, webhooks, settings, limit=LANE))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
