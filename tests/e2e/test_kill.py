"""Real processes, killed: what was accepted ends, and is bought once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from app.embedded.stack import Stack
from app.embedded.workspace import Ports, Workspace

pytestmark = [pytest.mark.servers, pytest.mark.xdist_group("kill")]

PROMPT = "a purple elephant dancing on a blue beach ball [slow:2]"
JOBS = 10
#: Over the settings of `filmgate dev`: what a killed worker held is taken over after seconds and not after a minute.
SHORT_WAITS = {
    "lease = 10": "lease = 3",
    "submit_timeout = 5": "submit_timeout = 3\nsubmit_margin = 1\nlookup_pause = 0.5",
    "poll_interval = 0.5": "poll_interval = 0.2",
}


class ShortWaits(Workspace):
    """The workspace of ``filmgate dev``, with shorter waits."""

    def configure(self, ports: Ports, *, database_url: str, redis_url: str) -> None:
        super().configure(ports, database_url=database_url, redis_url=redis_url)
        written = self.configuration.read_text()
        for setting, shorter in SHORT_WAITS.items():
            assert setting in written
            written = written.replace(setting, shorter)
        self.configuration.write_text(written)


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """What `make dev` runs, on free ports."""
    stack = Stack(ShortWaits(tmp_path_factory.mktemp("kill") / ".filmgate"), Ports.free())
    async with stack.running(lambda _text: None):
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {await stack.api_key()}"}
    async with httpx2.AsyncClient(base_url=stack.url, headers=headers, timeout=60, verify=False) as client:
        yield client


@pytest.fixture
async def books(stack: Stack) -> AsyncIterator[Callable[[], Awaitable[dict[str, Any]]]]:
    """The auditor: what the sandbox accepted and charged since the test began."""
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{stack.ports.sandbox}", timeout=30, verify=False
    ) as sandbox:
        await sandbox.delete("/ledger")

        async def summary() -> dict[str, Any]:
            found: dict[str, Any] = (await sandbox.get("/ledger/summary")).json()
            return found

        yield summary


async def ordered(client: httpx2.AsyncClient) -> list[str]:
    """Ten videos, on their way."""
    order = {"model": "default", "prompt": PROMPT, "seconds": 1, "size": "640x360"}
    replies = await asyncio.gather(*(client.post("/v1/jobs", json=order) for _ in range(JOBS)))
    assert {reply.status_code for reply in replies} == {202}
    return [reply.json()["id"] for reply in replies]


async def reached(client: httpx2.AsyncClient, job_id: str, event_type: str) -> None:
    async with client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        async for line in stream.aiter_lines():
            if line == f"event: {event_type}":
                return


async def ended(client: httpx2.AsyncClient, job_id: str) -> str:
    while True:
        job = (await client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=50"})).json()
        if job["status"] in {"succeeded", "failed", "canceled"}:
            return str(job["status"])


async def all_ended_and_were_bought_once(
    client: httpx2.AsyncClient, jobs: list[str], books: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    assert await asyncio.gather(*(ended(client, job) for job in jobs)) == ["succeeded"] * JOBS
    summary = await books()
    assert (summary["accepted"], summary["charged"]) == (JOBS, JOBS)
    assert summary["references_charged_twice"] == []


@pytest.mark.parametrize("moment", ["job.submitting", "job.started", "job.storing"])
async def test_a_killed_worker_loses_nothing_and_submits_nothing_twice(
    stack: Stack, client: httpx2.AsyncClient, books: Callable[[], Awaitable[dict[str, Any]]], moment: str
) -> None:
    jobs = await ordered(client)
    await reached(client, jobs[JOBS // 2], moment)
    await stack.worker.process.kill()
    await stack.worker.start()
    await all_ended_and_were_bought_once(client, jobs, books)


async def test_a_flushed_redis_loses_nothing(
    stack: Stack, client: httpx2.AsyncClient, books: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    async with Redis.from_url(stack.valkey.url) as redis:
        jobs = await ordered(client)
        await redis.flushall()
        await reached(client, jobs[0], "job.started")
        await redis.flushall()
        await all_ended_and_were_bought_once(client, jobs, books)


async def test_without_redis_jobs_are_still_accepted_and_done(
    stack: Stack, client: httpx2.AsyncClient, books: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    jobs = await ordered(client)
    await stack.valkey.process.kill()
    try:
        while (readiness := (await client.get("/readyz")).json())["status"] == "ready":
            pass  # checked less than a second ago
        assert (readiness["status"], readiness["checks"]["redis"]["ok"]) == ("degraded", False)
        await all_ended_and_were_bought_once(client, jobs, books)
        order = {"model": "default", "prompt": PROMPT, "seconds": 1, "size": "640x360"}
        accepted = await client.post("/v1/jobs", json=order)
        assert accepted.status_code == 202
        assert await ended(client, accepted.json()["id"]) == "succeeded"
    finally:
        await stack.valkey.start()


async def test_a_killed_api_keeps_what_it_accepted(
    stack: Stack, client: httpx2.AsyncClient, books: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    jobs = await ordered(client)
    await stack.api.process.kill()
    await stack.api.start()
    await all_ended_and_were_bought_once(client, jobs, books)


async def test_told_to_stop_a_worker_hands_over_everything(
    stack: Stack, client: httpx2.AsyncClient, books: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    jobs = await ordered(client)
    await reached(client, jobs[0], "job.started")
    await stack.worker.stop()
    assert await stack.worker.process.wait() == 0
    await stack.worker.start()
    await all_ended_and_were_bought_once(client, jobs, books)


async def test_postgres_restarted_in_the_middle_loses_nothing(
    stack: Stack, client: httpx2.AsyncClient, books: Callable[[], Awaitable[dict[str, Any]]]
) -> None:
    jobs = await ordered(client)
    await reached(client, jobs[0], "job.started")
    await stack.postgres.process.kill()
    while (await client.get("/readyz")).status_code == 200:
        pass  # checked less than a second ago
    assert (await client.get(f"/v1/jobs/{jobs[0]}")).status_code == 503
    await stack.postgres.start()
    await all_ended_and_were_bought_once(client, jobs, books)
