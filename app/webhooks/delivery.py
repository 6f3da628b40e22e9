"""Webhook delivery: claims due deliveries, POSTs them signed, and records each attempt.

Delivery is at least once: a row stays pending until an attempt is recorded, so when a worker dies the lease ends and
the next worker sends the same bytes under the same ``webhook-id``.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from importlib.metadata import version

import structlog

from app.clock import Clock, utc_now
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode
from app.infra.db import Database
from app.infra.egress import GuardedClient, GuardedReply, GuardError, InvalidUrl
from app.infra.metrics import WEBHOOK_ATTEMPTS
from app.infra.queue import Lane, Step
from app.settings import WebhookSettings
from app.webhooks import claims
from app.webhooks.attempts import AttemptWriter
from app.webhooks.concurrency import HostConcurrency
from app.webhooks.records import Attempt, Attempted, Due
from app.webhooks.retry import Decision, Delivered, GiveUp, RetryIn, decide, read_retry_after
from app.webhooks.service import WebhookService
from app.webhooks.signing import signed_headers

USER_AGENT = f"Filmgate/{version('filmgate')}"
#: Time of an attempt beside its POST: creating a first secret and recording the result.
LEASE_MARGIN_SECONDS = 30.0
REPLY_CHARACTERS = 1000

log = structlog.get_logger()


class Outcome(StrEnum):
    """The result of one attempt, for the metric."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"
    LOST_LEASE = "lost_lease"  # it took too long: another worker has the delivery
    BROKEN = "broken"  # a fault of the gateway: nothing is recorded, and the delivery is claimed again


class Deliverer(Step[Due]):
    """Delivers webhooks in the `deliver` lane. One per worker process."""

    lane = Lane.DELIVER

    def __init__(
        self,
        database: Database,
        client: GuardedClient,
        webhooks: WebhookService,
        settings: WebhookSettings,
        clock: Clock = utc_now,
        *,
        limit: int,
    ) -> None:
        self.limit = limit
        self._database = database
        self._client = client
        self._webhooks = webhooks
        self._settings = settings
        self._clock = clock
        self._attempts = AttemptWriter(database)
        self._hosts = HostConcurrency()

    async def claim(self, limit: int) -> AsyncIterator[Due]:
        """Claim up to ``limit`` due deliveries; each must be passed to :meth:`advance` at once, in a separate task.

        Fewer than ``limit`` does not mean that nothing else is due: a host gets no more than its share.
        """
        await asyncio.sleep(0)  # let deliveries that were just claimed start, so that they count
        lease = self._settings.timeout + LEASE_MARGIN_SECONDS
        async with self._database.single() as conn:
            due = await claims.claim(conn, limit, lease=lease, shares=self._hosts.shares(self.limit))
        for delivery in due:
            yield delivery

    async def next_due(self) -> float | None:
        """Seconds until the next attempt that may be claimed is due; None if there is none."""
        await asyncio.sleep(0)
        async with self._database.read() as conn:
            return await claims.next_due(conn, self._hosts.full(self.limit))

    async def advance(self, due: Due) -> Outcome:
        """Make one attempt and record it. Raises only when canceled."""
        outcome = await self._guarded(due)
        WEBHOOK_ATTEMPTS.labels(outcome=outcome.value).inc()
        return outcome

    async def _guarded(self, due: Due) -> Outcome:
        try:
            with self._hosts.taken(due.host):
                return await self._attempt(due)
        except Exception:
            # The delivery is claimed again when its lease ends.
            log.exception("webhook attempt failed", delivery=encode(Prefix.DELIVERY, due.id))
            return Outcome.BROKEN

    async def _attempt(self, due: Due) -> Outcome:
        await failpoint(Failpoint.DELIVER_CLAIMED)
        headers = await self._headers(due)
        started_at, started = self._clock(), time.monotonic()
        reply: GuardedReply | GuardError
        try:
            reply = await self._client.post(due.url, headers, due.body.encode())
        except GuardError as error:
            reply = error
        seconds = time.monotonic() - started
        self._note(due.host, reply, seconds)
        await failpoint(Failpoint.DELIVER_SENT)
        milliseconds = round(seconds * 1000)
        number = due.attempts + 1
        if isinstance(reply, GuardedReply):
            retry_after = read_retry_after(reply.headers.get("retry-after"), self._clock())
            decision = decide(reply.status, retry_after, number, self._settings.delays)
            excerpt = None if isinstance(decision, Delivered) else _readable(reply.body_excerpt)
            attempt = Attempt(number, started_at, milliseconds, status_code=reply.status, reply=excerpt)
        else:
            decision = decide(None, None, number, self._settings.delays)
            attempt = Attempt(number, started_at, milliseconds, error=_text_of(reply))
        return await self._record(Attempted(due, attempt, decision))

    def _note(self, host: str, reply: GuardedReply | GuardError, seconds: float) -> None:
        if isinstance(reply, GuardedReply):
            self._hosts.responded(host, seconds)
        else:
            self._hosts.silent(host)

    async def _headers(self, due: Due) -> Mapping[str, str]:
        secret = await self._webhooks.decrypted(due.account_id, due.encrypted_secret)
        signed = signed_headers([secret], encode(Prefix.EVENT, due.event_id), self._clock(), due.body)
        return {**signed, "content-type": "application/json", "user-agent": USER_AGENT}

    async def _record(self, made: Attempted) -> Outcome:
        recorded = await self._attempts.record(made)
        due, attempt = made.due, made.attempt
        outcome = _OUTCOMES[type(made.decision)] if recorded else Outcome.LOST_LEASE
        log.info(
            "webhook attempted",
            delivery=encode(Prefix.DELIVERY, due.id),
            event_type=due.event_type,
            number=attempt.number,
            status_code=attempt.status_code,
            error=attempt.error,
            outcome=outcome.value,
        )
        return outcome


_OUTCOMES: Mapping[type[Decision], Outcome] = {
    Delivered: Outcome.DELIVERED,
    RetryIn: Outcome.RETRY,
    GiveUp: Outcome.FAILED,
}


def _readable(body: bytes) -> str:
    """A receiver's bytes as text that Postgres, JSON and a terminal can take."""
    text = body[: 4 * REPLY_CHARACTERS].decode(errors="replace")[:REPLY_CHARACTERS]
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _text_of(error: GuardError) -> str:
    return f"the URL {error}" if isinstance(error, InvalidUrl) else str(error)
