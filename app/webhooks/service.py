"""Webhooks for callers: URL checks, signing secrets, and deliveries."""

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
from app.infra.encryption import DecryptionError, Encryptor
from app.settings import WebhookSettings
from app.webhooks import repository
from app.webhooks.records import Delivery
from app.webhooks.signing import new_secret

SECRET_PURPOSE = "webhook secret"
#: Decrypted secrets of accounts that are kept in memory.
DECRYPTED_SECRETS = 1024
ROTATION_BATCH = 500
CHECKED_URLS = 1024


class WebhookService:
    """Checks URLs, keeps the signing secrets, and creates deliveries."""

    def __init__(
        self, database: Database, encryptor: Encryptor, settings: WebhookSettings, clock: Clock = utc_now
    ) -> None:
        self._database = database
        self._encryptor = encryptor
        self._settings = settings
        self._clock = clock
        # An encrypted value always decrypts to the same secret, so an entry is never stale.
        self._decrypted = lru_cache(DECRYPTED_SECRETS)(self._decrypt)
        # Most jobs of an account name the same URL. Refusals are not cached.
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
        """The account's signing secret (``whsec_…``), created on first use.

        Raises:
            DecryptionError: it was stored with another ``secret_key``.
        """
        async with self._database.read() as conn:
            encrypted = await repository.encrypted_secret(conn, account_id)
        return await self.decrypted(account_id, encrypted)

    async def decrypted(self, account_id: UUID, encrypted: bytes | None) -> str:
        """The account's signing secret, given its encrypted column; None creates and stores the first secret.

        Raises:
            DecryptionError: it was stored with another ``secret_key``.
        """
        if encrypted is None:
            encrypted = await self._first_secret(account_id)
        return self._decrypted(account_id, encrypted)

    async def undecryptable(self, conn: AsyncConnection) -> list[UUID]:
        """The accounts whose secret none of the configured keys decrypts."""
        failed, after = list[UUID](), None
        while batch := await repository.secrets_after(conn, after, ROTATION_BATCH):
            for account_id, encrypted in batch:
                try:
                    self._decrypt(account_id, encrypted)
                except DecryptionError:
                    failed.append(account_id)
            after = batch[-1][0]
        return failed

    async def rotate(self) -> tuple[int, list[UUID]]:
        """Encrypt every stored secret again with the current secret key. Safe while serving.

        Returns how many, and the accounts whose secret none of the configured keys decrypts: those stay as they are.
        """
        rotated, failed, after = 0, list[UUID](), None
        while True:
            async with self._database.begin() as conn:
                batch = await repository.secrets_after(conn, after, ROTATION_BATCH, lock=True)
                for account_id, encrypted in batch:
                    try:
                        secret = self._decrypt(account_id, encrypted)
                    except DecryptionError:
                        failed.append(account_id)
                    else:
                        await repository.replace_secret(conn, account_id, self._encrypt(account_id, secret))
                        rotated += 1
            if not batch:
                return rotated, failed
            after = batch[-1][0]

    def _encrypt(self, account_id: UUID, secret: str) -> bytes:
        return self._encryptor.encrypt(SECRET_PURPOSE, secret.encode(), account_id.bytes)

    def _decrypt(self, account_id: UUID, encrypted: bytes) -> str:
        return self._encryptor.decrypt(SECRET_PURPOSE, encrypted, account_id.bytes).decode()

    async def _first_secret(self, account_id: UUID) -> bytes:
        async with self._database.begin() as conn:
            await repository.keep_secret(conn, account_id, self._encrypt(account_id, new_secret()))
            # Read again: a concurrent call may have stored its secret first.
            encrypted = await repository.encrypted_secret(conn, account_id)
        assert encrypted is not None
        return encrypted

    async def publish(
        self,
        conn: AsyncConnection,
        *,
        account_id: UUID,
        subject_id: UUID,
        event_id: UUID,
        event_type: str,
        url: str,
        payload: Mapping[str, Any],
    ) -> None:
        """Create the delivery of an event, in the caller's transaction; ring the delivery lane after the commit.

        ``payload`` is the event's ``data``, ready for JSON. It is serialised here, once: every attempt sends the same
        bytes.
        """
        await repository.create(
            conn,
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
        async with self._database.read() as conn:
            return await repository.of_subject(conn, account_id, subject_id)


def envelope(event_type: str, timestamp: datetime, data: Mapping[str, Any]) -> str:
    """The body of a webhook: compact JSON in ASCII. Its shape is ``schemas.WebhookEnvelope``."""
    fields = {"type": event_type, "timestamp": timestamp.isoformat().replace("+00:00", "Z"), "data": data}
    return json.dumps(fields, separators=(",", ":"), allow_nan=False)
