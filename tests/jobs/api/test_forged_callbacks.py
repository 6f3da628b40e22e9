"""A callback may lie, be forged, come again, or be meant for another: nothing changes but what the provider says."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from app.ids import ALPHABET, Prefix, encode, new_id
from app.infra import migrate
from app.infra.queue import Lane
from app.settings import Settings
from tests.support.callback_fixtures import (
    BUY,
    CALLBACKS,
    KLING,
    LOOK_UP,
    NO_TASKS,
    READ,
    body_of,
    bought,
    opened,
    signed,
)
from tests.support.gateway import PROMPT, Gateway
from tests.support.http_proxy import Between, Meddle
from tests.support.http_server import Say
from tests.support.lane_driver import LaneDriver

OTHER_SECRET = "whsec_b3RoZXJzZWNyZXRvdGhlcnNlY3JldG90aGVyc2VjcmU="
BODY = body_of("1234567890")


async def everything(hands: LaneDriver) -> list[Any]:
    """All that the gateway has written down."""
    tables = [table.name for table in migrate.all_tables().sorted_tables]
    return [await hands.rows(f"SELECT to_jsonb({table}) AS row FROM {table} ORDER BY row") for table in tables]


def seen_of(reply: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that an answer shows, but for the time of day."""
    return reply.status_code, reply.content, {name: value for name, value in reply.headers.items() if name != "date"}


def other_letter(letter: str) -> str:
    return ALPHABET[(ALPHABET.index(letter) + 1) % 8] if letter in ALPHABET else "0"


# Who may call -----------------------------------------------------------------------------------------------------


async def test_a_token_that_we_did_not_make_is_a_404_like_any_other(
    reachable: Settings, kling: Between, front: Between
) -> None:
    second = reachable.connections[KLING].model_copy(update={"models": ("kling/kling-2.6",)})
    two = reachable.model_copy(update={"connections": {**reachable.connections, "other-kling": second}})
    async with opened(two, kling, front) as gateway, httpx2.AsyncClient(base_url=gateway.url, verify=False) as caller:
        front.on("POST", CALLBACKS, Meddle.DROP)
        hands = LaneDriver(gateway.resources)
        job, another = await bought(gateway, hands), await bought(gateway, hands)
        token, other = job.path.rpartition("/")[2], another.path.rpartition("/")[2]
        proof = token.partition(".")[2]
        flipped = [token[:at] + other_letter(letter) + token[at + 1 :] for at, letter in enumerate(token)]
        tokens = [
            *flipped,
            token.upper(),
            token[:-1],
            f"{token}a",
            f"{token}%20",
            proof,
            job.submission,
            f"{job.submission}.",
            f"{job.submission}.{other.partition('.')[2]}",
            f"{another.submission}.{proof}",
            f"{encode(Prefix.SUBMISSION, new_id())}.{proof}",
            "%00",
            "%ff%fe",
            "😀",
            "x" * 2000,
        ]
        paths = [f"{CALLBACKS}{KLING}/{one}" for one in tokens]
        paths += [f"{CALLBACKS}{name}/{token}" for name in ("other-kling", "sandbox", "nowhere", KLING.upper(), "%00")]
        before, asked = await everything(hands), len(kling.asked)
        headers = {**signed(BODY), "X-Request-Id": "the-same"}
        answers = [seen_of(await caller.post(path, content=BODY, headers=headers)) for path in paths]
        assert answers[0][0] == 404
        assert len(flipped) == len(token)
        assert [path for path, answer in zip(paths, answers, strict=True) if answer != answers[0]] == []
        assert await everything(hands) == before
        assert len(kling.asked) == asked


