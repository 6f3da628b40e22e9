"""A purchase outlives its job: what becomes of it later is written down, and a video that comes late is kept."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook

from app.failpoints import Failpoint
from app.infra.queue import Lane
from app.settings import Settings
from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.http_proxy import Asked, Between, behind, between
from tests.support.http_server import Say
from tests.support.lane_driver import LaneDriver, Pause, inner
from tests.support.receiver import running_receiver
from tests.support.scripted_runway import ORDER, Upstream, running_upstream, served_by

TASK = "/runway/v1/tasks/"
VIDEO = "/openai/v1/videos/"


def still_rendering(asked: Asked) -> Say:
    """What either provider says of a render that goes on."""
    name = asked.path.rpartition("/")[2]
    return Say(f'{{"id": "{name}", "status": "{"RUNNING" if TASK in asked.path else "in_progress"}"}}')


def ended_as(status: str, credits_: int | None = None) -> Say:
    """What Runway says of the upstream's task that has ended."""
    cost = "" if credits_ is None else f', "cost": {{"credits": {credits_}}}'
    return Say(f'{{"id": "task-1", "status": "{status}"{cost}}}')


NOT_FOUND = Say('{"error": "there is no such task"}', 404)


@pytest.fixture
async def proxy(sandbox_url: str) -> AsyncIterator[Between]:
    async with between(sandbox_url) as running:
        yield running


@pytest.fixture
async def meddled(settings: Settings, sandbox_url: str, proxy: Between) -> AsyncIterator[Gateway]:
    """A gateway with one worker, and a proxy between it and the sandbox."""
    async with running_gateway(behind(settings, proxy), sandbox_url) as gateway:
        await gateway.sandbox.delete("/ledger")
        yield gateway


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as running:
        yield running


@pytest.fixture
async def given_up(
    settings: Settings, sandbox_url: str, upstream: Upstream
) -> AsyncIterator[tuple[Gateway, LaneDriver]]:
    """A gateway without workers, whose one job was given up at its deadline and is watched on."""
    async with running_gateway(served_by(settings, upstream), sandbox_url, workers=0) as gateway:
        hands = LaneDriver(gateway.resources)
        await gateway.create(**ORDER)
        await hands.work(Lane.SUBMIT)
        await hands.execute("UPDATE jobs SET deadline_at = clock_timestamp()")
        await hands.pass_time(1)
        await hands.work(Lane.POLL)
        yield gateway, hands


async def only_job(gateway: Gateway) -> tuple[dict[str, Any], dict[str, Any]]:
    """The one job and its one submission."""
    (job,) = (await gateway.client.get("/v1/jobs")).json()["data"]
    (submission,) = await gateway.submissions(job["id"])
    return job, submission


async def look(hands: LaneDriver, *, after: float = 60) -> None:
    """One look at what is watched, after so many seconds."""
    await hands.pass_time(after)
    await hands.execute("UPDATE watches SET next_at = clock_timestamp()")
    await hands.work(Lane.RECONCILE)


async def watched(hands: LaneDriver) -> bool:
    return bool(await hands.rows("SELECT 1 FROM watches"))


async def timed_out(gateway: Gateway, prompt: str, **fields: Any) -> UUID:
    """A job whose deadline passes while its provider renders."""
    job = await gateway.create(prompt, **fields)
    await gateway.reached(job["id"], "job.started")
    await LaneDriver(gateway.resources).execute("UPDATE jobs SET deadline_at = clock_timestamp()")
    ended = await gateway.ended(job["id"])
    assert (ended["status"], ended["error"]["code"], ended["assets"]) == ("failed", "timeout", None)
    return inner(job["id"])


