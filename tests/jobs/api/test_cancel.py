"""A cancel says how far it went: confirmed, requested, or not possible; and it never costs a video that is finished."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.infra.queue import Lane
from app.settings import Settings
from tests.support.callback_fixtures import BUY, LOOK_UP, NO_TASKS, bought
from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.http_proxy import Between, Meddle, behind, between
from tests.support.http_server import Say
from tests.support.lane_driver import LaneDriver
from tests.support.scripted_runway import ORDER, Upstream, running_upstream, served_by
from tests.support.settings import MODEL, gateway_settings

VLLM, SGLANG = {"model": "own/vllm"}, {"model": "own/sglang"}
NOT_FOUND = Say('{"error": "there is no such task"}', 404)
LOOK_AGAIN = 0.02


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as running:
        yield running


@pytest.fixture
async def scripted(settings: Settings, sandbox_url: str, upstream: Upstream) -> AsyncIterator[Gateway]:
    """A gateway without workers, whose provider is scripted by the test."""
    async with running_gateway(served_by(settings, upstream), sandbox_url, workers=0) as gateway:
        yield gateway


@pytest.fixture
async def proxy(sandbox_url: str) -> AsyncIterator[Between]:
    async with between(sandbox_url) as running:
        yield running


@pytest.fixture
async def own(
    database: object, postgres_url: str, redis_url: str, sandbox_url: str, tmp_path: Path, proxy: Between
) -> AsyncIterator[Gateway]:
    """A gateway without workers before servers of each kind."""
    del database

    def server(name: str, profile: str) -> dict[str, Any]:
        return {
            "provider": "openai_compatible",
            "profile": profile,
            "base_url": f"{sandbox_url}/{name}/v1",
            "api_key": "sandbox-key",
            "models": [f"own/{name}"],
        }

    settings = gateway_settings(
        postgres_url=postgres_url,
        redis_url=redis_url,
        sandbox_url=sandbox_url,
        directory=tmp_path,
        connections={"vllm": server("vllm", "vllm_omni"), "sglang": server("sglang", "sglang")},
        models={"own/vllm": MODEL, "own/sglang": MODEL},
    )
    async with running_gateway(behind(settings, proxy, poll_interval=0.05), sandbox_url, workers=0) as gateway:
        await gateway.sandbox.delete("/ledger")
        yield gateway


async def cancel(gateway: Gateway, job: dict[str, Any]) -> str:
    """Ask for it; the outcome, as far as it is known at once."""
    reply = await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert reply.status_code == 200, reply.text
    outcome: str = reply.json()["cancel"]["outcome"]
    return outcome


async def poll(hands: LaneDriver) -> None:
    await hands.execute("UPDATE schedule SET next_at = clock_timestamp() WHERE lane = 'poll'")
    await hands.work(Lane.POLL)


async def rendered(gateway: Gateway) -> None:
    """Return once the sandbox has finished its one video."""
    while True:
        (entry,) = (await gateway.sandbox.get("/ledger")).json()["entries"]
        if entry["state"] == "succeeded":
            return
        await asyncio.sleep(LOOK_AGAIN)


async def end_of(gateway: Gateway, job: dict[str, Any]) -> tuple[str, str]:
    """Its status, and what became of the cancel."""
    shown = await gateway.get(job["id"])
    return shown["status"], shown["cancel"]["outcome"]


# At each kind of provider -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [ORDER, VLLM], ids=["runway", "vllm"])
async def test_a_video_that_was_just_finished_is_stored_and_not_deleted(
    own: Gateway, proxy: Between, order: dict[str, Any]
) -> None:
    hands = LaneDriver(own.resources)
    job = await own.create(**order)
    await hands.work(Lane.SUBMIT)
    await rendered(own)
    assert await cancel(own, job) == "requested"
    await poll(hands)
    await hands.work(Lane.STORE)
    assert await end_of(own, job) == ("succeeded", "not_cancellable")
    assert not proxy.seen("DELETE")


@pytest.mark.parametrize("order", [ORDER, VLLM], ids=["runway", "vllm"])
@pytest.mark.parametrize("late", [False, True], ids=["asked", "late"])
async def test_what_cannot_be_read_just_now_is_not_deleted(
    own: Gateway, proxy: Between, order: dict[str, Any], late: bool
) -> None:
    """A video may be finished behind a broken answer: then it is stored, be it late."""
    hands = LaneDriver(own.resources)
    job = await own.create(**order)
    await hands.work(Lane.SUBMIT)
    await rendered(own)
    if late:
        await hands.execute("UPDATE jobs SET deadline_at = clock_timestamp()")
    else:
        await cancel(own, job)
    proxy.on("GET", "", Say("not now", 503))
    await poll(hands)
    assert not proxy.seen("DELETE")
    proxy.off("GET", "")
    await poll(hands)
    await hands.execute("UPDATE watches SET next_at = clock_timestamp()")
    await hands.work(Lane.STORE, Lane.RECONCILE)
    shown = await own.get(job["id"])
    assert (shown["status"], bool(shown["assets"])) == ("failed" if late else "succeeded", True)


async def test_cancel_that_gets_not_found_confirms_nothing(scripted: Gateway, upstream: Upstream) -> None:
    """Another replica may have answered, and the render may go on elsewhere: only time tells that it is lost."""
    hands = LaneDriver(scripted.resources)
    job = await scripted.create(**ORDER)
    await hands.work(Lane.SUBMIT)
    await cancel(scripted, job)
    upstream.delete = NOT_FOUND
    await poll(hands)
    await poll(hands)
    assert upstream.asked["DELETE"] == 2
    upstream.status = NOT_FOUND
    await poll(hands)
    assert (await scripted.get(job["id"]))["status"] == "running"
    await hands.pass_time(700)
    await poll(hands)
    assert await end_of(scripted, job) == ("failed", "not_cancellable")
    assert (await scripted.get(job["id"]))["error"]["code"] == "upstream_lost"


async def test_a_provider_that_forgets_what_it_canceled_has_canceled_it(scripted: Gateway, upstream: Upstream) -> None:
    hands = LaneDriver(scripted.resources)
    job = await scripted.create(**ORDER)
    await hands.work(Lane.SUBMIT)
    await cancel(scripted, job)
    upstream.delete = Say("", 204)
    await poll(hands)
    assert await end_of(scripted, job) == ("running", "requested")
    await poll(hands)
    assert upstream.asked["DELETE"] == 1
    upstream.status = NOT_FOUND
    await poll(hands)
    assert await end_of(scripted, job) == ("canceled", "confirmed")
    assert (await scripted.get(job["id"]))["cost"]["certainty"] == "certain"


async def test_a_cancel_that_got_no_reply_is_asked_for_again(scripted: Gateway, upstream: Upstream) -> None:
    hands = LaneDriver(scripted.resources)
    job = await scripted.create(**ORDER)
    await hands.work(Lane.SUBMIT)
    await cancel(scripted, job)
    upstream.delete = Say("oops", 502)
    await poll(hands)
    await poll(hands)
    assert upstream.asked["DELETE"] == 2
    upstream.delete = Say("", 204)
    await poll(hands)
    upstream.status = Say('{"id": "task-1", "status": "CANCELLED", "cost": {"credits": 0}}')
    await poll(hands)
    assert await end_of(scripted, job) == ("canceled", "confirmed")
    shown = await scripted.get(job["id"])
    assert (shown["cost"]["charged"], shown["cost"]["certainty"]) == ("0.00", "none")


async def test_a_cancel_that_is_refused_is_told_and_the_render_goes_on(scripted: Gateway, upstream: Upstream) -> None:
    hands = LaneDriver(scripted.resources)
    job = await scripted.create(**ORDER)
    await hands.work(Lane.SUBMIT)
    await cancel(scripted, job)
    upstream.delete = Say('{"error": "too late"}', 400)
    await poll(hands)
    assert await end_of(scripted, job) == ("running", "not_cancellable")
    await poll(hands)
    assert await cancel(scripted, job) == "not_cancellable"
    assert upstream.asked["DELETE"] == 1


async def test_a_render_that_failed_after_a_cancel_was_asked_for_is_not_submitted_again(
    scripted: Gateway, upstream: Upstream
) -> None:
    hands = LaneDriver(scripted.resources)
    job = await scripted.create(**ORDER, max_cost="9")
    await hands.work(Lane.SUBMIT)
    await cancel(scripted, job)
    upstream.status = Say('{"id": "task-1", "status": "FAILED", "failureCode": "INTERNAL", "cost": {"credits": 0}}')
    await poll(hands)
    await hands.settle(Lane.SUBMIT)
    assert await end_of(scripted, job) == ("canceled", "confirmed")
    assert upstream.asked["POST"] == 1


async def test_a_server_that_aborts_confirms_the_cancel(own: Gateway, proxy: Between) -> None:
    hands = LaneDriver(own.resources)
    job = await own.create(f"{PROMPT} [never]", **VLLM)
    await hands.work(Lane.SUBMIT)
    assert await cancel(own, job) == "requested"
    await poll(hands)
    assert await end_of(own, job) == ("canceled", "confirmed")
    assert len(proxy.seen("DELETE")) == 1
    (entry,) = (await own.sandbox.get("/ledger")).json()["entries"]
    assert entry["canceled"] is True


async def test_a_server_whose_delete_only_forgets_is_not_asked_to_delete(own: Gateway, proxy: Between) -> None:
    hands = LaneDriver(own.resources)
    job = await own.create(f"{PROMPT} [slow:1]", **SGLANG)
    await hands.work(Lane.SUBMIT)
    await cancel(own, job)
    await poll(hands)
    assert await end_of(own, job) == ("running", "not_cancellable")
    await rendered(own)
    await poll(hands)
    await hands.work(Lane.STORE)
    assert await end_of(own, job) == ("succeeded", "not_cancellable")
    assert not proxy.seen("DELETE")


# In each state ----------------------------------------------------------------------------------------------------


async def test_a_job_that_waits_is_canceled_at_once_and_never_submitted(scripted: Gateway, upstream: Upstream) -> None:
    hands = LaneDriver(scripted.resources)
    job = await scripted.create(**ORDER)
    assert await cancel(scripted, job) == "confirmed"
    await hands.settle()
    assert await end_of(scripted, job) == ("canceled", "confirmed")
    assert upstream.asked["POST"] == 0
    assert await cancel(scripted, job) == "confirmed"


@pytest.mark.parametrize(
    ("created", "end"),
    [
        (Say('{"id": "task-1"}'), ("canceled", "confirmed")),
        (Say('{"error": "the ratio is not supported"}', 400), ("canceled", "confirmed")),
        (Say('{"error": "slow down"}', 429), ("canceled", "confirmed")),
        (Say("<html>", 502), ("failed", "not_cancellable")),
    ],
    ids=["accepted", "refused", "not now", "lost"],
)
async def test_a_cancel_while_the_paid_request_is_under_way(
    scripted: Gateway, upstream: Upstream, created: Say, end: tuple[str, str]
) -> None:
    hands = LaneDriver(scripted.resources)
    job = await scripted.create(**ORDER)
    (send,) = await hands.claim(Lane.SUBMIT)
    assert await cancel(scripted, job) == "requested"
    upstream.create = created
    await send()
    await poll(hands)
    upstream.status = NOT_FOUND
    await poll(hands)
    await hands.pass_time(60)
    await hands.work(Lane.RESOLVE, Lane.SUBMIT)
    assert await end_of(scripted, job) == end
    assert upstream.asked["POST"] == 1


@pytest.mark.parametrize("found", [True, False])
async def test_a_cancel_while_it_is_unknown_whether_it_was_accepted(
    quiet: Gateway, kling: Between, found: bool
) -> None:
    hands = LaneDriver(quiet.resources)
    kling.on("POST", BUY, Meddle.LOSE if found else Meddle.DROP)
    job = await bought(quiet, hands, f"{PROMPT} [never]")
    shown = {"id": job.public_id}
    assert await cancel(quiet, shown) == "requested"
    for _ in range(2):
        await hands.pass_time(60)
        await hands.work(Lane.RESOLVE, Lane.SUBMIT)
    assert len(kling.seen("POST", BUY)) == 1
    if found:
        await poll(hands)
        assert await end_of(quiet, shown) == ("running", "not_cancellable")
    else:
        assert await end_of(quiet, shown) == ("canceled", "confirmed")
        assert (await job.job())["cost"]["certainty"] == "none"


async def test_a_cancel_of_a_submission_that_stays_in_doubt_leaves_it_in_doubt(quiet: Gateway, kling: Between) -> None:
    hands = LaneDriver(quiet.resources)
    kling.on("POST", BUY, Meddle.LOSE)
    kling.on("GET", LOOK_UP, Say("broken", 500))
    job = await bought(quiet, hands)
    await cancel(quiet, {"id": job.public_id})
    await hands.pass_time(1000)
    await hands.work(Lane.RESOLVE)
    assert await end_of(quiet, {"id": job.public_id}) == ("failed", "not_cancellable")
    assert (await job.job())["cost"]["certainty"] == "possible"
    kling.on("GET", LOOK_UP, NO_TASKS)
    for _ in range(2):
        await hands.execute("UPDATE watches SET next_at = clock_timestamp()")
        await hands.work(Lane.RECONCILE)
    assert (await job.job())["cost"]["certainty"] == "none"


async def test_a_video_that_is_being_stored_is_kept(own: Gateway, proxy: Between) -> None:
    hands = LaneDriver(own.resources)
    job = await own.create(**VLLM)
    await hands.work(Lane.SUBMIT)
    await rendered(own)
    await poll(hands)
    (store,) = await hands.claim(Lane.STORE)
    assert await cancel(own, job) == "not_cancellable"
    await store()
    assert await end_of(own, job) == ("succeeded", "not_cancellable")
    assert not proxy.seen("DELETE")


async def test_a_cancel_after_the_end_is_a_conflict_and_changes_nothing(scripted: Gateway, upstream: Upstream) -> None:
    hands = LaneDriver(scripted.resources)
    upstream.create = Say('{"error": "the ratio is not supported"}', 400)
    job = await scripted.create(**ORDER)
    await hands.work(Lane.SUBMIT)
    before = await scripted.get(job["id"])
    reply = await scripted.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert (reply.status_code, reply.json()["code"]) == (409, "conflict")
    assert await scripted.get(job["id"]) == before