async def test_no_key_is_asked_for_and_nothing_of_an_account_is_told(
    quiet: Gateway, caller: httpx2.AsyncClient
) -> None:
    job = await bought(quiet, LaneDriver(quiet.resources))
    for headers in ({}, {"Authorization": "Bearer nobody's"}, {"Authorization": quiet.client.headers["authorization"]}):
        reply = await caller.post(job.path, content=BODY, headers={**signed(BODY), **headers})
        assert (reply.status_code, reply.content) == (200, b'{"status":"noted"}')
    for method in ("GET", "PUT", "DELETE"):
        assert (await caller.request(method, job.path)).status_code == 405


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (BODY, {}),
        (BODY, signed(BODY, OTHER_SECRET)),
        (BODY, signed(BODY, at=datetime.now(UTC) - timedelta(minutes=10))),
        (BODY, signed(BODY, at=datetime.now(UTC) + timedelta(days=1))),
        (BODY, signed(BODY + b" ")),
        (BODY, {**signed(BODY), "webhook-id": "1235"}),
        (BODY, {**signed(BODY), "webhook-signature": "v1,"}),
    ],
    ids=["unsigned", "other secret", "old", "early", "other body", "other id", "empty signature"],
)
async def test_a_signature_that_is_not_the_provider_s_changes_nothing(
    quiet: Gateway, caller: httpx2.AsyncClient, body: bytes, headers: Mapping[str, str]
) -> None:
    hands = LaneDriver(quiet.resources)
    job = await bought(quiet, hands)
    before = await everything(hands)
    reply = await caller.post(job.path, content=body, headers=dict(headers))
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")
    assert await everything(hands) == before


async def test_garbage_changes_nothing_even_when_it_is_signed(quiet: Gateway, caller: httpx2.AsyncClient) -> None:
    hands = LaneDriver(quiet.resources)
    job = await bought(quiet, hands)
    before = await everything(hands)
    bodies = [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"1234567890"',
        b"{}",
        b'{"id": 1234567890}',
        b'{"id": null}',
        b'{"id": ""}',
        b'{"id": ".."}',
        b'{"id": "a b"}',
        b'{"id": "\\u0000"}',
        b'{"id": "\\ud800"}',
        json.dumps({"id": "9" * 2001}).encode(),
        b"[" * 100_000,
        b'{"id": 1e999}',
    ]
    for body in bodies:
        reply = await caller.post(job.path, content=body, headers=signed(body))
        assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request"), body[:100]
    huge = body_of("1", "x" * 300_000)
    reply = await caller.post(job.path, content=huge, headers=signed(huge))
    assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")
    assert await everything(hands) == before


# What it says -----------------------------------------------------------------------------------------------------


async def test_whatever_callbacks_say_in_whatever_order_the_provider_decides(
    quiet: Gateway, caller: httpx2.AsyncClient
) -> None:
    hands = LaneDriver(quiet.resources)
    job = await bought(quiet, hands, f"{PROMPT} [never]")
    remote_id = await job.remote_id()
    for status in ("succeeded", "failed", "submitted", "succeeded", "processing", "nonsense"):
        await job.tell(caller, remote_id, status)
        await hands.work(Lane.POLL, Lane.STORE)
        assert (await job.job())["phase"] == "rendering"
    (row,) = await job.rows()
    assert (row["state"], row["remote_id"]) == ("accepted", remote_id)


async def test_a_callback_after_the_end_changes_nothing(quiet: Gateway, caller: httpx2.AsyncClient) -> None:
    hands = LaneDriver(quiet.resources)
    job = await bought(quiet, hands, f"{PROMPT} [fail:internal]")
    remote_id = await job.remote_id()
    while (await job.job())["status"] != "failed":
        await job.tell(caller, remote_id)
        await hands.work(Lane.POLL)
    before = await everything(hands)
    for named in (remote_id, "1234567890"):
        await job.tell(caller, named)
        await hands.settle()
    assert await everything(hands) == before


async def test_a_callback_that_names_another_record_than_ours_changes_nothing(
    quiet: Gateway, caller: httpx2.AsyncClient
) -> None:
    hands = LaneDriver(quiet.resources)
    mine, other = await bought(quiet, hands, f"{PROMPT} [never]"), await bought(quiet, hands, f"{PROMPT} [never]")
    before = await mine.rows() + await other.rows()
    for named in (await other.remote_id(), "1234567890"):
        await mine.tell(caller, named)
        await hands.work(Lane.POLL)
    assert await mine.rows() + await other.rows() == before


async def test_a_lost_reply_takes_no_record_that_belongs_to_another_job(
    quiet: Gateway, caller: httpx2.AsyncClient, kling: Between
) -> None:
    hands = LaneDriver(quiet.resources)
    other = await bought(quiet, hands)
    kling.on("POST", BUY, Meddle.LOSE)
    mine = await bought(quiet, hands)
    await mine.tell(caller, await other.remote_id())
    await hands.pass_time(60)
    await hands.work(Lane.RESOLVE)
    (row,) = await mine.rows()
    assert (row["state"], row["remote_id"]) == ("accepted", await mine.remote_id())
    assert (await other.rows())[0]["remote_id"] == await other.remote_id()