async def test_a_video_that_comes_after_our_deadline_is_kept_and_told(meddled: Gateway, proxy: Between) -> None:
    proxy.on("GET", TASK, still_rendering)
    secret = (await meddled.client.get("/v1/webhook-secret")).json()["secret"]
    async with running_receiver() as receiver:
        job_id = await timed_out(meddled, f"{PROMPT} [no-cancel]", **ORDER, webhook_url=receiver.url)
        assert len(proxy.seen("DELETE", TASK)) == 1
        job, submission = await only_job(meddled)
        assert (submission["state"], submission["late"], submission["cost"]) == ("abandoned", False, None)
        proxy.off("GET", TASK)
        event = await LaneDriver(meddled.resources).event(job_id, "job.video_late")
        failed, late = await receiver.wait_for(2)
    job, submission = await only_job(meddled)
    assert (job["status"], job["error"]["code"]) == ("failed", "timeout")
    assert job["cost"] == {"estimated": "0.24", "charged": "0.24", "certainty": "certain", "currency": "USD"}
    assert (submission["state"], submission["late"]) == ("done", True)
    assert (submission["cost"], submission["certainty"]) == ("0.24", "certain")
    video = job["assets"]["video"]
    content = (await meddled.client.get(video["content_url"])).content
    assert hashlib.sha256(content).hexdigest() == video["sha256"]
    told = Webhook(secret).verify(late.body, dict(late.headers))
    assert (told["type"], Webhook(secret).verify(failed.body, dict(failed.headers))["type"]) == (
        "job.video_late",
        "job.failed",
    )
    assert told["data"]["assets"] == job["assets"]
    assert event.data == {**told["data"], "assets": {kind: asset["id"] for kind, asset in job["assets"].items()}}
    assert (told["data"]["status"], told["data"]["cost"]) == ("failed", job["cost"])
    assert (await meddled.purchases())["accepted"] == 1
    assert not await watched(LaneDriver(meddled.resources))


async def test_a_late_video_is_kept_where_a_provider_cannot_cancel(meddled: Gateway, proxy: Between) -> None:
    proxy.on("GET", VIDEO, still_rendering)
    job_id = await timed_out(meddled, PROMPT)
    assert not proxy.seen("DELETE")
    proxy.off("GET", VIDEO)
    await LaneDriver(meddled.resources).event(job_id, "job.video_late")
    job, submission = await only_job(meddled)
    assert (job["status"], job["assets"]["video"]["width"], submission["late"]) == ("failed", 128, True)
    assert (await meddled.purchases())["accepted"] == 1


async def test_a_render_that_was_canceled_at_our_deadline_costs_what_the_provider_says(
    meddled: Gateway, proxy: Between
) -> None:
    job_id = await timed_out(meddled, f"{PROMPT} [never]", **ORDER)
    assert len(proxy.seen("DELETE", TASK)) == 1
    await LaneDriver(meddled.resources).event(job_id, "job.cost_changed", saying="'charged': '0.24'")
    job, submission = await only_job(meddled)
    assert (job["status"], job["assets"]) == ("failed", None)
    assert (submission["state"], submission["late"], submission["cost"]) == ("done", True, "0.24")
    assert not await watched(LaneDriver(meddled.resources))


@pytest.mark.parametrize(
    ("end", "charged", "certainty"),
    [
        (ended_as("FAILED", 0), "0.00", "none"),
        (ended_as("FAILED", 24), "0.24", "certain"),
        (ended_as("FAILED"), None, "certain"),
        (ended_as("CANCELLED", 0), "0.00", "none"),
        (ended_as("CANCELLED", 12), "0.12", "certain"),
    ],
)
async def test_a_late_end_without_a_video_settles_the_bill(
    given_up: tuple[Gateway, LaneDriver], upstream: Upstream, end: Say, charged: str | None, certainty: str
) -> None:
    gateway, hands = given_up
    upstream.status = end
    await look(hands)
    job, submission = await only_job(gateway)
    assert (job["status"], job["error"]["code"], job["assets"]) == ("failed", "timeout", None)
    assert (job["cost"]["charged"], job["cost"]["certainty"]) == (charged, certainty)
    assert (submission["state"], submission["late"]) == ("done", True)
    assert not await watched(hands)
    assert upstream.asked["POST"] == 1


