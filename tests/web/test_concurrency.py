"""More requests than a process works on at once: in line, in turn, or refused before any work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.datastructures import Headers

from app.web import bodies, concurrency
from app.web.bodies import BoundedBody
from app.web.concurrency import Concurrency, Line, network_of
from tests.support.asgi_server import serving


class App:
    """Notes who came in, and holds everybody up until the gate opens. ``/stream`` begins its response at once."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.gate = asyncio.Event()
        self.news = asyncio.Condition()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"]
        self.begun.append(name)
        await self.tell()
        if name == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if name != "/healthz":
            await self.gate.wait()
        body = await receive() if scope["method"] == "POST" else {"body": b""}
        if name != "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body["body"]})
        self.ended.append(name)
        await self.tell()

    async def tell(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def until(self, count: int) -> None:
        async with self.news:
            await self.news.wait_for(lambda: len(self.begun) >= count)

    async def until_ended(self, count: int) -> None:
        async with self.news:
            await self.news.wait_for(lambda: len(self.ended) >= count)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def line(app: App) -> Concurrency:
    return line_before(app, limit=1)


def account_of(scope: Any) -> str | None:
    """Without a header it is an account, too; "stranger" is none."""
    header = Headers(scope=scope).get("authorization", "some")
    return None if header == "stranger" else header


def line_before(app: App, limit: int) -> Concurrency:
    return Concurrency(app, limit=limit, line=3, account_of=account_of)


@pytest.fixture
async def client(line: Concurrency) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(line) as one:
        yield one


@asynccontextmanager
async def client_of(line: Concurrency) -> AsyncIterator[httpx2.AsyncClient]:
    async with serving(BoundedBody(line, max_bytes=1000, timeout=60, caller_of=network_of)) as (host, port):
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", timeout=60, verify=False, limits=limits) as one:
            yield one


async def in_line(line: Line, length: int) -> None:
    while len(line) != length:  # noqa: ASYNC110  # there is no event for it, and none is needed elsewhere
        await asyncio.sleep(0.005)


async def test_who_finds_the_line_full_is_refused_before_any_work(
    app: App, line: Concurrency, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "PATIENCE_SECONDS", 3600)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(client.get("/1"))
        await app.until(1)
        waiting = [group.create_task(client.post(f"/{number}", content=b"body")) for number in (2, 3, 4)]
        await in_line(line.line, 3)
        refused = await client.get("/5")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/healthz")).status_code == 200
        assert app.begun == ["/1", "/healthz"]
        app.gate.set()
    assert first.result().status_code == 200
    assert [task.result().text for task in waiting] == ["body"] * 3
    assert sorted(app.begun) == ["/1", "/2", "/3", "/4", "/healthz"]


async def test_who_waited_long_enough_is_refused(
    app: App, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "PATIENCE_SECONDS", 0.02)
    async with asyncio.TaskGroup() as group:
        group.create_task(client.get("/1"))
        await app.until(1)
        assert (await client.get("/2")).status_code == 503
        app.gate.set()
    assert (await client.get("/3")).status_code == 200
    assert app.begun == ["/1", "/3"]


async def test_work_for_a_client_that_has_gone_is_dropped(
    app: App, line: Concurrency, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "PATIENCE_SECONDS", 3600)
    async with asyncio.TaskGroup() as group:
        group.create_task(client.get("/1"))
        await app.until(1)
        gone = group.create_task(client.post("/2", content=b"body"))
        await in_line(line.line, 1)
        gone.cancel()
        await in_line(line.line, 0)
        app.gate.set()
    assert (await client.get("/3")).status_code == 200
    assert app.begun == ["/1", "/3"]


async def test_a_refusal_is_held_back_but_not_for_a_client_that_has_gone(
    app: App, line: Concurrency, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "PATIENCE_SECONDS", 3600)
    monkeypatch.setattr(concurrency, "REFUSAL_SECONDS", 3600)
    async with asyncio.TaskGroup() as group:
        group.create_task(client.get("/1"))
        await app.until(1)
        waiting = [group.create_task(client.get(f"/{number}")) for number in (2, 3, 4)]
        await in_line(line.line, 3)
        refused = group.create_task(client.get("/5"))
        await client.get("/healthz")
        assert not refused.done()
        refused.cancel()
        app.gate.set()
    assert [task.result().status_code for task in waiting] == [200] * 3
    assert "/5" not in app.begun


async def test_a_caller_takes_a_share_while_another_is_there_and_all_when_alone(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "PATIENCE_SECONDS", 3600)
    monkeypatch.setattr(concurrency, "SHARE", 2)
    monkeypatch.setattr(concurrency, "PRESENT_SECONDS", 3600)
    many, one = {"Authorization": "Bearer many"}, {"Authorization": "Bearer one"}
    line = line_before(app, limit=4)
    async with client_of(line) as client, asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(client.get(f"/alone-{number}", headers=many))
        await app.until(3)
        group.create_task(client.get("/of-another", headers=one))
        await app.until(4)
        group.create_task(client.get("/in-line", headers=many))
        await in_line(line.line, 1)
        app.gate.set()
        await app.until_ended(5)
        app.gate.clear()
        for number in range(3):
            group.create_task(client.get(f"/beside-{number}", headers=many))
        await in_line(line.line, 1)
        assert len(app.begun) == 7
        monkeypatch.setattr(concurrency, "PRESENT_SECONDS", 0)
        group.create_task(client.get("/again-alone", headers=many))
        await app.until(9)  # and the one that waited
        app.gate.set()


async def test_strangers_and_probes_take_few_slots_and_none_of_accounts(app: App) -> None:
    line = line_before(app, limit=1)
    async with client_of(line) as client, asyncio.TaskGroup() as group:
        for number in range(concurrency.STRANGERS + 2):
            group.create_task(client.get(f"/{number}", headers={"Authorization": "stranger"}))
        await in_line(line.strangers, 2)
        assert len(app.begun) == concurrency.STRANGERS
        group.create_task(client.get("/of-an-account"))
        await app.until(concurrency.STRANGERS + 1)
        assert (await client.get("/healthz")).status_code == 200
        app.gate.set()


async def test_bodies_that_do_not_fit_into_memory_together_are_refused(
    app: App, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MOST_BUFFERED_BYTES", 1000)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(client.post("/1", content=b"a" * 600))
        await app.until(1)
        refused = await client.post("/2", content=b"a" * 600)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert refused.headers["connection"] == "close"
        app.gate.set()
    assert first.result().status_code == 200
    assert [(await client.post("/3", content=b"a" * 600)).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (("203.0.113.7", 1), "203.0.113.7"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("junk17", 0), ""),
        (None, ""),
    ],
)
def test_a_stranger_is_a_network(client: Any, network: str) -> None:
    assert concurrency.network_of({"client": client}) == network


async def test_callers_take_turns(line: Concurrency, app: App, client: httpx2.AsyncClient) -> None:
    many, one = {"Authorization": "Bearer many"}, {"Authorization": "Bearer one"}
    async with asyncio.TaskGroup() as group:
        group.create_task(client.get("/1", headers=many))
        await app.until(1)
        for number in (2, 3):
            group.create_task(client.get(f"/{number}", headers=many))
            await in_line(line.line, number - 1)
        group.create_task(client.get("/of-another", headers=one))
        await in_line(line.line, 3)
        app.gate.set()
    assert app.begun == ["/1", "/2", "/of-another", "/3"]


async def test_a_response_that_has_begun_delays_no_other_request(app: App, client: httpx2.AsyncClient) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(client.get("/stream"))
        await app.until(1)
        group.create_task(client.get("/2"))
        await app.until(2)
        app.gate.set()
    assert app.ended == ["/stream", "/2"]


async def test_a_caller_with_few_requests_displaces_one_of_the_caller_with_most(
    app: App, line: Concurrency, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "PATIENCE_SECONDS", 3600)
    many, one = {"Authorization": "Bearer many"}, {"Authorization": "Bearer one"}
    async with asyncio.TaskGroup() as group:
        group.create_task(client.get("/1", headers=many))
        await app.until(1)
        waiting = []
        for number in (2, 3, 4):
            waiting.append(group.create_task(client.get(f"/{number}", headers=many)))
            await in_line(line.line, number - 1)
        other = group.create_task(client.get("/of-another", headers=one))
        assert (await waiting[-1]).status_code == 503
        assert (await client.get("/5", headers=many)).status_code == 503
        app.gate.set()
    assert [task.result().status_code for task in (*waiting[:2], other)] == [200, 200, 200]
