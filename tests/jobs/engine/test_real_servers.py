"""The money promise against servers that are not ours: the sandbox answers and misbehaves as real ones were seen to.

Each of these was bought twice, lost, given the wrong video or waited for without end before.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import text

from app.accounts.scopes import Scope
from app.accounts.service import KeyService
from app.infra.db import Database
from app.settings import Settings
from tests.support.gateway import FINAL, Gateway, running_gateway
from tests.support.http_server import every_request, serving
from tests.support.settings import MODEL, gateway_settings

KEY = "sandbox-key"
#: Waits that are minutes in production.
JOBS = {
    "submit_timeout": 2,
    "lookup_pause": 0.05,
    "unknown_wait": 1.5,
    "lost_after": 0.5,
    "watch_for": 1,
    "break_after": 1000,
}
HALF_A_LIST = ("round", "rename", "decimal", "trim", "cut", "omit", "unsized", "rotate", "double", "last")


def connection(url: str, dialect: str, profile: str, **more: Any) -> dict[str, Any]:
    return {
        "provider": "openai_compatible",
        "profile": profile,
        "base_url": f"{url}/{dialect}/v1",
        "api_key": KEY,
        "models": [f"{dialect}/video"],
        "poll_interval": 0.05,
        "visibility_delay": 0.1,
        "max_concurrent": 20,
        **more,
    }


def model(upstream: str = "sandbox-video") -> dict[str, Any]:
    return {**MODEL, "upstream": upstream, "seed": True, "inputs": {}}


@pytest.fixture
def real(database: Database, postgres_url: str, redis_url: str, sandbox_url: str, tmp_path: Path) -> Settings:
    """A gateway before one server of each kind, on an empty database."""
    del database
    return gateway_settings(
        postgres_url=postgres_url,
        redis_url=redis_url,
        sandbox_url=sandbox_url,
        directory=tmp_path,
        jobs=JOBS,
        assets={"fetch_tries": 2},
        connections={
            "openai": connection(sandbox_url, "openai", "openai", lookup_proves_absence=True),
            "vllm": connection(sandbox_url, "vllm", "vllm_omni"),
            "sglang": connection(sandbox_url, "sglang", "sglang"),
            "newapi": connection(sandbox_url, "newapi", "newapi"),
            "tensorrt": connection(sandbox_url, "tensorrt", "tensorrt_llm"),
            "litellm": connection(sandbox_url, "litellm", "litellm"),
        },
        models={
            **{f"{name}/video": model() for name in ("openai", "vllm", "newapi", "tensorrt", "litellm")},
            "sglang/video": model("hunyuan-video"),
        },
    )


@pytest.fixture
async def house(real: Settings, sandbox_url: str) -> AsyncIterator[Gateway]:
    async with running_gateway(real, sandbox_url) as gateway:
        await gateway.sandbox.delete("/ledger")
        yield gateway


@pytest.fixture
async def waiting(real: Settings, sandbox_url: str) -> AsyncIterator[Gateway]:
    """The same without a worker: orders that are to be sent together wait for the test to start one."""
    async with running_gateway(real, sandbox_url, workers=0) as gateway:
        await gateway.sandbox.delete("/ledger")
        yield gateway


async def sold(gateway: Gateway) -> list[dict[str, Any]]:
    """What the sandbox accepted, oldest first."""
    entries: list[dict[str, Any]] = (await gateway.sandbox.get("/ledger")).json()["entries"]
    return entries


async def end_of(gateway: Gateway, job: Mapping[str, Any]) -> tuple[str, str | None, str]:
    ended = await gateway.ended(job["id"])
    return ended["status"], (ended["error"] or {}).get("code"), ended["cost"]["certainty"]


# Lists ----------------------------------------------------------------------------------------------------------------


async def test_order_that_a_list_shows_differently_is_never_submitted_twice(house: Gateway) -> None:
    """Takes about 6 s of CPU: every alteration of a list at three kinds of servers, side by side."""
    names = ("openai", "vllm", "sglang")
    prompts = {f"a cat on {shown} [lose-reply] [list:{shown}] " for shown in HALF_A_LIST}
    jobs = [await house.create(prompt, model=f"{name}/video", seconds=2) for prompt in prompts for name in names]
    for job in jobs:
        assert (await end_of(house, job))[:2] in {("succeeded", None), ("failed", "upstream_outcome_unknown")}
    assert Counter(entry["prompt"] for entry in await sold(house)) == dict.fromkeys(prompts, len(names))


async def test_seconds_that_sglang_adjusted_are_no_proof_of_absence(house: Gateway) -> None:
    job = await house.create("a cat [lose-reply]", model="sglang/video", seconds=2)
    assert await end_of(house, job) == ("failed", "upstream_outcome_unknown", "none")
    assert len(await sold(house)) == 1


async def test_wrong_clock_is_no_proof_of_absence(house: Gateway) -> None:
    clocks = ("[behind:420]", "[ahead:7200]", "[behind:7200]")
    jobs = [await house.create(f"a cat [lose-reply] {clock}", model="vllm/video") for clock in clocks]
    for job in jobs:
        await house.ended(job["id"])
    assert len(await sold(house)) == len(jobs)


async def test_orders_that_differ_in_the_seed_never_get_each_other_s_video(waiting: Gateway) -> None:
    prompt = "a cat [lose-reply]"
    jobs = [await waiting.create(prompt, model="vllm/video", seed=seed) for seed in (1, 2)]
    await waiting.start_worker()
    ends = [await end_of(waiting, job) for job in jobs]
    assert ends == [("failed", "upstream_outcome_unknown", "none")] * 2
    assert len(await sold(waiting)) == 2


async def test_orders_of_two_accounts_never_get_each_other_s_video(waiting: Gateway) -> None:
    stranger = await KeyService(waiting.resources.database).create("strangers", "key", set(Scope))
    body = {"prompt": "a cat [lose-reply]", "model": "vllm/video"}
    mine = await waiting.create(**body)
    headers = {"Authorization": f"Bearer {stranger.text}"}
    theirs = (await waiting.client.post("/v1/jobs", json=body, headers=headers)).json()
    await waiting.start_worker()
    assert (await waiting.ended(mine["id"]))["error"]["code"] == "upstream_outcome_unknown"
    reply = await waiting.client.get(f"/v1/jobs/{theirs['id']}", headers={**headers, "Prefer": "wait=30"})
    assert reply.json()["error"]["code"] == "upstream_outcome_unknown"
    assert len(await sold(waiting)) == 2


# Ids and refusals -----------------------------------------------------------------------------------------------------


async def test_accepted_order_with_a_long_id_is_made(house: Gateway) -> None:
    jobs = [await house.create("a cat [id:long]", model=f"{name}/video") for name in ("openai", "newapi", "litellm")]
    for job in jobs:
        assert (await house.ended(job["id"]))["status"] == "succeeded"
        (row,) = await house.submissions(job["id"])
        assert len(row["remote_id"]) == 242


async def test_accepted_order_with_an_id_that_cannot_be_used_stays_in_the_ledger(house: Gateway) -> None:
    job = await house.create("a cat [id:odd]", model="newapi/video")
    assert await end_of(house, job) == ("failed", "upstream_outcome_unknown", "possible")
    async with house.resources.database.read() as conn:
        raw = await conn.scalar(text("SELECT raw FROM submissions"))
    (entry,) = await sold(house)
    assert entry["remote_id"] in raw


async def test_refusal_in_the_server_s_own_words_ends_the_job_at_once(house: Gateway) -> None:
    scripts = {"newapi": "[refuse:flat]", "tensorrt": "[refuse:object]", "litellm": "[fail:prompt]"}
    scripts["vllm"] = "[api-servers]"
    jobs = [await house.create(f"a cat {script}", model=f"{name}/video") for name, script in scripts.items()]
    for job in jobs:
        status, code, certainty = await end_of(house, job)
        assert (status, certainty) == ("failed", "none")
        assert code in {"input_refused", "prompt_refused"}
        *unsent, row = await house.submissions(job["id"])
        assert row["state"] == "rejected"
        assert {other["state"] for other in unsent} <= {
            "absent",
            "rejected",
        }  # beside load, a request may miss its time
    assert await sold(house) == []


async def test_refusal_that_speaks_of_an_upstream_time_out_is_not_believed(house: Gateway) -> None:
    names = ("openai", "newapi", "litellm", "vllm")
    jobs = [await house.create("a cat [refuse:timeout]", model=f"{name}/video") for name in names]
    for job in jobs:
        await house.ended(job["id"])
        assert [row["state"] for row in await house.submissions(job["id"])] != ["rejected"]
    assert len(await sold(house)) == len(names)


# Replicas and restarts ------------------------------------------------------------------------------------------------


async def test_replica_that_does_not_know_the_job_is_not_the_end(house: Gateway) -> None:
    jobs = [
        await house.create(f"a cat {script}", model=f"{name}/video")
        for name in ("openai", "vllm", "sglang", "newapi")
        for script in ("[replicas:2]", "[elsewhere:3]")
    ]
    for job in jobs:
        assert (await house.ended(job["id"]))["status"] == "succeeded"
    assert len(await sold(house)) == len(jobs)


async def test_cancel_that_another_replica_receives_confirms_nothing(house: Gateway) -> None:
    job = await house.create("a cat [slow:2] [replicas:2]", model="vllm/video")
    await house.reached(job["id"], "job.started")
    await house.client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = await house.ended(job["id"])
    (entry,) = await sold(house)
    canceled = ended["status"] == "canceled"
    assert entry["canceled"] is canceled
    assert canceled or ended["status"] == "succeeded"


async def test_render_that_a_free_server_lost_in_a_restart_is_submitted_again(house: Gateway) -> None:
    job = await house.create("a cat [forget]", model="vllm/video")
    assert await end_of(house, job) == ("succeeded", None, "none")
    first, second = await house.submissions(job["id"])
    assert (first["state"], first["error"]["code"], second["state"]) == ("abandoned", "upstream_lost", "done")
    lost, made = await sold(house)
    assert (lost["remote_id"], made["remote_id"]) == (first["remote_id"], second["remote_id"])


async def test_render_that_a_paid_provider_lost_is_not_submitted_again(house: Gateway) -> None:
    """It may have been lost when it was finished already, and before it was fetched."""
    job = await house.create("a cat [forget]", model="openai/video")
    status, code, certainty = await end_of(house, job)
    assert (status, code) in {("failed", "upstream_lost"), ("failed", "asset_unavailable")}
    assert certainty in {"possible", "certain"}
    assert len(await sold(house)) == 1


async def test_order_that_brings_the_server_down_each_time_is_given_up(house: Gateway) -> None:
    """Each record is deleted behind our back as soon as it is there."""
    job = await house.create("a cat [never]", model="vllm/video")
    seen: set[str] = set()
    while (shown := await house.get(job["id"]))["status"] not in FINAL:
        for entry in await sold(house):
            if entry["remote_id"] not in seen:
                seen.add(entry["remote_id"])
                reply = await house.sandbox.delete(
                    f"/vllm/v1/videos/{entry['remote_id']}", headers={"Authorization": f"Bearer {KEY}"}
                )
                assert reply.status_code == 200
        await asyncio.sleep(0.05)
    assert shown["error"]["code"] == "upstream_lost"
    assert len(seen) == 3


# Servers that contradict themselves -----------------------------------------------------------------------------------


class Confused:
    """A server of vLLM-Omni's kind whose list is empty whatever it has accepted; ``created`` answers every create."""

    def __init__(self, status: int, created: dict[str, Any], shown: dict[str, Any] | None = None) -> None:
        self.orders = 0
        self._status = status
        self._created = created
        self._shown = shown

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            await request.read()
            self.orders += 1
            return web.json_response(self._created, status=self._status)
        if request.path == "/v1/videos":
            return web.json_response({"object": "list", "data": [], "has_more": False})
        if self._shown is None:
            return web.json_response({"error": {"message": "not found", "code": 404}}, status=404)
        return web.json_response(self._shown)

    @asynccontextmanager
    async def before(self, settings: Settings) -> AsyncIterator[Settings]:
        """The same gateway with this server behind ``vllm/video``."""
        async with serving(every_request(self.handle)) as url:
            changed = settings.connections["vllm"].model_copy(update={"base_url": f"{url}/v1"})
            yield settings.model_copy(update={"connections": {"vllm": changed}})


