"""The real parts of webhooks, wired for a receiver on loopback."""

from collections.abc import AsyncIterator

import pytest

from app.infra.db import Database
from app.infra.egress import GuardedClient
from app.infra.encryption import Encryptor
from app.settings import WebhookSettings
from app.webhooks.delivery import Deliverer
from app.webhooks.service import WebhookService
from tests.support.receiver import Receiver, loopback_settings, running_receiver
from tests.webhooks.owed_events import LANE, SECRET_KEY


@pytest.fixture
def settings() -> WebhookSettings:
    return loopback_settings()


@pytest.fixture
def webhooks(database: Database, settings: WebhookSettings) -> WebhookService:
    return WebhookService(database, Encryptor(SECRET_KEY), settings)


@pytest.fixture
async def client(settings: WebhookSettings) -> AsyncIterator[GuardedClient]:
    client = GuardedClient(settings)
    yield client
    await client.close()


@pytest.fixture
def deliverer(
    database: Database, client: GuardedClient, webhooks: WebhookService, settings: WebhookSettings
) -> Deliverer:
    return Deliverer(database, client, webhooks, settings, limit=LANE)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as receiver:
        yield receiver
