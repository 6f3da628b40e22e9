"""A true callback is worth something: what it names is looked at now, and found where nothing else finds it."""

import asyncio

import httpx2
import pytest

from app.infra.queue import Lane
from app.settings import Settings
from tests.support.callback_fixtures import BUY, CALLBACKS, KLING, LOOK_UP, NO_TASKS, ORDER, READ, bought, opened
from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.http_proxy import Asked, Between, Meddle, behind
from tests.support.http_server import Say
from tests.support.lane_driver import PATIENCE_SECONDS, LaneDriver


def still_rendering(asked: Asked) -> Say:
    """What Kling says of a task that goes on."""
    return Say(f'{{"code": 0, "data": [{{"id": "{asked.path.rpartition("=")[2]}", "status": "processing"}}]}}')


@pytest.mark.parametrize(
    ("behaviour", "checked"),
    [
        ("", True),
        ("[callback:forged]", True),
        ("[callback:forged]", False),
        ("[callback:twice]", True),
        ("[callback:early]", True),
    ],
)
async def test_a_callback_ends_a_job_that_would_not_be_looked_at_for_an_hour(
    reachable: Settings, kling: Between, front: Between, behaviour: str, checked: bool
) -> None:
    """Forged ones say that it failed: with a secret they are refused, without one the provider is asked, and denies."""
    if not checked:
        connection = reachable.connections[KLING].model_copy(update={"callback_secret": None})
        reachable = reachable.model_copy(update={"connections": {KLING: connection}})
    async with opened(reachable, kling, front, workers=1) as gateway, asyncio.timeout(PATIENCE_SECONDS):
        job = await gateway.create(f"{PROMPT} {behaviour}", **ORDER)
        ended = await gateway.ended(job["id"])
        assert ended["status"] == "succeeded", ended
        assert (await gateway.purchases())["accepted"] == 1
    answers = {passed.status for passed in front.passed if CALLBACKS in passed.asked.path}
    assert answers == ({200, 422} if checked and "forged" in behaviour else {200})


async def test_an_order_names_no_url_without_a_public_url(settings: Settings, sandbox_url: str, kling: Between) -> None:
    kling.target = sandbox_url
    async with running_gateway(behind(settings, kling), sandbox_url, workers=0) as gateway:
        await gateway.create(**ORDER)
        await LaneDriver(gateway.resources).work(Lane.SUBMIT)
    (order,) = kling.seen("POST", BUY)
    assert "callback_url" not in order.json["options"]


async def test_each_submission_has_a_url_of_its_own_below_our_public_address(
    quiet: Gateway, kling: Between, front: Between
) -> None:
    hands = LaneDriver(quiet.resources)
    jobs = [await bought(quiet, hands) for _ in range(2)]
    told = [order.json["options"]["callback_url"] for order in kling.seen("POST", BUY)]
    assert told == [front.url + job.path for job in jobs]


async def test_a_callback_brings_a_lost_reply_back_where_no_look_up_helps(
    quiet: Gateway, caller: httpx2.AsyncClient, kling: Between
) -> None:
    hands = LaneDriver(quiet.resources)
    kling.on("POST", BUY, Meddle.LOSE)
    kling.on("GET", LOOK_UP, Say("broken", 500))
    job = await bought(quiet, hands)
    await hands.work(Lane.RESOLVE)
    assert (await job.job())["phase"] == "confirming"
    remote_id = await job.remote_id()
    await job.tell(caller, remote_id, "submitted")
    await hands.work(Lane.RESOLVE)
    assert (await job.job())["phase"] == "rendering"
    (submission,) = await job.rows()
    assert (submission["remote_id"], submission["state"]) == (remote_id, "accepted")
    assert len(kling.seen("POST", BUY)) == 1


async def test_a_callback_that_comes_before_the_reply_finds_its_record_when_the_reply_is_lost(
    reachable: Settings, kling: Between, front: Between
) -> None:
    kling.on("POST", BUY, Meddle.LOSE)
    kling.on("GET", LOOK_UP, Say("broken", 500))
    async with opened(reachable, kling, front, workers=1) as gateway, asyncio.timeout(PATIENCE_SECONDS):
        job = await gateway.create(f"{PROMPT} [callback:early]", **ORDER)
        assert (await gateway.ended(job["id"]))["status"] == "succeeded"
        assert (await gateway.purchases())["accepted"] == 1


@pytest.mark.parametrize("watch", ["goes on", "has ended"])
async def test_a_late_video_is_kept_when_its_callback_comes(
    quiet: Gateway, caller: httpx2.AsyncClient, kling: Between, front: Between, watch: str
) -> None:
    hands = LaneDriver(quiet.resources)
    kling.on("GET", READ, still_rendering)
    job = await bought(quiet, hands)
    await hands.execute("UPDATE jobs SET deadline_at = clock_timestamp()")
    await hands.execute("UPDATE schedule SET next_at = clock_timestamp()")
    await hands.work(Lane.POLL)
    assert (await job.job())["error"]["code"] == "timeout"
    if watch == "has ended":
        await hands.pass_time(90_000)
        await hands.work(Lane.RECONCILE)
    await front.wait_for("POST", CALLBACKS, b"succeeded")
    kling.off("GET", READ)
    assert await hands.work(Lane.RECONCILE) == 0
    await job.tell(caller, await job.remote_id())
    await hands.work(Lane.RECONCILE)
    kept = await job.job()
    assert (kept["status"], kept["assets"]["video"]["width"]) == ("failed", 1280)
    assert (await quiet.purchases())["accepted"] == 1


async def test_a_submission_that_was_taken_for_absent_is_found_by_its_callback_and_counted(
    quiet: Gateway, caller: httpx2.AsyncClient, kling: Between, front: Between
) -> None:
    """The provider's look-up lies twice, and the job is bought anew."""
    hands = LaneDriver(quiet.resources)
    kling.on("POST", BUY, Meddle.LOSE)
    kling.on("GET", LOOK_UP, NO_TASKS)
    job = await bought(quiet, hands)
    for _ in range(2):
        await hands.pass_time(60)
        await hands.work(Lane.RESOLVE)
    kling.off("POST", BUY)
    await hands.pass_time(60)
    await hands.work(Lane.SUBMIT)
    assert [row["state"] for row in await job.rows()] == ["absent", "accepted"]
    await front.wait_for("POST", CALLBACKS, b"succeeded", count=2)
    await hands.execute("UPDATE schedule SET next_at = clock_timestamp()")
    await hands.work(Lane.POLL, Lane.STORE)
    before = await job.job()
    assert (before["status"], before["cost"]["charged"]) == ("succeeded", "0.252")
    await job.tell(caller, await job.remote_id())
    for _ in range(2):
        await hands.execute("UPDATE watches SET next_at = clock_timestamp()")
        await hands.work(Lane.RECONCILE)
    first, second = await job.rows()
    assert (first["state"], first["late"], first["certainty"]) == ("done", True, "certain")
    after = await job.job()
    assert (after["cost"]["charged"], after["assets"]) == ("0.504", before["assets"])
    assert second["state"] == "done"
    assert (await quiet.purchases())["accepted"] == 2
