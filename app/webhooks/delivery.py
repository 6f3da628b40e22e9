"""Webhooks out: claim what is due, POST it signed, write down what came of it.

At least once: a row stays pending until an attempt is recorded, so when a worker dies the lease runs out and the next
worker sends the same bytes under the same ``webhook-id``.
"""

import asyncio
import time
from collections.abc import Mapping
from enum import StrEnum
from importlib.metadata import version

import structlog

from app.clock import Clock, utc_now
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode
from app.infra.db import Database
from app.infra.egress import GuardedClient, GuardedReply, GuardError, InvalidUrl
from app.settings import WebhookSettings
from app.webhooks import claims
from app.webhooks.attempts import AttemptRecorder
from app.webhooks.concurrency import Slots
from app.webhooks.records import Attempt, Attempted, Due
from app.webhooks.retry import Decision, Delivered, GiveUp, RetryIn, decide, read_retry_after
from app.webhooks.service import WebhookService
from app.webhooks.signing import signed_headers

USER_AGENT = f"Filmgate/{version('filmgate')}"
#: What an attempt needs beside its POST: perhaps a first secret, and recording the outcome.
LEASE_MARGIN_SECONDS = 30.0
REPLY_CHARACTERS = 1000

log = structlog.get_logger()


class Outcome(StrEnum):
    """What one attempt came to, for the metric."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"
    LOST_LEASE = "lost_lease"  # it took too long: another worker has the delivery now
    BROKEN = "broken"  # our own fault; nothing is recorded, and the delivery comes back when its lease is over


class Deliverer:
    """The delivery lane's work. One per worker process."""

    def __init__(
        self,
        database: Database,
        client: GuardedClient,
        webhooks: WebhookService,
        settings: WebhookSettings,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._client = client
        self._webhooks = webhooks
        self._settings = settings
        self._clock = clock
        self._recorder = AttemptRecorder(database)
        self._slots = Slots()
        self._limit = 1  # of the lane, as the last claim told

    async def claim(self, limit: int) -> list[Due]:
        """Take up to ``limit`` due deliveries; each must be given to :meth:`attempt` at once, in a task of its own.

        Fewer than ``limit`` does not mean that nothing else is due: no host gets more than its share of the slots.
        """
        await asyncio.sleep(0)  # what was claimed a moment ago begins, and counts
        self._limit = limit + self._slots.under_way
        lease = self._settings.timeout + LEASE_MARGIN_SECONDS
        async with self._database.single() as connection:
            return await claims.claim(connection, limit, lease=lease, shares=self._slots.shares(self._limit))

    async def next_due(self) -> float | None:
        """Seconds until the next attempt that may be claimed is due; None when none is owed."""
        await asyncio.sleep(0)
        async with self._database.read() as connection:
            return await claims.next_due(connection, self._slots.full(self._limit))

    async def attempt(self, due: Due) -> Outcome:
        """Make one attempt and record it. Never raises but for cancellation."""
        try:
            with self._slots.taken(due.host):
                return await self._attempt(due)
        except Exception:
            # One delivery must not take the lane down, and its lease brings it back.
            log.exception("webhook attempt broken off", delivery=encode(Prefix.DELIVERY, due.id))
            return Outcome.BROKEN

    async def _attempt(self, due: Due) -> Outcome:
        await checkpoint(Checkpoint.DELIVER_CLAIMED)
        headers = await self._headers(due)
        started_at, started = self._clock(), time.monotonic()
        reply: GuardedReply | GuardError
        try:
            reply = await self._client.post(due.url, headers, due.body.encode())
        except GuardError as error:
            reply = error
        seconds = time.monotonic() - started
        self._note(due.host, reply, seconds)
        await checkpoint(Checkpoint.DELIVER_SENT)
        milliseconds = round(seconds * 1000)
        number = due.attempts + 1
        if isinstance(reply, GuardedReply):
            retry_after = read_retry_after(reply.headers.get("retry-after"), self._clock())
            decision = decide(reply.status, retry_after, number, self._settings.delays)
            excerpt = None if isinstance(decision, Delivered) else _readable(reply.body_excerpt)
            attempt = Attempt(number, started_at, milliseconds, status_code=reply.status, reply=excerpt)
        else:
            decision = decide(None, None, number, self._settings.delays)
            attempt = Attempt(number, started_at, milliseconds, error=_said(reply))
        return await self._record(Attempted(due, attempt, decision))

    def _note(self, host: str, reply: GuardedReply | GuardError, seconds: float) -> None:
        if isinstance(reply, GuardedReply):
            self._slots.answered(host, seconds)
        else:
            self._slots.unanswered(host)

    async def _headers(self, due: Due) -> Mapping[str, str]:
        secret = await self._webhooks.unsealed(due.account_id, due.sealed_secret)
        signed = signed_headers([secret], encode(Prefix.EVENT, due.event_id), self._clock(), due.body)
        return {**signed, "content-type": "application/json", "user-agent": USER_AGENT}

    async def _record(self, made: Attempted) -> Outcome:
        recorded = await self._recorder.record(made)
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


def _said(error: GuardError) -> str:
    return f"the URL {error}" if isinstance(error, InvalidUrl) else str(error)
