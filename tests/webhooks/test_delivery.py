"""Deliveries end to end: a real receiver, the real client, the real database; waits are written into the row."""

import asyncio
import json
import logging
import sys
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from app.database_settings import DatabaseSettings
from app.ids import Prefix, encode
from app.infra.db import Database
from app.infra.egress import GuardedClient
from app.infra.encryption import Encryptor
from app.settings import WebhookSettings
from app.webhooks import claims, schemas
from app.webhooks.attempts import AttemptWriter
from app.webhooks.concurrency import HOST_SHARE, Shares
from app.webhooks.delivery import USER_AGENT, Deliverer, Outcome
from app.webhooks.records import Attempt, Attempted
from app.webhooks.retry import Delivered, RetryIn
from app.webhooks.service import WebhookService
from app.webhooks.tables import deliveries
from tests.support.receiver import Answer, Body, Receiver, loopback_settings, running_receiver
from tests.webhooks.owed_events import (
    LANE,
    SECRET_KEY,
    attempt_next,
    claim_all,
    make_due,
    only_delivery,
    owe,
    seconds_until_next,
)

DELAYS = WebhookSettings().delays
NOTHING_KNOWN = Shares([], 0, [])


async def test_receiver_gets_the_stored_bytes_signed(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    event_id = await owe(database, webhooks, account_id, receiver.url)
    assert await attempt_next(deliverer) is Outcome.DELIVERED
    (request,) = receiver.received
    async with database.read() as conn:
        assert request.body.decode() == (await conn.execute(select(deliveries.c.body))).scalar_one()
    event = Webhook(await webhooks.secret(account_id)).verify(request.body, dict(request.headers))
    assert event["data"] == {"status": "succeeded", "title": "Žluťoučký kůň"}
    assert request.headers["webhook-id"] == encode(Prefix.EVENT, event_id)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == USER_AGENT
    delivery = schemas.Delivery.of(await only_delivery(webhooks, account_id))
    assert (delivery.state, delivery.next_attempt_at) == ("delivered", None)
    assert delivery.ended_at is not None
    (attempt,) = delivery.attempts
    assert (attempt.number, attempt.status_code, attempt.error, attempt.reply) == (1, 200, None, None)


async def test_failing_receiver_is_tried_exactly_as_documented_under_one_id(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    event_id = await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(*[500] * 20)
    for delay in DELAYS[1:]:
        assert await attempt_next(deliverer) is Outcome.RETRY
        assert 0.8 * delay - 2 < await seconds_until_next(database) <= 1.2 * delay
        assert await claim_all(deliverer, 1) == []
        await make_due(database)
    assert await attempt_next(deliverer) is Outcome.FAILED
    await make_due(database)
    assert await claim_all(deliverer, 1) == []

    assert len(receiver.received) == len(DELAYS)
    assert {request.headers["webhook-id"] for request in receiver.received} == {encode(Prefix.EVENT, event_id)}
    assert len({request.body for request in receiver.received}) == 1
    verifier = Webhook(await webhooks.secret(account_id))
    for request in receiver.received:
        verifier.verify(request.body, dict(request.headers))
    delivery = await only_delivery(webhooks, account_id)
    assert delivery.state == "failed"
    assert [(attempt.number, attempt.status_code) for attempt in delivery.attempts] == [
        (number, 500) for number in range(1, len(DELAYS) + 1)
    ]


async def test_receiver_that_recovers_gets_the_event(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(503, 204)
    assert await attempt_next(deliverer) is Outcome.RETRY
    await make_due(database)
    assert await attempt_next(deliverer) is Outcome.DELIVERED
    delivery = await only_delivery(webhooks, account_id)
    assert [attempt.status_code for attempt in delivery.attempts] == [503, 204]


async def test_gone_ends_the_delivery_at_once(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(410)
    assert await attempt_next(deliverer) is Outcome.FAILED
    assert (await only_delivery(webhooks, account_id)).state == "failed"


async def test_retry_after_of_the_receiver_is_honoured(
    database: Database, client: GuardedClient, settings: WebhookSettings, receiver: Receiver, account_id: UUID
) -> None:
    noon = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    webhooks = WebhookService(database, Encryptor(SECRET_KEY), settings)
    deliverer = Deliverer(database, client, webhooks, settings, lambda: noon, limit=LANE)
    await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(
        Answer(429, {"Retry-After": "1000"}),
        Answer(503, {"Retry-After": "Sun, 22 Nov 2026 13:00:00 GMT"}),
        Answer(503, {"Retry-After": "99999999"}),
    )
    for seconds in (1000, 3600, 86_400):
        assert await attempt_next(deliverer) is Outcome.RETRY
        assert seconds - 2 < await seconds_until_next(database) <= seconds
        await make_due(database)
    delivery = await only_delivery(webhooks, account_id)
    assert [attempt.started_at for attempt in delivery.attempts] == [noon] * 3


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Answer(302, {"Location": "http://127.0.0.1:9/"}), 302, None),
        (Answer(500, body=Body.ENDLESS), 500, None),
        (Answer(body=Body.HANGING), None, "no complete response within 0.2 seconds"),
        (Answer(body=Body.DRIPPING), None, "no complete response within 0.2 seconds"),
        (Answer(body=Body.CUT), None, "the connection broke before the response was complete"),
    ],
    ids=["redirects", "answers without end", "hangs", "drips", "cuts the line"],
)
async def test_receiver_that_misbehaves_is_tried_again_and_the_reason_is_kept(
    database: Database, receiver: Receiver, account_id: UUID, answer: Answer, status: int | None, error: str | None
) -> None:
    settings = loopback_settings(timeout=0.2)
    webhooks = WebhookService(database, Encryptor(SECRET_KEY), settings)
    client = GuardedClient(settings)
    await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(answer)
    assert await attempt_next(Deliverer(database, client, webhooks, settings, limit=LANE)) is Outcome.RETRY
    await client.close()
    (attempt,) = (await only_delivery(webhooks, account_id)).attempts
    assert (attempt.status_code, attempt.error) == (status, error)


async def test_url_that_may_not_be_called_is_not_called_though_it_was_stored(
    database: Database, webhooks: WebhookService, receiver: Receiver, account_id: UUID
) -> None:
    for settings, error in (
        (WebhookSettings(allow_http=True), "the URL must lead to the public internet"),
        (WebhookSettings(), "the URL must start with https://"),
    ):
        client = GuardedClient(settings)
        await owe(database, webhooks, account_id, receiver.url, subject_id=account_id)
        assert await attempt_next(Deliverer(database, client, webhooks, settings, limit=LANE)) is Outcome.RETRY
        await client.close()
        (attempt,) = (await webhooks.deliveries(account_id, account_id))[-1].attempts
        assert str(attempt.error).startswith(error)
    assert receiver.received == []


async def test_what_a_refusing_receiver_says_is_kept_as_harmless_text(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(Answer(400, body=b'{"detail": "bad\x00 \x1b[31msignature \xff"}\n' + b"x" * 10_000))
    assert await attempt_next(deliverer) is Outcome.RETRY
    (attempt,) = (await only_delivery(webhooks, account_id)).attempts
    assert attempt.reply is not None
    assert attempt.reply.startswith('{"detail": "bad\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}[31msignature')
    assert len(attempt.reply) == 1000


async def test_two_workers_never_claim_the_same_delivery(
    database: Database, webhooks: WebhookService, account_id: UUID
) -> None:
    for number in range(10):
        await owe(database, webhooks, account_id, f"http://127.0.0.1:{number + 1}/")
    async with database.begin() as one, database.begin() as other:
        # Both transactions are open at the same time, and neither waits for the other.
        first = await claims.claim(one, 6, lease=60, shares=NOTHING_KNOWN)
        second = await claims.claim(other, 6, lease=60, shares=NOTHING_KNOWN)
    assert (len(first), len(second)) == (6, 4)
    assert not {due.id for due in first} & {due.id for due in second}
    async with database.begin() as conn:
        assert await claims.claim(conn, 6, lease=60, shares=NOTHING_KNOWN) == []


async def test_lease_outlasts_the_attempt(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, settings: WebhookSettings, account_id: UUID
) -> None:
    await owe(database, webhooks, account_id, "http://127.0.0.1:9/")
    await claim_all(deliverer, 1)
    assert await seconds_until_next(database) > settings.timeout + 10


async def test_worker_that_lost_its_lease_records_nothing(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(500, 200)
    (paused,) = await claim_all(deliverer, 1)
    await make_due(database)
    (current,) = await claim_all(deliverer, 1)
    assert await deliverer.advance(paused) is Outcome.LOST_LEASE
    assert (await only_delivery(webhooks, account_id)).attempts == ()
    assert await deliverer.advance(current) is Outcome.DELIVERED
    for late in (paused, current):
        assert await deliverer.advance(late) is Outcome.LOST_LEASE
    delivery = await only_delivery(webhooks, account_id)
    assert [(attempt.number, attempt.status_code) for attempt in delivery.attempts] == [(1, 200)]
    assert delivery.state == "delivered"


async def test_worker_killed_between_post_and_record_delivers_again_under_the_same_id(
    database: Database,
    postgres_url: str,
    webhooks: WebhookService,
    deliverer: Deliverer,
    receiver: Receiver,
    account_id: UUID,
) -> None:
    event_id = await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(Answer(body=Body.HANGING))
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.webhooks.attempt_child", postgres_url)
    try:
        await receiver.wait_for(1)
    finally:
        worker.kill()
        await worker.wait()
    assert await claim_all(deliverer, 1) == []
    await make_due(database)
    assert await attempt_next(deliverer) is Outcome.DELIVERED
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == encode(Prefix.EVENT, event_id)
    assert first.body == second.body
    assert [attempt.number for attempt in (await only_delivery(webhooks, account_id)).attempts] == [1]


async def test_unheard_of_host_gets_one_slot_until_it_responds(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    for _ in range(HOST_SHARE + 4):
        await owe(database, webhooks, account_id, receiver.url)
    (first,) = await claim_all(deliverer, LANE)
    assert await deliverer.advance(first) is Outcome.DELIVERED
    assert len(await claim_all(deliverer, LANE)) == HOST_SHARE


async def test_hanging_host_that_used_to_respond_holds_up_no_other(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    async with running_receiver() as hanging:
        for _ in range(2 * HOST_SHARE):
            await owe(database, webhooks, account_id, hanging.url)
        assert await attempt_next(deliverer) is Outcome.DELIVERED
        await owe(database, webhooks, account_id, receiver.url)
        hanging.will_answer(*[Answer(body=Body.HANGING)] * HOST_SHARE)
        claimed = await claim_all(deliverer, LANE)
        assert Counter(due.host for due in claimed) == {
            f"127.0.0.1:{hanging.port}": HOST_SHARE,
            f"127.0.0.1:{receiver.port}": 1,
        }
        under_way = [asyncio.create_task(deliverer.advance(due)) for due in claimed]
        await receiver.wait_for(1)
        await hanging.wait_for(1 + HOST_SHARE)
        assert await claim_all(deliverer, LANE - len(under_way)) == []
        assert (await deliverer.next_due() or 1) > 0
        hanging.release()
        assert await asyncio.gather(*under_way) == [Outcome.DELIVERED] * (HOST_SHARE + 1)
    # The host's slots are free again.
    assert len(await claim_all(deliverer, LANE)) == HOST_SHARE - 1


async def test_silent_hosts_together_get_a_quarter_of_the_lane(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    refusing = [f"http://127.0.0.{number}:9/" for number in range(1, 13)]
    for url in refusing:
        await owe(database, webhooks, account_id, url)
    assert [await deliverer.advance(due) for due in await claim_all(deliverer, LANE)] == [Outcome.RETRY] * len(refusing)
    await make_due(database)
    await owe(database, webhooks, account_id, receiver.url)
    deliverer.limit = 16
    claimed = await claim_all(deliverer, 16)
    assert Counter(due.host == f"127.0.0.1:{receiver.port}" for due in claimed) == {False: 4, True: 1}


async def test_attempts_that_end_together_are_recorded_each_with_its_own_outcome(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, account_id: UUID
) -> None:
    async with AsyncExitStack() as stack:
        expected = {}
        for status in (200, 500, 410, 204, 503):
            receiver = await stack.enter_async_context(running_receiver())
            receiver.will_answer(status)
            expected[receiver.url] = status
            await owe(database, webhooks, account_id, receiver.url, subject_id=account_id)
        await asyncio.gather(*(deliverer.advance(due) for due in await claim_all(deliverer, LANE)))
    found = await webhooks.deliveries(account_id, account_id)
    assert {delivery.url: [attempt.status_code for attempt in delivery.attempts] for delivery in found} == {
        url: [status] for url, status in expected.items()
    }
    assert [delivery.state for delivery in found] == ["delivered", "pending", "failed", "delivered", "pending"]
    assert [delivery.ended_at is None for delivery in found] == [False, True, False, False, True]


async def test_outcome_that_cannot_be_written_costs_only_its_own_delivery(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, account_id: UUID
) -> None:
    for number in range(1, 4):
        await owe(database, webhooks, account_id, f"http://127.0.0.{number}:9/", subject_id=account_id)
    attempts = AttemptWriter(database)
    unwritable = "no text of Postgres: \x00"
    made = [
        Attempted(due, Attempt(1, datetime.now(UTC), 1, error=unwritable if number == 1 else "away"), RetryIn(60))
        for number, due in enumerate(await claim_all(deliverer, LANE))
    ]
    first, second, third = await asyncio.gather(*map(attempts.record, made), return_exceptions=True)
    assert (first, third) == (True, True)
    assert isinstance(second, DBAPIError)
    found = await webhooks.deliveries(account_id, account_id)
    assert sorted(len(delivery.attempts) for delivery in found) == [0, 1, 1]


async def test_worker_that_is_stopped_while_recording_records_all_the_same(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, account_id: UUID
) -> None:
    await owe(database, webhooks, account_id, "http://127.0.0.1:9/")
    (due,) = await claim_all(deliverer, 1)
    attempts = AttemptWriter(database)
    made = Attempted(due, Attempt(1, datetime.now(UTC), 1, status_code=200), Delivered())
    step = asyncio.create_task(attempts.record(made))
    await asyncio.sleep(0)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await attempts.record(made) is False  # it is written already
    assert (await only_delivery(webhooks, account_id)).state == "delivered"


async def test_unusable_secret_is_our_own_fault_and_costs_the_receiver_no_attempt(
    database: Database,
    client: GuardedClient,
    webhooks: WebhookService,
    settings: WebhookSettings,
    receiver: Receiver,
    account_id: UUID,
) -> None:
    await webhooks.secret(account_id)
    await owe(database, webhooks, account_id, receiver.url)
    misconfigured = WebhookService(database, Encryptor("another key"), settings)
    with capture_logs() as logs:
        assert await attempt_next(Deliverer(database, client, misconfigured, settings, limit=LANE)) is Outcome.BROKEN
    assert [entry["log_level"] for entry in logs] == ["error"]
    delivery = await only_delivery(webhooks, account_id)
    assert (delivery.state, delivery.attempts) == ("pending", ())
    assert receiver.received == []


async def test_database_that_is_away_does_not_take_the_lane_down(
    database: Database,
    client: GuardedClient,
    webhooks: WebhookService,
    deliverer: Deliverer,
    settings: WebhookSettings,
    account_id: UUID,
) -> None:
    await owe(database, webhooks, account_id, "http://127.0.0.1:9/")
    (due,) = await claim_all(deliverer, 1)
    nowhere = DatabaseSettings.model_validate({"url": "postgresql://nobody@127.0.0.1:9/none"})
    away = Database.open(nowhere, application="tests")
    cut_off = WebhookService(away, Encryptor(SECRET_KEY), settings)
    assert await Deliverer(away, client, cut_off, settings, limit=LANE).advance(due) is Outcome.BROKEN
    await away.close()


async def test_cancelled_attempt_leaves_the_delivery_to_the_next_worker(
    database: Database, webhooks: WebhookService, deliverer: Deliverer, receiver: Receiver, account_id: UUID
) -> None:
    await owe(database, webhooks, account_id, receiver.url)
    receiver.will_answer(Answer(body=Body.HANGING))
    (due,) = await claim_all(deliverer, 1)
    attempt = asyncio.create_task(deliverer.advance(due))
    await receiver.wait_for(1)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await make_due(database)
    assert await attempt_next(deliverer) is Outcome.DELIVERED


async def test_secret_is_in_no_row_and_no_log_in_clear(
    database: Database,
    webhooks: WebhookService,
    deliverer: Deliverer,
    receiver: Receiver,
    account_id: UUID,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = await webhooks.secret(account_id)
    await owe(database, webhooks, account_id, f"{receiver.url}?token=canary")
    receiver.will_answer(500)
    with capture_logs() as logs:
        assert await attempt_next(deliverer) is Outcome.RETRY
        await make_due(database)
        assert await attempt_next(deliverer) is Outcome.DELIVERED
    async with database.read() as conn:
        rows = [
            str(row)
            for table in ("webhook_secrets", "webhook_deliveries", "webhook_attempts")
            for row in await conn.execute(text(f"select encode(t::text::bytea, 'escape') from {table} t"))
        ]
        stored = (await conn.execute(text("select sealed from webhook_secrets"))).scalar_one()
    logged = json.dumps(logs, default=str) + caplog.text
    encoded = secret.removeprefix("whsec_")
    for form in (secret, encoded, encoded.encode().hex()):
        assert form not in "\n".join(rows)
        assert form not in logged
        assert form.encode() not in stored
    assert "canary" not in logged
