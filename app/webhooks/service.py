"""Webhooks for callers: what may be called, what is owed, and what became of it."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import Clock, utc_now
from app.errors import FieldError, InvalidRequest
from app.ids import new_id
from app.infra.db import Database
from app.infra.egress import InvalidUrl, check_url
from app.infra.encryption import Sealer
from app.settings import WebhookSettings
from app.webhooks import repository
from app.webhooks.records import Delivery
from app.webhooks.signing import new_secret

SECRET_PURPOSE = "webhook secret"
#: Secrets of accounts that are kept unsealed in memory.
OPENED_SECRETS = 1024
CHECKED_URLS = 1024


class WebhookService:
    """Accepts URLs, keeps the signing secrets, writes down what is owed to receivers."""

    def __init__(self, database: Database, sealer: Sealer, settings: WebhookSettings, clock: Clock = utc_now) -> None:
        self._database = database
        self._sealer = sealer
        self._settings = settings
        self._clock = clock
        # A sealed value never changes its meaning, so this can never be out of date.
        self._open = lru_cache(OPENED_SECRETS)(self._unseal)
        # Most orders of an account name the same URL. What is refused is not kept.
        self._check = lru_cache(CHECKED_URLS)(partial(check_url, settings=settings))

    def check_url(self, url: str) -> None:
        """Refuse a ``webhook_url`` that can never be called.

        Raises:
            InvalidRequest: names the field ``webhook_url`` and what is wrong.
        """
        try:
            self._check(url)
        except InvalidUrl as error:
            fault = FieldError("webhook_url", "invalid_url", str(error))
            raise InvalidRequest(f"`{fault.field}` {fault.message}.", [fault]) from None

    async def secret(self, account_id: UUID) -> str:
        """The account's signing secret (``whsec_…``), made when it is first asked for.

        Raises:
            SealingError: it was stored with another ``secret_key``.
        """
        async with self._database.read() as connection:
            sealed = await repository.sealed_secret(connection, account_id)
        return await self.unsealed(account_id, sealed)

    async def unsealed(self, account_id: UUID, sealed: bytes | None) -> str:
        """The account's signing secret, where its row has just been read; None: it has none yet, so one is made.

        Raises:
            SealingError: it was stored with another ``secret_key``.
        """
        if sealed is None:
            sealed = await self._first_secret(account_id)
        return self._open(account_id, sealed)

    def _unseal(self, account_id: UUID, sealed: bytes) -> str:
        return self._sealer.open(SECRET_PURPOSE, sealed, account_id.bytes).decode()

    async def _first_secret(self, account_id: UUID) -> bytes:
        fresh = self._sealer.seal(SECRET_PURPOSE, new_secret().encode(), account_id.bytes)
        async with self._database.begin() as connection:
            await repository.keep_secret(connection, account_id, fresh)
            # Not `fresh`: somebody else may have been first.
            sealed = await repository.sealed_secret(connection, account_id)
        assert sealed is not None
        return sealed

    async def publish(
        self,
        connection: AsyncConnection,
        *,
        account_id: UUID,
        subject_id: UUID,
        event_id: UUID,
        event_type: str,
        url: str,
        payload: Mapping[str, Any],
    ) -> None:
        """Owe an event to a URL, in the caller's transaction; ring the delivery lane after the commit.

        ``payload`` is the event's ``data``, ready for JSON. It is serialised here, once: every attempt sends the same
        bytes.
        """
        await repository.create(
            connection,
            delivery_id=new_id(),
            account_id=account_id,
            subject_id=subject_id,
            event_id=event_id,
            event_type=event_type,
            url=url,
            host=urlsplit(url).netloc.lower(),
            body=envelope(event_type, self._clock(), payload),
            first_in=self._settings.delays[0],
        )

    async def deliveries(self, account_id: UUID, subject_id: UUID) -> list[Delivery]:
        """The deliveries of a subject's events with their attempts, oldest first."""
        async with self._database.read() as connection:
            return await repository.of_subject(connection, account_id, subject_id)


def envelope(event_type: str, timestamp: datetime, data: Mapping[str, Any]) -> str:
    """The body of a webhook: compact JSON in ASCII. Its shape is ``schemas.WebhookEnvelope``."""
    fields = {"type": event_type, "timestamp": timestamp.isoformat().replace("+00:00", "Z"), "data": data}
    return json.dumps(fields, separators=(",", ":"), allow_nan=False)