@pytest.mark.parametrize(
    ("status", "created"), [(201, {}), (202, {}), (200, {"id": "a b"}), (200, {"status": "queued"})]
)
async def test_order_that_was_accepted_without_an_id_is_never_absent(
    real: Settings, sandbox_url: str, status: int, created: dict[str, Any]
) -> None:
    server = Confused(status, created)
    async with server.before(real) as settings, running_gateway(settings, sandbox_url) as gateway:
        job = await gateway.create("a cat", model="vllm/video")
        assert (await end_of(gateway, job))[:2] == ("failed", "upstream_outcome_unknown")
        assert server.orders == 1


async def test_id_that_was_given_to_two_orders_submits_nothing_twice(real: Settings, sandbox_url: str) -> None:
    server = Confused(200, {"id": "video_same"}, {"id": "video_same", "status": "in_progress", "prompt": "a cat"})
    async with server.before(real) as settings, running_gateway(settings, sandbox_url) as gateway:
        jobs = [await gateway.create(prompt, model="vllm/video", deadline_seconds=10) for prompt in ("a cat", "a dog")]
        ends = {await end_of(gateway, job) for job in jobs}
        assert server.orders == 2
    assert ends == {("failed", "timeout", "none"), ("failed", "upstream_outcome_unknown", "none")}


