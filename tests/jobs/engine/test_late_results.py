"""What was not known when a job went on without it: a record that turns up, a proof that comes late, a duplicate."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.failpoints import Failpoint
from app.ids import Prefix
from app.infra.queue import Lane
from app.jobs.engine.submit_results import SubmitResults
from app.settings import Settings
from tests.support.gateway import Gateway, running_gateway
from tests.support.http_proxy import Asked, Between, Meddle, behind, between
from tests.support.http_server import Say
from tests.support.lane_driver import LaneDriver, Pause, inner
from tests.support.scripted_runway import ORDER
from tests.support.settings import MODEL, gateway_settings

LIST = "/videos?"
BROKEN = Say("no list today", 500)
OPENAI: dict[str, Any] = {"model": "sandbox/video"}
VLLM: dict[str, Any] = {"model": "sandbox/own"}


@pytest.fixture
async def proxy(sandbox_url: str) -> AsyncIterator[Between]:
    async with between(sandbox_url) as running:
        yield running


@pytest.fixture
def meddled(
    database: object, postgres_url: str, redis_url: str, sandbox_url: str, tmp_path: Path, proxy: Between
) -> Settings:
    """Of a gateway with a proxy between it and the sandbox, and a server of its own that can cancel."""
    del database
    settings = gateway_settings(
        postgres_url=postgres_url,
        redis_url=redis_url,
        sandbox_url=sandbox_url,
        directory=tmp_path,
        jobs={"submit_timeout": 3, "unknown_wait": 0.1, "lookup_pause": 0.1},
        connections={
            "own": {
                "provider": "openai_compatible",
                "profile": "vllm_omni",
                "base_url": f"{sandbox_url}/vllm/v1",
                "api_key": "sandbox-key",
                "models": ["sandbox/own"],
            }
        },
        models={"sandbox/own": {**MODEL, "usd_per_second": "0"}},
    )
    return behind(settings, proxy, poll_interval=0.05, visibility_delay=0.1)


async def lost(gateway: Gateway, hands: LaneDriver, **order: Any) -> dict[str, Any]:
    """A job whose paid request got no answer, given up because nothing could be found out."""
    job = await gateway.create(**order)
    await hands.work(Lane.SUBMIT)
    await hands.pass_time(5)
    await hands.work(Lane.RESOLVE)
    ended = await gateway.get(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "upstream_outcome_unknown")
    assert ended["cost"]["certainty"] == "possible"
    return job


async def look(hands: LaneDriver) -> None:
    """One look at everything that is watched."""
    await hands.execute("UPDATE watches SET next_at = clock_timestamp()")
    await hands.work(Lane.RECONCILE)


async def watched(hands: LaneDriver) -> int:
    count: int = await hands.value("SELECT count(*) FROM watches")
    return count


async def test_a_submission_that_cannot_be_looked_up_stays_reconciled_and_is_never_submitted_again(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    proxy.on("POST", "/runway", Meddle.LOSE)
    async with running_gateway(meddled, sandbox_url, workers=0) as gateway:
        hands = LaneDriver(gateway.resources)
        job = await lost(gateway, hands, **ORDER)
        for _ in range(3):
            await look(hands)
        assert await watched(hands) == 1
        await hands.pass_time(86_400)
        await look(hands)
        assert await watched(hands) == 0
        (submission,) = await gateway.submissions(job["id"])
        assert (submission["state"], submission["certainty"]) == ("abandoned", "possible")
    assert len(proxy.seen("POST")) == 1


async def test_a_worker_that_wakes_up_with_the_reply_of_a_failed_job_brings_its_video(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    async with running_gateway(meddled, sandbox_url, workers=0) as gateway:
        await gateway.sandbox.delete("/ledger")
        hands = LaneDriver(gateway.resources)
        async with Pause(Failpoint.SUBMIT_ANSWERED) as pause:
            job = await gateway.create(**ORDER)
            await gateway.start_worker()
            await pause.reached()
            await hands.pass_time(30)
            ended = await gateway.ended(job["id"])
            assert (ended["error"]["code"], ended["cost"]["certainty"]) == ("upstream_outcome_unknown", "possible")
            pause.resume()
            await hands.event(inner(job["id"]), "job.video_late")
        late = await gateway.get(job["id"])
        assert (late["status"], late["error"]["code"]) == ("failed", "upstream_outcome_unknown")
        assert (late["cost"]["charged"], late["cost"]["certainty"]) == ("0.24", "certain")
        assert late["assets"]["video"]
        assert (await gateway.purchases())["accepted"] == 1
    assert len(proxy.seen("POST")) == 1


async def test_a_record_that_is_found_after_the_wait_was_over_reaches_the_ledger_and_brings_its_video(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    proxy.on("POST", "/videos", Meddle.LOSE)
    proxy.on("GET", LIST, BROKEN)
    async with running_gateway(meddled, sandbox_url, workers=0) as gateway:
        await gateway.sandbox.delete("/ledger")
        hands = LaneDriver(gateway.resources)
        job = await lost(gateway, hands, **OPENAI)
        await look(hands)
        proxy.off("GET", LIST)
        await look(hands)
        found = await gateway.get(job["id"])
        assert (found["status"], found["cost"]["certainty"]) == ("failed", "certain")
        (submission,) = await gateway.submissions(job["id"])
        books = (await gateway.sandbox.get("/ledger")).json()["entries"]
        assert [entry["remote_id"] for entry in books] == [submission["remote_id"]]
        await gateway.start_worker()
        await hands.event(inner(job["id"]), "job.video_late")
        assert (await gateway.get(job["id"]))["assets"]["video"]


async def test_absence_that_is_proven_late_takes_the_doubt_off_the_bill(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    proxy.on("POST", "/videos", Meddle.DROP)
    proxy.on("GET", LIST, BROKEN)
    async with running_gateway(meddled, sandbox_url, workers=0) as gateway:
        await gateway.sandbox.delete("/ledger")
        hands = LaneDriver(gateway.resources)
        job = await lost(gateway, hands, **OPENAI)
        proxy.off("GET", LIST)
        await look(hands)
        proxy.on("GET", LIST, BROKEN)
        await look(hands)
        proxy.off("GET", LIST)
        await look(hands)
        assert await watched(hands) == 1, "absence counts when it is seen twice running"
        await look(hands)
        assert await watched(hands) == 0
        event = await hands.event(inner(job["id"]), "job.cost_changed")
        assert (event.data["cost"]["charged"], event.data["cost"]["certainty"]) == ("0.00", "none")
        proven = await gateway.get(job["id"])
        assert (proven["status"], proven["error"]["code"]) == ("failed", "upstream_outcome_unknown")
        assert proven["cost"] == event.data["cost"]
        (submission,) = await gateway.submissions(job["id"])
        assert (submission["state"], submission["certainty"]) == ("absent", "none")
        assert (await gateway.purchases())["accepted"] == 0
    assert len(proxy.seen("POST")) == 1


# Duplicates: the answer sleeps with its worker, a proof of absence that is none lets the job be bought anew ---------


class Doubled:
    """A job that was bought twice, whose first purchase nobody knows of until ``wake`` lets it turn up."""

    def __init__(self, gateway: Gateway, hands: LaneDriver, job: dict[str, Any], pause: Pause, remote_id: str) -> None:
        self.gateway = gateway
        self.hands = hands
        self.public_id: str = job["id"]
        self.id: UUID = inner(job["id"])
        self.remote_id = remote_id  # of the first purchase
        self._pause = pause

    async def wake(self) -> None:
        self._pause.resume()
        await self.hands.event(self.id, "job.cost_changed")

    async def rows(self) -> list[dict[str, Any]]:
        return await self.gateway.submissions(self.public_id)


@asynccontextmanager
async def doubled(
    settings: Settings, sandbox_url: str, proxy: Between, *, cancel: bool = False, **order: Any
) -> AsyncIterator[Doubled]:
    """``cancel``: the customer asks for it while nobody knows of the purchase, so that it is not bought anew."""
    async with running_gateway(settings, sandbox_url) as gateway:
        await gateway.sandbox.delete("/ledger")
        hands = LaneDriver(gateway.resources)
        async with Pause(Failpoint.SUBMIT_ANSWERED) as pause:
            job = await gateway.create(**order)
            await pause.reached()
            (first,) = await gateway.submissions(job["id"])
            (entry,) = (await gateway.sandbox.get("/ledger")).json()["entries"]
            proxy.on("GET", entry["remote_id"], still_rendering)
            if cancel:
                await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")
            outcomes, submission = SubmitResults(gateway.resources.engine), inner(first["id"], Prefix.SUBMISSION)
            await hands.execute("UPDATE schedule SET fence = fence + 1, next_at = clock_timestamp() + '1 hour'")
            await outcomes.absent(inner(job["id"]), submission, "", "Trying again.")
            await hands.execute("UPDATE schedule SET ready_at = NULL")
            yield Doubled(gateway, hands, job, pause, entry["remote_id"])


def still_rendering(asked: Asked) -> Say | None:
    name = asked.path.rpartition("/")[2]
    words = "RUNNING" if "/tasks/" in asked.path else "in_progress"
    return None if asked.path.endswith("content") else Say(f'{{"id": "{name}", "status": "{words}"}}')


@pytest.mark.parametrize("order", [ORDER, VLLM], ids=["runway", "vllm"])
async def test_a_duplicate_is_canceled_upstream_once_its_job_has_a_video(
    meddled: Settings, sandbox_url: str, proxy: Between, order: dict[str, Any]
) -> None:
    async with doubled(meddled, sandbox_url, proxy, **order) as job:
        before = await job.gateway.ended(job.public_id)
        assert before["status"] == "succeeded"
        await job.wake()
        await proxy.wait_for("DELETE", job.remote_id)
        first, second = await job.rows()
        assert (first["remote_id"], first["state"], second["state"]) == (job.remote_id, "abandoned", "done")
        after = await job.gateway.get(job.public_id)
        assert (after["status"], after["assets"]) == ("succeeded", before["assets"])
    assert not [asked for asked in proxy.seen("DELETE") if job.remote_id not in asked.path]


async def test_a_canceled_duplicate_costs_what_the_provider_says(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    async with doubled(meddled, sandbox_url, proxy, **ORDER) as job:
        await job.gateway.ended(job.public_id)
        await job.wake()
        await proxy.wait_for("DELETE", job.remote_id)
        told = Say(f'{{"id": "{job.remote_id}", "status": "CANCELLED", "cost": {{"credits": 7}}}}')
        proxy.on("GET", job.remote_id, told)
        event = await job.hands.event(job.id, "job.cost_changed", saying="'charged': '0.31'")
        assert (event.data["status"], event.data["cost"]["certainty"]) == ("succeeded", "certain")
        first, second = await job.rows()
        assert [(row["cost"], row["state"]) for row in (first, second)] == [("0.07", "done"), ("0.24", "done")]


async def test_a_duplicate_that_cannot_be_canceled_is_paid_for_and_does_not_replace_the_video(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    async with doubled(meddled, sandbox_url, proxy, **OPENAI) as job:
        before = await job.gateway.ended(job.public_id)
        await job.wake()
        proxy.off("GET", job.remote_id)
        await job.hands.event(job.id, "job.cost_changed", saying="'charged': '0.02'")
        await job.gateway.stop_workers()
        await look(job.hands)
        first, _ = await job.rows()
        assert (first["state"], first["late"], first["cost"]) == ("done", True, "0.01")
        after = await job.gateway.get(job.public_id)
        assert (after["status"], after["assets"]) == ("succeeded", before["assets"])
        assert not await job.hands.rows("SELECT 1 FROM events WHERE type = 'job.video_late'")
        assert (await job.gateway.purchases())["accepted"] == 2
        assert await watched(job.hands) == 0
    assert not proxy.seen("DELETE")
    assert not [asked for asked in proxy.seen("GET", "/content") if job.remote_id in asked.path]


async def test_a_duplicate_gives_its_video_to_a_job_whose_second_submission_failed(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    proxy.on("GET", "/tasks/", still_rendering)
    async with doubled(meddled, sandbox_url, proxy, **ORDER) as job:
        await job.gateway.reached(job.public_id, "job.started")
        await job.wake()
        first, second = await job.rows()
        assert (first["state"], second["state"]) == ("abandoned", "accepted")
        proxy.off("GET", job.remote_id)
        proxy.off("GET", "/tasks/")
        failed = Say(f'{{"id": "{second["remote_id"]}", "status": "FAILED", "cost": {{"credits": 24}}}}')
        proxy.on("GET", second["remote_id"], failed)
        ended = await job.gateway.ended(job.public_id)
        assert (ended["status"], ended["error"]["fault"]) == ("failed", "provider")
        await job.hands.event(job.id, "job.video_late")
        kept = await job.gateway.get(job.public_id)
        assert (kept["status"], kept["cost"]["charged"]) == ("failed", "0.48")
        assert kept["assets"]["video"]
        assert (await job.gateway.purchases())["accepted"] == 2
    assert not proxy.seen("DELETE")


async def test_of_two_late_videos_one_is_kept_and_both_are_on_the_bill(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    proxy.on("GET", "/videos/", still_rendering)
    async with doubled(meddled, sandbox_url, proxy, **OPENAI) as job:
        await job.gateway.reached(job.public_id, "job.started")
        await job.wake()
        await job.hands.execute("UPDATE jobs SET deadline_at = clock_timestamp()")
        assert (await job.gateway.ended(job.public_id))["error"]["code"] == "timeout"
        _, second = await job.rows()
        proxy.off("GET", "/videos/")
        event = await job.hands.event(job.id, "job.video_late")
        proxy.off("GET", job.remote_id)
        await job.hands.event(job.id, "job.cost_changed", saying="'charged': '0.02'")
        await job.gateway.stop_workers()
        await look(job.hands)
        kept = await job.gateway.get(job.public_id)
        assert {kind: asset["id"] for kind, asset in kept["assets"].items()} == event.data["assets"]
        assert [row["state"] for row in await job.rows()] == ["done", "done"]
        assert len(await job.hands.rows("SELECT 1 FROM events WHERE type = 'job.video_late'")) == 1
    assert {second["remote_id"]} == {asked.path.split("/")[4] for asked in proxy.seen("GET", "/content")}


async def test_a_submission_that_turns_up_after_its_job_was_canceled_is_canceled_too(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    async with doubled(meddled, sandbox_url, proxy, cancel=True, **ORDER) as job:
        assert (await job.gateway.ended(job.public_id))["status"] == "canceled"
        await job.wake()
        await proxy.wait_for("DELETE", job.remote_id)
        (row,) = await job.rows()
        assert (row["remote_id"], row["certainty"]) == (job.remote_id, "certain")
        after = await job.gateway.get(job.public_id)
        assert (after["status"], after["cost"]["certainty"]) == ("canceled", "certain")
    assert len(proxy.seen("POST")) == 1


async def test_equal_requests_whose_records_turn_up_late_each_take_their_own(
    meddled: Settings, sandbox_url: str, proxy: Between
) -> None:
    proxy.on("POST", "/videos", Meddle.LOSE)
    proxy.on("GET", LIST, BROKEN)
    async with running_gateway(meddled, sandbox_url, workers=0) as gateway:
        await gateway.sandbox.delete("/ledger")
        hands = LaneDriver(gateway.resources)
        jobs = [await lost(gateway, hands, **OPENAI) for _ in range(3)]
        proxy.off("GET", LIST)
        await hands.execute("UPDATE watches SET next_at = clock_timestamp()")
        steps = await hands.claim(Lane.RECONCILE)
        await asyncio.gather(*(step() for step in steps))
        for _ in jobs:
            await look(hands)
        rows = [(await gateway.submissions(job["id"]))[0] for job in jobs]
        assert len({row["remote_id"] for row in rows}) == 3
        assert {row["certainty"] for row in rows} == {"certain"}
