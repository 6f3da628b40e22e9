"""What happens to every request. Bodies have a file of their own: test_bodies.py."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.infra import metrics
from tests.support.middleware_app import Gateway, access_line


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(gateway.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as opened:
        yield opened


# Request ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", ["a", "Req-1.2_3", "x" * 128])
async def test_a_request_keeps_the_id_that_it_came_with(client: httpx2.AsyncClient, request_id: str) -> None:
    answer = await client.get("/v1/things/1", headers={"x-request-id": request_id})
    assert answer.headers.get_list("x-request-id") == [request_id]


@pytest.mark.parametrize("request_id", [None, "", "x" * 129, "a b", "a\tb", "<script>", "a/b", "a,b"])
async def test_any_other_request_gets_a_new_one(client: httpx2.AsyncClient, request_id: str | None) -> None:
    headers = {} if request_id is None else {"x-request-id": request_id}
    answers = [await client.get("/v1/things/1", headers=headers) for _ in range(2)]
    made = {answer.headers["x-request-id"] for answer in answers}
    assert len(made) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", request_id) for request_id in made)


async def test_the_request_id_is_in_every_log_line_of_the_request_and_only_there(client: httpx2.AsyncClient) -> None:
    structlog.contextvars.bind_contextvars(left_over="from the request before")
    with capture_logs() as logs:
        await client.get("/v1/logs", headers={"x-request-id": "req-1"})
    [line] = [line for line in logs if line["event"] == "video stored"]
    assert line["context"] == {"request_id": "req-1"}


# Headers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/things/1", "/v1/bug", "/nowhere"])
async def test_every_response_is_kept_out_of_caches_and_guesses(client: httpx2.AsyncClient, path: str) -> None:
    with capture_logs():
        answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_route_may_know_better(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/asset")
    assert answer.headers.get_list("cache-control") == ["private, max-age=60"]
    assert answer.headers.get_list("referrer-policy") == ["origin"]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


# Logs and metrics -----------------------------------------------------------------------------------------------------


async def test_a_request_is_logged_by_its_route_and_never_by_its_path(client: httpx2.AsyncClient) -> None:
    with capture_logs() as logs:
        await client.get("/v1/things/secret-token?key=hunter2", headers={"x-request-id": "req-1"})
    line = access_line(logs)
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "request completed",
        "log_level": "info",
        "method": "GET",
        "route": "/v1/things/{name}",
        "status": 200,
        "client": "127.0.0.1",
    }
    assert "secret-token" not in repr(logs)
    assert "hunter2" not in repr(logs)


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/nowhere/secret-token", "unrouted", 404),
        ("DELETE", "/v1/things/1", "/v1/things/{name}", 405),
        ("PROPFIND", "/v1/things/1", "/v1/things/{name}", 405),
        ("GET", "/v1/bug", "/v1/bug", 500),
    ],
)
async def test_what_goes_wrong_is_counted_too_with_few_labels(
    client: httpx2.AsyncClient, method: str, path: str, route: str, status: int
) -> None:
    labels = {"method": "OTHER" if method == "PROPFIND" else method, "route": route, "status": str(status)}

    def count() -> float:
        return metrics.REGISTRY.get_sample_value("filmgate_http_request_seconds_count", labels) or 0

    before = count()
    with capture_logs() as logs:
        await client.request(method, path)
    assert count() == before + 1
    assert (access_line(logs)["route"], access_line(logs)["status"]) == (route, status)


async def test_health_checks_are_not_worth_a_line(client: httpx2.AsyncClient) -> None:
    with capture_logs() as logs:
        await client.get("/healthz")
    assert access_line(logs)["log_level"] == "debug"


async def test_what_is_no_request_passes_through(gateway: Gateway) -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        opened.append("opened")
        yield
        opened.append("closed")

    gateway.app.router.lifespan_context = lifespan
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await gateway.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert opened == ["opened", "closed"]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