async def test_a_submission_that_stays_unknown_upstream_is_let_go(
    given_up: tuple[Gateway, LaneDriver], upstream: Upstream
) -> None:
    gateway, hands = given_up
    upstream.status = NOT_FOUND
    await look(hands)
    await look(hands, after=599)
    assert await watched(hands)
    await look(hands, after=10)
    assert not await watched(hands)
    job, submission = await only_job(gateway)
    assert (submission["state"], job["cost"]["certainty"]) == ("abandoned", "certain")


async def test_a_submission_that_was_found_again_is_not_let_go_at_its_next_absence(
    given_up: tuple[Gateway, LaneDriver], upstream: Upstream
) -> None:
    _, hands = given_up
    upstream.status = NOT_FOUND
    await look(hands)
    upstream.status = Say('{"id": "task-1", "status": "RUNNING"}')
    await look(hands, after=300)
    upstream.status = NOT_FOUND
    await look(hands, after=400)
    assert await watched(hands)


async def test_a_render_that_was_lost_upstream_and_comes_back_is_kept(meddled: Gateway, proxy: Between) -> None:
    hands = LaneDriver(meddled.resources)
    proxy.on("GET", VIDEO, still_rendering)
    job = await meddled.create()
    await meddled.reached(job["id"], "job.started")
    proxy.on("GET", VIDEO, Say('{"error": {"message": "no such video"}}', 404))
    await hands.event(inner(job["id"]), "job.waiting")
    await hands.pass_time(700)
    ended = await meddled.ended(job["id"])
    assert ended["error"]["code"] == "upstream_lost"
    await meddled.stop_workers()
    await look(hands)
    assert await watched(hands)
    proxy.off("GET", VIDEO)
    await look(hands)
    assert (await meddled.get(job["id"]))["assets"]["video"]


async def test_a_watch_ends_after_its_time_and_the_doubt_stays_in_the_ledger(
    given_up: tuple[Gateway, LaneDriver], upstream: Upstream
) -> None:
    gateway, hands = given_up
    await look(hands, after=86_000)
    assert await watched(hands)
    looks = upstream.asked["GET"]
    await look(hands, after=1000)
    assert not await watched(hands)
    assert upstream.asked["GET"] == looks
    job, submission = await only_job(gateway)
    assert (submission["state"], job["cost"]["certainty"]) == ("abandoned", "certain")


async def test_looks_become_rarer_with_age_and_never_rarer_than_every_ten_minutes(
    given_up: tuple[Gateway, LaneDriver],
) -> None:
    _, hands = given_up
    pauses = []
    for age in (0, 500, 80_000):
        await look(hands, after=age)
        pauses.append(float(await hands.value("SELECT extract(epoch FROM next_at - clock_timestamp()) FROM watches")))
    assert pauses[0] < 1 < pauses[1] < 60 < pauses[2] <= 600


async def test_a_provider_that_says_nothing_usable_leaves_the_watch_alone(
    given_up: tuple[Gateway, LaneDriver], upstream: Upstream
) -> None:
    _, hands = given_up
    for status in (Say("<html>", 502), Say("{}"), Say('{"id": "task-1", "status": "RETICULATING"}')):
        upstream.status = status
        await look(hands)
        assert await watched(hands)
    assert upstream.asked["DELETE"] == 1


async def test_a_watch_waits_for_its_connection_to_be_configured_again(
    given_up: tuple[Gateway, LaneDriver], upstream: Upstream, settings: Settings, sandbox_url: str
) -> None:
    gateway, hands = given_up
    others = settings.model_copy(update={"connections": {"sandbox": settings.connections["sandbox"]}})
    async with running_gateway(others, sandbox_url, workers=0) as without:
        await look(LaneDriver(without.resources))
    assert await watched(hands)
    upstream.status = ended_as("FAILED", 0)
    await look(hands)
    assert (await only_job(gateway))[0]["cost"]["certainty"] == "none"