async def test_a_lost_reply_is_looked_up_whatever_unknown_record_is_named(
    quiet: Gateway, caller: httpx2.AsyncClient, kling: Between
) -> None:
    hands = LaneDriver(quiet.resources)
    kling.on("POST", BUY, Meddle.LOSE)
    kling.on("GET", f"{READ}unreadable", Say("broken", 500))
    for named in ("1234567890", "unreadable", "one,two"):
        job = await bought(quiet, hands)
        await job.tell(caller, named)
        await hands.work(Lane.RESOLVE)
        await hands.pass_time(60)
        await hands.work(Lane.RESOLVE)
        (row,) = await job.rows()
        assert (row["state"], row["remote_id"]) == ("accepted", await job.remote_id())


async def test_a_callback_is_never_a_proof_of_absence(reachable: Settings, kling: Between, front: Between) -> None:
    """However often it comes: before the provider must show a record no absence counts, and two looks need a pause."""
    front.on("POST", CALLBACKS, Meddle.DROP)
    kling.on("POST", BUY, Meddle.LOSE)
    kling.on("GET", LOOK_UP, NO_TASKS)
    kling.on("GET", READ, NO_TASKS)
    connection = reachable.connections[KLING].model_copy(update={"visibility_delay": 300})
    jobs = reachable.jobs.model_copy(update={"lookup_pause": 120})  # a pause that no load fills
    slow = reachable.model_copy(update={"connections": {KLING: connection}, "jobs": jobs})
    async with opened(slow, kling, front) as gateway, httpx2.AsyncClient(base_url=gateway.url, verify=False) as caller:
        hands = LaneDriver(gateway.resources)
        job = await bought(gateway, hands)
        remote_id = await job.remote_id()
        for pause in (0, 1, 150, 200, 1, 1):
            await hands.pass_time(pause)
            for named in (remote_id, "1234567890", remote_id):
                await job.tell(caller, named)
                await hands.work(Lane.RESOLVE, Lane.SUBMIT)
        assert (await job.job())["phase"] == "confirming"
        kling.off("GET", READ)
        await job.tell(caller, remote_id)
        await hands.work(Lane.RESOLVE)
        (row,) = await job.rows()
        assert (row["state"], row["remote_id"]) == ("accepted", remote_id)
    assert len(kling.seen("POST", BUY)) == 1


async def test_what_was_refused_stays_refused_when_a_callback_names_nothing(
    quiet: Gateway, caller: httpx2.AsyncClient
) -> None:
    hands = LaneDriver(quiet.resources)
    job = await bought(quiet, hands, f"{PROMPT} [fail:prompt]")
    before = await job.job()
    assert (before["status"], before["cost"]["certainty"]) == ("failed", "none")
    await job.tell(caller, "1234567890")
    await hands.work(Lane.RECONCILE)
    assert await hands.value("SELECT count(*) FROM watches") == 1
    await hands.pass_time(700)
    await hands.work(Lane.RECONCILE)
    assert await hands.value("SELECT count(*) FROM watches") == 0
    after = await job.job()
    assert (after["version"], after["status"], after["cost"]) == (before["version"], "failed", before["cost"])
    (row,) = await job.rows()
    assert (row["state"], row["remote_id"]) == ("rejected", None)


async def test_a_worker_that_is_sending_keeps_its_lease_whatever_callbacks_come(
    quiet: Gateway, caller: httpx2.AsyncClient
) -> None:
    hands = LaneDriver(quiet.resources)
    await quiet.create(PROMPT, model="kling/kling-3.0", seconds=3, size="1280x720")
    (step,) = await hands.claim(Lane.SUBMIT)
    before = await hands.rows("SELECT * FROM schedule")
    ((public_id, submission),) = await hands.rows("SELECT job_id, id FROM submissions")
    url = quiet.resources.engine.callbacks.of(KLING, submission)
    assert url is not None
    path, body = CALLBACKS + url.partition(CALLBACKS)[2], body_of("1234567890")
    assert (await caller.post(path, content=body, headers=signed(body))).status_code == 200
    assert await hands.rows("SELECT * FROM schedule") == before
    await step()
    ((state, remote_id),) = await hands.rows(
        "SELECT state, remote_id FROM submissions WHERE job_id = :id", id=public_id
    )
    assert state == "accepted"
    assert remote_id != "1234567890"