async def test_record_that_shows_another_prompt_is_not_this_job_s_video(real: Settings, sandbox_url: str) -> None:
    """A server that numbers anew after a restart: the id is known, and the video is of another order."""
    server = Confused(200, {"id": "video_1"}, {"id": "video_1", "status": "completed", "prompt": "another order"})
    async with server.before(real) as settings, running_gateway(settings, sandbox_url) as gateway:
        job = await gateway.create("a cat", model="vllm/video")
        ended = await gateway.ended(job["id"])
        assert (ended["status"], ended["assets"]) == ("failed", None)
        assert {row["state"] for row in await gateway.submissions(job["id"])} <= {"abandoned", "absent"}


# Deadlines and secrets ------------------------------------------------------------------------------------------------


async def test_deadline_ends_the_search_for_a_lost_reply(real: Settings, sandbox_url: str) -> None:
    broken_gateway = real.model_copy(update={"jobs": real.jobs.model_copy(update={"unknown_wait": 3600})})
    async with running_gateway(broken_gateway, sandbox_url) as gateway:
        job = await gateway.create("a cat [lose-reply] [list:omit]", model="vllm/video", deadline_seconds=10)
        await gateway.reached(job["id"], "job.confirming")
        async with gateway.resources.database.begin() as conn:
            await conn.execute(text("UPDATE jobs SET deadline_at = clock_timestamp() + interval '1 second'"))
            await conn.execute(text("UPDATE schedule SET next_at = clock_timestamp(), fence = fence + 1"))
        assert await end_of(gateway, job) == ("failed", "upstream_outcome_unknown", "none")
        (row,) = await gateway.submissions(job["id"])
        assert row["state"] == "abandoned"


async def test_provider_that_echoes_requests_puts_no_key_into_the_database(house: Gateway) -> None:
    jobs = [
        await house.create(f"a cat {script}", model=f"{name}/video")
        for name in ("openai", "vllm", "newapi")
        for script in ("[echo]", "[echo:refuse]", "[echo] [lose-reply:truncate]", "[echo] [fail:internal]")
    ]
    for job in jobs:
        await house.ended(job["id"])
    async with house.resources.database.read() as conn:
        stored = await conn.scalars(
            text("SELECT submissions::text FROM submissions UNION ALL SELECT jobs::text FROM jobs")
        )
        assert not [row for row in stored if KEY in row]