@pytest.mark.parametrize("place", [Failpoint.WATCH_CLAIMED, Failpoint.WATCH_ANSWERED, Failpoint.STORE_PUT])
async def test_a_worker_that_dies_in_a_look_loses_neither_video_nor_bill(
    meddled: Gateway, proxy: Between, place: Failpoint
) -> None:
    hands = LaneDriver(meddled.resources)
    proxy.on("GET", VIDEO, still_rendering)
    job_id = await timed_out(meddled, PROMPT)
    await meddled.stop_workers()  # a look under way would pass unseen, and find everything
    proxy.off("GET", VIDEO)
    async with Pause(place) as pause:
        await meddled.start_worker()
        await pause.reached()
        await pause.kill()
    await meddled.stop_workers()
    assert await watched(hands)
    await hands.pass_time(60)
    await meddled.start_worker()
    await hands.event(job_id, "job.video_late")
    _, submission = await only_job(meddled)
    assert (submission["state"], submission["cost"], submission["late"]) == ("done", "0.01", True)
    assert len(await hands.rows("SELECT 1 FROM events WHERE type = 'job.video_late'")) == 1


async def test_a_worker_that_slept_past_its_lease_adopts_nothing_twice(meddled: Gateway, proxy: Between) -> None:
    hands = LaneDriver(meddled.resources)
    proxy.on("GET", VIDEO, still_rendering)
    job_id = await timed_out(meddled, PROMPT)
    await meddled.stop_workers()
    proxy.off("GET", VIDEO)
    async with Pause(Failpoint.WATCH_ANSWERED) as pause:
        await meddled.start_worker()
        await pause.reached()
        await hands.pass_time(60)
        await meddled.start_worker()
        await hands.event(job_id, "job.video_late")
        before = await meddled.get((await only_job(meddled))[0]["id"])
        pause.resume()
    await meddled.stop_workers()
    job, submission = await only_job(meddled)
    assert job["assets"] == before["assets"]
    assert submission["state"] == "done"
    assert len(await hands.rows("SELECT 1 FROM events WHERE type = 'job.video_late'")) == 1


async def test_a_late_video_that_is_none_is_tried_so_often_and_stays_on_the_bill(
    settings: Settings, sandbox_url: str, proxy: Between
) -> None:
    few = settings.model_copy(update={"assets": settings.assets.model_copy(update={"fetch_tries": 2})})
    proxy.on("GET", VIDEO, lambda asked: None if "content" in asked.path else still_rendering(asked))
    async with running_gateway(behind(few, proxy), sandbox_url) as gateway:
        hands = LaneDriver(gateway.resources)
        job_id = await timed_out(gateway, f"{PROMPT} [garbage]")
        proxy.off("GET", VIDEO)
        await hands.event(job_id, "job.cost_changed", saying="'charged': '0.01'")
        await proxy.wait_for("GET", "/content", count=2)
        await gateway.stop_workers()
        await hands.pass_time(600)
        await hands.settle(Lane.RECONCILE)
        job, submission = await only_job(gateway)
        assert (job["assets"], submission["state"], submission["cost"]) == (None, "done", "0.01")
        assert not await watched(hands)
        assert len(proxy.seen("GET", "/content")) == 2


async def test_a_full_disk_does_not_cost_a_late_video(settings: Settings, sandbox_url: str, proxy: Between) -> None:
    full = settings.model_copy(
        update={"assets": settings.assets.model_copy(update={"min_free_bytes": 10**18, "fetch_tries": 1})}
    )
    proxy.on("GET", VIDEO, still_rendering)
    async with running_gateway(behind(full, proxy), sandbox_url) as gateway:
        job_id = await timed_out(gateway, PROMPT)
        proxy.off("GET", VIDEO)
        await proxy.wait_for("GET", "/content", count=2)
    async with running_gateway(behind(settings, proxy), sandbox_url) as gateway:
        hands = LaneDriver(gateway.resources)
        await hands.pass_time(60)
        await hands.event(job_id, "job.video_late")
        assert (await only_job(gateway))[0]["assets"]["video"]
