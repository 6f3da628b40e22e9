"""Nothing is bought twice in silence, and nothing that was accepted is lost."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.settings import Settings
from tests.support.gateway import PROMPT, Gateway, running_gateway
from tests.support.settings import gateway_settings


async def test_lost_reply_never_submits_twice(gateway: Gateway) -> None:
    job = await gateway.create(f"{PROMPT} [lose-reply]")
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "succeeded", ended
    assert (await gateway.purchases())["accepted"] == 1
    (submission,) = await gateway.submissions(job["id"])
    assert submission["state"] == "done"


@pytest.mark.parametrize("behaviour", ["[lose-reply:truncate]", "[html]"])
async def test_an_unreadable_reply_is_looked_up_not_repeated(gateway: Gateway, behaviour: str) -> None:
    job = await gateway.create(f"{PROMPT} {behaviour}")
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "succeeded", ended
    assert (await gateway.purchases())["accepted"] == 1


async def test_a_server_error_is_submitted_again_only_when_proven_absent(gateway: Gateway) -> None:
    job = await gateway.create(f"{PROMPT} [500:1]")
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "succeeded", ended
    assert (await gateway.purchases())["accepted"] == 1
    assert [row["state"] for row in await gateway.submissions(job["id"])] == ["absent", "done"]


async def test_equal_requests_with_lost_replies_each_get_their_own_video(gateway: Gateway) -> None:
    jobs = await asyncio.gather(*(gateway.create(f"{PROMPT} [lose-reply]") for _ in range(4)))
    ended = await asyncio.gather(*(gateway.ended(job["id"]) for job in jobs))
    assert {job["status"] for job in ended} == {"succeeded"}
    remote_ids = {(await gateway.submissions(job["id"]))[0]["remote_id"] for job in jobs}
    assert len(remote_ids) == 4
    assert (await gateway.purchases())["accepted"] == 4


async def test_a_provider_that_cannot_be_searched_leaves_the_decision_to_the_caller(gateway: Gateway) -> None:
    job = await gateway.create(f"{PROMPT} [lose-reply]", model="runway/gen4.5", seconds=2, size="1280x720")
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "failed"
    assert ended["error"]["code"] == "upstream_outcome_unknown"
    assert ended["cost"]["certainty"] == "possible"
    assert (await gateway.purchases())["accepted"] == 1


async def test_a_throttled_order_waits_and_is_submitted_once(gateway: Gateway) -> None:
    job = await gateway.create(f"{PROMPT} [429:1]")
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "succeeded"
    assert [row["state"] for row in await gateway.submissions(job["id"])] == ["rejected", "done"]
    assert (await gateway.purchases())["accepted"] == 1


async def test_a_refused_prompt_costs_nothing(gateway: Gateway) -> None:
    job = await gateway.create(f"{PROMPT} [fail:prompt]")
    ended = await gateway.ended(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "prompt_refused")
    assert (ended["cost"]["charged"], ended["cost"]["certainty"]) == ("0.00", "none")


@pytest.mark.parametrize("behaviour", ["[flaky:2]", "[gone:2]", "[odd-status:2]"])
async def test_a_bad_status_reply_is_not_final(gateway: Gateway, behaviour: str) -> None:
    job = await gateway.create(f"{PROMPT} {behaviour}")
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "succeeded", ended
    assert (await gateway.purchases())["accepted"] == 1


async def test_an_unreachable_provider_is_waited_for_and_the_job_says_so(
    settings: Settings, sandbox_url: str, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    nowhere = {"provider": "openai_compatible", "profile": "openai", "base_url": "http://127.0.0.1:9/v1"}
    unreachable = gateway_settings(
        postgres_url=postgres_url,
        redis_url=redis_url,
        sandbox_url=sandbox_url,
        directory=tmp_path,
        connections={"sandbox": {**nowhere, "api_key": "key", "models": ["sandbox/video"]}},
    )
    async with running_gateway(unreachable, sandbox_url) as gateway:
        job = await gateway.create()
        await gateway.reached(job["id"], "job.queued", saying="could not be reached")
        waiting = await gateway.get(job["id"])
        assert waiting["cost"]["certainty"] == "none"
        canceled = (await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")).json()
        assert (canceled["status"], canceled["cancel"]["outcome"]) == ("canceled", "confirmed")
    # The way is open again: another job on the same database is served.
    async with running_gateway(settings, sandbox_url) as gateway:
        job = await gateway.create()
        assert (await gateway.ended(job["id"]))["status"] == "succeeded"


async def test_a_render_is_canceled_upstream(gateway: Gateway) -> None:
    job = await gateway.create(f"{PROMPT} [never]", model="runway/gen4.5", seconds=2, size="1280x720")
    await gateway.reached(job["id"], "job.started")
    asked = (await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")).json()
    assert asked["cancel"]["outcome"] == "requested"
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "canceled"
    assert ended["cancel"]["outcome"] == "confirmed"


async def test_what_cannot_be_canceled_finishes_and_stays_billable(gateway: Gateway) -> None:
    job = await gateway.create(f"{PROMPT} [slow:1]")
    await gateway.reached(job["id"], "job.started")
    await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = await gateway.ended(job["id"])
    assert ended["status"] == "succeeded"
    assert ended["cancel"]["outcome"] == "not_cancellable"
    again = await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_a_render_that_never_ends_is_given_up_at_the_deadline(gateway: Gateway) -> None:
    job = await gateway.create(f"{PROMPT} [never]")
    await gateway.reached(job["id"], "job.started")
    async with gateway.resources.database.begin() as conn:
        await conn.execute(text("UPDATE jobs SET deadline_at = clock_timestamp()"))
    ended = await gateway.ended(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "timeout")
    assert ended["cost"]["certainty"] in {"possible", "certain"}


@pytest.mark.parametrize("behaviour", ["[garbage]", "[truncated]", "[expired]", "[huge:declared]"])
async def test_what_is_not_a_playable_video_never_counts_as_success(
    sandbox_url: str, settings: Settings, behaviour: str
) -> None:
    few = settings.model_copy(
        update={
            "assets": settings.assets.model_copy(update={"fetch_tries": 2}),
            "jobs": settings.jobs.model_copy(update={"lost_after": 0.1}),
        }
    )
    async with running_gateway(few, sandbox_url) as gateway:
        job = await gateway.create(f"{PROMPT} {behaviour}")
        ended = await gateway.ended(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "asset_unavailable")
    assert ended["assets"] is None


async def test_a_full_disk_loses_no_video(sandbox_url: str, settings: Settings) -> None:
    full = settings.model_copy(update={"assets": settings.assets.model_copy(update={"min_free_bytes": 10**18})})
    async with running_gateway(full, sandbox_url) as gateway:
        await gateway.sandbox.delete("/ledger")
        job = await gateway.create()
        await gateway.reached(job["id"], "job.waiting", saying="storage is unavailable")
        waiting = await gateway.get(job["id"])
        assert (waiting["status"], waiting["phase"]) == ("running", "storing")
        readiness: dict[str, Any] = (await gateway.client.get("/readyz")).json()
        assert readiness["checks"]["storage"]["ok"] is False
    async with running_gateway(settings, sandbox_url) as gateway:
        async with gateway.resources.database.begin() as conn:
            await conn.execute(text("UPDATE schedule SET next_at = clock_timestamp()"))
        assert (await gateway.ended(job["id"]))["status"] == "succeeded"
        assert (await gateway.purchases())["accepted"] == 1
