"""Secrets are made once and sealed; what is owed is written with the caller's own change."""

import asyncio
import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.errors import InvalidRequest
from app.ids import Prefix, encode, new_id
from app.infra.db import Database
from app.infra.encryption import DecryptionError, Encryptor
from app.settings import WebhookSettings
from app.webhooks import schemas, service
from app.webhooks.service import WebhookService
from app.webhooks.tables import deliveries, webhook_secrets
from tests.support.database import add_account
from tests.webhooks.owed_events import SECRET_KEY, SUBJECT, only_delivery, owe

URL = "https://hooks.example/video"


async def another_account(database: Database) -> UUID:
    async with database.begin() as conn:
        return await add_account(conn)


def test_bad_webhook_url_is_the_callers_mistake_and_names_the_field(webhooks: WebhookService) -> None:
    webhooks.check_url(URL)
    with pytest.raises(InvalidRequest) as raised:
        webhooks.check_url("https://169.254.169.254/latest/meta-data/")
    (fault,) = raised.value.fields
    assert (fault.field, fault.code) == ("webhook_url", "invalid_url")
    assert "public internet" in fault.message


async def test_secret_is_made_once_even_when_asked_for_by_many_at_once(
    database: Database, settings: WebhookSettings, account_id: UUID
) -> None:
    processes = [WebhookService(database, Encryptor(SECRET_KEY), settings) for _ in range(20)]
    first, *others = await asyncio.gather(*(process.secret(account_id) for process in processes))
    assert set(others) == {first}
    assert await processes[0].secret(account_id) == first


async def test_accounts_have_different_secrets(database: Database, webhooks: WebhookService, account_id: UUID) -> None:
    assert await webhooks.secret(account_id) != await webhooks.secret(await another_account(database))


async def test_secret_copied_into_another_accounts_row_does_not_open(
    database: Database, webhooks: WebhookService, account_id: UUID
) -> None:
    other = await another_account(database)
    await webhooks.secret(account_id)
    await webhooks.secret(other)
    async with database.begin() as conn:
        stolen = select(webhook_secrets.c.sealed).where(webhook_secrets.c.account_id == other).scalar_subquery()
        await conn.execute(
            update(webhook_secrets).where(webhook_secrets.c.account_id == account_id).values(sealed=stolen)
        )
    with pytest.raises(DecryptionError):
        await webhooks.secret(account_id)


async def test_another_secret_key_says_so_and_replaces_nothing(
    database: Database, webhooks: WebhookService, settings: WebhookSettings, account_id: UUID
) -> None:
    secret = await webhooks.secret(account_id)
    with pytest.raises(DecryptionError, match="FILMGATE_SECRET_KEY"):
        await WebhookService(database, Encryptor("another key"), settings).secret(account_id)
    assert await webhooks.secret(account_id) == secret


async def test_rotation_encrypts_every_secret_with_the_current_key(
    database: Database, settings: WebhookSettings, monkeypatch: pytest.MonkeyPatch, account_id: UUID
) -> None:
    monkeypatch.setattr(service, "ROTATION_BATCH", 2)
    old = WebhookService(database, Encryptor(SECRET_KEY), settings)
    accounts = [account_id, *[await another_account(database) for _ in range(4)]]
    secrets = [await old.secret(account) for account in accounts]
    rotating = WebhookService(database, Encryptor("another key", [SECRET_KEY]), settings)
    assert [await rotating.secret(account) for account in accounts] == secrets
    assert await rotating.rotate() == (5, [])
    new = WebhookService(database, Encryptor("another key"), settings)
    assert [await new.secret(account) for account in accounts] == secrets
    with pytest.raises(DecryptionError):
        await WebhookService(database, Encryptor(SECRET_KEY), settings).secret(account_id)


async def test_rotation_leaves_what_no_key_decrypts_and_names_its_account(
    database: Database, webhooks: WebhookService, settings: WebhookSettings, account_id: UUID
) -> None:
    secret = await webhooks.secret(account_id)
    other = await another_account(database)
    new = WebhookService(database, Encryptor("another key"), settings)
    readable = await new.secret(other)
    assert await new.rotate() == (1, [account_id])
    assert await webhooks.secret(account_id) == secret
    assert await new.secret(other) == readable


async def test_published_event_is_owed_only_if_the_callers_transaction_commits(
    database: Database, webhooks: WebhookService, account_id: UUID
) -> None:
    async with database.engine.connect() as conn:
        await webhooks.publish(
            conn,
            account_id=account_id,
            subject_id=SUBJECT,
            event_id=new_id(),
            event_type="job.failed",
            url=URL,
            payload={},
        )
        await conn.rollback()
    assert await webhooks.deliveries(account_id, SUBJECT) == []


async def test_body_is_a_standard_webhooks_envelope_in_compact_json(
    database: Database, settings: WebhookSettings, account_id: UUID
) -> None:
    moment = datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=UTC)
    webhooks = WebhookService(database, Encryptor(SECRET_KEY), settings, lambda: moment)
    await owe(database, webhooks, account_id, URL)
    async with database.read() as conn:
        body = (await conn.execute(select(deliveries.c.body))).scalar_one()
    fields = json.loads(body)
    assert list(fields) == ["type", "timestamp", "data"]
    assert fields["timestamp"] == "2026-11-22T12:00:00.000005Z"
    assert body == json.dumps(fields, separators=(",", ":"))
    envelope = schemas.WebhookEnvelope[dict[str, str]].model_validate_json(body)
    assert (envelope.type, envelope.timestamp, envelope.data["status"]) == ("job.succeeded", moment, "succeeded")


async def test_deliveries_are_shown_to_their_account_only(
    database: Database, webhooks: WebhookService, account_id: UUID
) -> None:
    await owe(database, webhooks, account_id, URL)
    assert await webhooks.deliveries(await another_account(database), SUBJECT) == []
    assert await webhooks.deliveries(account_id, new_id()) == []
    assert (await only_delivery(webhooks, account_id)).url == URL


async def test_deliveries_of_a_subject_come_oldest_first_in_public_form(
    database: Database, webhooks: WebhookService, account_id: UUID
) -> None:
    events = [await owe(database, webhooks, account_id, URL) for _ in range(3)]
    shown = [schemas.Delivery.of(delivery) for delivery in await webhooks.deliveries(account_id, SUBJECT)]
    assert [delivery.event_id for delivery in shown] == [encode(Prefix.EVENT, event) for event in events]
    for delivery in shown:
        assert delivery.id.startswith("whd_")
        assert (delivery.state, delivery.attempts) == ("pending", [])
        assert delivery.next_attempt_at is not None
