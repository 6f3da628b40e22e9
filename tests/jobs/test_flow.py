"""The main job, end to end: a prompt goes in; a stored video and a signed webhook come out."""

import asyncio
import hashlib
import io
import json
import logging
from datetime import datetime
from itertools import accumulate

import av
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from standardwebhooks import Webhook

from app.infra.queue import QUEUE_NAME
from app.settings import EgressSettings, Settings
from tests.support.forward_proxy import running_forward_proxy
from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.receiver import running_receiver


async def test_a_prompt_becomes_a_stored_playable_video(gateway: Gateway) -> None:
    job = await gateway.create(seconds=2, size="128x96", metadata={"order": "7"})
    assert (job["status"], job["phase"], job["progress"]) == ("queued", "waiting", 0)
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "succeeded", ended
    assert ended["metadata"] == {"order": "7"}
    assert ended["progress"] == 100
    assert ended["phase"] is None
    video = ended["assets"]["video"]
    assert (video["codec"], video["width"], video["height"], video["seconds"]) == ("h264", 128, 96, 2.0)
    content = (await gateway.client.get(video["content_url"])).content
    assert hashlib.sha256(content).hexdigest() == video["sha256"]
    with av.open(io.BytesIO(content), "r") as container:
        assert len(list(container.decode(video=0))) == 48
    poster = await gateway.client.get(ended["assets"]["poster"]["content_url"])
    assert poster.headers["content-type"] == "image/jpeg"


async def test_the_ledger_tells_what_was_submitted_and_what_it_cost(gateway: Gateway) -> None:
    job = await gateway.create(model="runway/gen4.5", seconds=2, size="1280x720")
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "succeeded", ended
    assert ended["cost"] == {"estimated": "0.24", "charged": "0.24", "certainty": "certain", "currency": "USD"}
    (submission,) = await gateway.submissions(job["id"])
    assert submission["connection"] == "sandbox-runway"
    assert submission["state"] == "done"
    assert (submission["cost"], submission["certainty"]) == ("0.24", "certain")
    intent = datetime.fromisoformat(submission["created_at"])
    accepted = datetime.fromisoformat(submission["accepted_at"])
    assert intent <= accepted <= datetime.fromisoformat(submission["send_deadline"])
    books = (await gateway.sandbox.get("/ledger", params={"ref": submission["id"]})).json()["entries"]
    assert [entry["remote_id"] for entry in books] == [submission["remote_id"]]


async def test_the_webhook_comes_signed_and_says_what_happened(gateway: Gateway) -> None:
    secret = (await gateway.client.get("/v1/webhook-secret")).json()["secret"]
    async with running_receiver() as receiver:
        job = await gateway.create(webhook_url=receiver.url, metadata={"order": "7"})
        (received,) = await receiver.wait_for(1)
    event = Webhook(secret).verify(received.body, dict(received.headers))
    assert event["type"] == "job.succeeded"
    ended = await gateway.get(job["id"])
    data = event["data"]
    assert (data["id"], data["status"], data["metadata"]) == (job["id"], "succeeded", {"order": "7"})
    assert data["assets"] == ended["assets"]
    deliveries = (await gateway.client.get(f"/v1/jobs/{job['id']}/deliveries")).json()
    assert [(item["event_id"], item["event_type"]) for item in deliveries] == [
        (received.headers["webhook-id"], "job.succeeded")
    ]


async def test_a_failure_is_told_in_our_words_and_by_webhook(gateway: Gateway) -> None:
    async with running_receiver() as receiver:
        job = await gateway.create(f"{PROMPT} [fail:moderation]", webhook_url=receiver.url)
        (received,) = await receiver.wait_for(1)
    ended = await gateway.get(job["id"])
    assert ended["status"] == "failed"
    assert ended["error"]["fault"] == "prompt"
    assert json.loads(received.body)["data"]["error"] == ended["error"]
    assert json.loads(received.body)["type"] == "job.failed"


async def test_events_come_in_order_and_go_on_where_one_left_off(gateway: Gateway) -> None:
    job = await gateway.create()
    lines: list[str] = []
    async with gateway.client.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in stream.aiter_lines()]
    types = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    steps = [kind for kind in types if kind != "job.progress"]
    assert steps == ["job.queued", "job.submitting", "job.started", "job.storing", "job.succeeded"]
    assert ids == sorted(ids, key=int)
    url = f"/v1/jobs/{job['id']}/events"
    async with gateway.client.stream("GET", url, headers={"Last-Event-ID": ids[-2]}) as stream:
        rest = [line async for line in stream.aiter_lines()]
    assert [line for line in rest if line.startswith("event: ")] == ["event: job.succeeded"]
    versions = [json.loads(line.removeprefix("data: "))["data"]["version"] for line in lines if line[:5] == "data:"]
    assert versions == list(range(1, len(versions) + 1))


async def test_many_jobs_at_once_are_each_submitted_once(gateway: Gateway) -> None:
    jobs = await asyncio.gather(*(gateway.create() for _ in range(30)))
    ended = await asyncio.gather(*(gateway.ended(job["id"]) for job in jobs))
    assert {job["status"] for job in ended} == {"succeeded"}
    purchases = await gateway.purchases()
    assert purchases["accepted"] == 30
    assert purchases["references_charged_twice"] == []


async def test_jobs_over_the_limit_wait_their_turn_instead_of_failing(settings: Settings, sandbox_url: str) -> None:
    connection = settings.connections["sandbox"].model_copy(update={"max_concurrent": 2})
    narrow = settings.model_copy(update={"connections": {"sandbox": connection}})
    async with running_gateway(narrow, sandbox_url, workers=2) as gateway:
        jobs = await asyncio.gather(*(gateway.create() for _ in range(8)))
        ended = await asyncio.gather(*(gateway.ended(job["id"]) for job in jobs))
        assert {job["status"] for job in ended} == {"succeeded"}
        async with gateway.resources.database.read() as database:
            rows = await database.execute(
                text("SELECT type, created_at FROM events WHERE type IN ('job.submitting', 'job.storing')")
            )
            times = sorted((at, 1 if kind == "job.submitting" else -1) for kind, at in rows)
    under_way = list(accumulate(step for _, step in times))
    assert max(under_way) == 2


async def test_a_ring_that_comes_late_is_no_error(
    gateway: Gateway, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis.from_url(redis_url) as redis:
        # What arq keeps of a ring whose payload has expired, as after an hour without workers
        await redis.zadd(QUEUE_NAME, {f"late-{number}": 1 for number in range(20)})
        while await redis.zcard(QUEUE_NAME):  # noqa: ASYNC110  # arq has no event for it
            await asyncio.sleep(0.01)
    await gateway.ended((await gateway.create())["id"])
    assert [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR or line.exc_info] == []


async def test_a_job_runs_where_a_proxy_is_the_only_way_out(settings: Settings, sandbox_url: str) -> None:
    async with running_forward_proxy() as proxy, running_receiver() as receiver:
        egress = EgressSettings.model_validate({"proxy": proxy.url})
        async with running_gateway(settings.model_copy(update={"egress": egress}), sandbox_url) as gateway:
            job = await gateway.ended((await gateway.create(webhook_url=receiver.url))["id"])
            assert job["status"] == "succeeded", job
            await receiver.wait_for(1)
        asked = {(line.split()[0], line.split()[1].rpartition("/")[2]) for line in proxy.asked}
        assert {("POST", "videos"), ("POST", "hook")} <= asked
