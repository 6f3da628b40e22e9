"""What one account may have open or in progress at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import event

from app.accounts.scopes import Scope
from app.accounts.service import KeyService
from app.embedded.workspace import Ports
from app.infra.db import Database
from app.settings import Settings
from tests.support.gateway import Gateway, running_gateway


@pytest.fixture
async def narrow(settings: Settings, sandbox_url: str) -> AsyncIterator[Gateway]:
    """A gateway without a worker, with low limits."""
    low = {"streams_per_account": 2, "waits_per_account": 2, "max_concurrent": 3}
    api = settings.api.model_copy(update=low)
    jobs = settings.jobs.model_copy(update={"max_live_per_account": 3})
    lowered = settings.model_copy(update={"api": api, "jobs": jobs})
    async with running_gateway(lowered, sandbox_url, workers=0) as running:
        yield running


@asynccontextmanager
async def another_account(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    key = await KeyService(gateway.resources.database).create("others", "key", set(Scope))
    headers = {"Authorization": f"Bearer {key.text}"}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, timeout=60, verify=False) as client:
        yield client


@asynccontextmanager
async def stream_of(client: httpx2.AsyncClient, job_id: str) -> AsyncIterator[AsyncIterator[str]]:
    """An open stream that has told its first event."""
    async with client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: job.queued"
        yield lines


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


def assert_limited(reply: httpx2.Response, what: str) -> None:
    assert (reply.status_code, reply.json()["code"]) == (429, "rate_limited")
    assert what in reply.json()["detail"]
    assert int(reply.headers["retry-after"]) >= 1


async def test_streams_of_an_account_are_limited_and_those_of_others_are_not(narrow: Gateway) -> None:
    job = await narrow.create()
    events = f"/v1/jobs/{job['id']}/events"
    async with stream_of(narrow.client, job["id"]):
        async with stream_of(narrow.client, job["id"]):
            assert_limited(await narrow.client.get(events), "2 event streams")
            async with another_account(narrow) as other:
                theirs = await other.post("/v1/jobs", json={"prompt": "a kite", "model": "sandbox/video"})
                async with stream_of(other, theirs.json()["id"]):
                    assert (await narrow.client.get("/v1/jobs")).status_code == 200
        again = 429
        while again == 429:  # until the gateway has noticed that the client closed one
            async with narrow.client.stream("GET", events) as stream:
                again = stream.status_code
        assert again == 200


async def test_waits_of_an_account_are_limited_and_delay_no_other_request(narrow: Gateway) -> None:
    job = await narrow.create()
    path, prefer = f"/v1/jobs/{job['id']}", {"Prefer": "wait=30"}
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(narrow.client.get(path, headers=prefer)) for _ in range(3)]
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        assert_limited(done.pop().result(), "2 waiting requests")
        assert (await narrow.client.get(path)).json()["status"] == "queued"
        await narrow.client.post(f"{path}/cancel")
    assert sorted(task.result().status_code for task in waits) == [200, 200, 429]
    assert {task.result().headers.get("preference-applied") for task in waits} == {"wait=30", None}


async def test_a_wait_ends_when_its_client_hangs_up(narrow: Gateway) -> None:
    job = await narrow.create()
    path = f"/v1/jobs/{job['id']}"
    waits = [asyncio.create_task(narrow.client.get(path, headers={"Prefer": "wait=30"})) for _ in range(3)]
    (refused,), begun = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert_limited(refused.result(), "2 waiting requests")
    for wait in begun:
        wait.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
    while (again := await narrow.client.get(path, headers={"Prefer": "wait=1"})).status_code == 429:
        pass  # until the gateway has noticed; the 30 s are not over
    assert again.json()["status"] == "queued"


async def test_live_jobs_of_an_account_are_limited_but_replays_are_not(narrow: Gateway) -> None:
    order = {"prompt": "a kite", "model": "sandbox/video"}
    first = await narrow.create(key="first")
    for _ in range(2):
        await narrow.create()
    assert_limited(await narrow.client.post("/v1/jobs", json=order), "3 jobs that have not ended")
    assert_limited(
        await narrow.client.post("/v1/jobs", json=order, headers={"Idempotency-Key": "new"}), "3 jobs that have not"
    )
    assert (await narrow.create(key="first"))["id"] == first["id"]
    async with another_account(narrow) as other:
        assert (await other.post("/v1/jobs", json=order)).status_code == 202
    await narrow.client.post(f"/v1/jobs/{first['id']}/cancel")
    assert (await narrow.client.post("/v1/jobs", json=order)).status_code == 202


async def test_replays_share_their_round_trips(gateway: Gateway) -> None:
    made = await gateway.create(key="again")
    with statements(gateway.resources.database) as sent:
        again = await asyncio.gather(*(gateway.create(key="again") for _ in range(60)))
    assert {job["id"] for job in again} == {made["id"]}
    assert sum("idempotency_keys" in statement for statement in sent) < 60


async def test_many_probes_are_one_check(narrow: Gateway) -> None:
    with statements(narrow.resources.database) as sent:
        async with httpx2.AsyncClient(base_url=narrow.url, timeout=60, verify=False) as stranger:
            replies = await asyncio.gather(*(stranger.get("/readyz") for _ in range(150)))
    assert {reply.status_code for reply in replies} == {200}
    assert sum("FROM schedule" in statement for statement in sent) < 15


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_may_ask_with_head(narrow: Gateway, path: str) -> None:
    reply = await narrow.client.head(path)
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize(
    ("origins", "allowed"), [((), None), (("https://app.example",), "https://app.example"), ("*", "*")]
)
async def test_pages_of_configured_origins_may_call_the_api(
    settings: Settings, sandbox_url: str, origins: tuple[str, ...], allowed: str | None
) -> None:
    api = settings.api.model_copy(update={"cors_origins": tuple(origins)})
    async with running_gateway(settings.model_copy(update={"api": api}), sandbox_url, workers=0) as gateway:
        origin = {"Origin": "https://app.example"}
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = await gateway.client.options("/v1/jobs", headers={**origin, **asked})
        simple = await gateway.client.get("/v1/jobs", headers=origin)
        stranger = await gateway.client.get("/v1/jobs", headers={"Origin": "https://elsewhere.example"})
    assert simple.status_code == 200
    assert preflight.status_code == (200 if allowed else 405)
    assert [reply.headers.get("access-control-allow-origin") for reply in (preflight, simple)] == [allowed] * 2
    assert stranger.headers.get("access-control-allow-origin") == ("*" if allowed == "*" else None)
    assert "access-control-allow-credentials" not in simple.headers


async def test_an_empty_host_listens_on_both_stacks(settings: Settings, sandbox_url: str) -> None:
    # Port 0 would be another one on each.
    api = settings.api.model_copy(update={"host": "", "port": Ports.free().api})
    both = settings.model_copy(update={"api": api})
    async with running_gateway(both, sandbox_url, workers=0), httpx2.AsyncClient(verify=False) as client:
        for host in ("127.0.0.1", "[::1]"):
            assert (await client.get(f"http://{host}:{api.port}/healthz")).status_code == 200
