"""Files that are fetched from a URL: once, by us, and from nowhere that a customer may not call."""

from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from tests.support.gateway import Gateway, running_gateway
from tests.support.raw_server import Say, Then, reply, running_raw_server
from tests.support.sample_files import picture
from tests.support.settings import gateway_settings

PNG = picture("PNG")


async def fetched(gateway: Gateway, url: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    answered = await gateway.client.post("/v1/files", json={"url": url, **fields})
    return answered.status_code, answered.json()


async def test_a_url_is_fetched_once_and_what_it_delivers_is_kept(gateway: Gateway) -> None:
    async with running_raw_server(reply(PNG)) as server:
        status, file = await fetched(gateway, f"{server.url}/photo.png?token=1", name="mine.png")
        assert (status, file["kind"], file["name"], file["size_bytes"]) == (201, "image", "mine.png", len(PNG))
        (heard,) = server.heard
    assert heard.line == "GET /photo.png?token=1 HTTP/1.1"
    assert not {"authorization", "cookie"} & heard.headers.keys()


async def test_redirects_are_followed_and_each_is_checked(gateway: Gateway) -> None:
    async with running_raw_server() as server:
        there = reply(b"", f"Location: {server.url}/there", status="302 Found")
        server.will_say(reply(b"", "Location: /next", status="307 Temporary Redirect"), there, reply(PNG))
        assert (await fetched(gateway, f"{server.url}/a"))[0] == 201
        assert [heard.line.split()[1] for heard in server.heard] == ["/a", "/next", "/there"]
        server.will_say(reply(b"", "Location: /again", status="302 Found"))
        status, problem = await fetched(gateway, f"{server.url}/b")
        assert (status, problem["errors"][0]["field"]) == (422, "url")
        assert "redirects" in problem["detail"]
        for target in ("http://169.254.169.254/latest", "file:///etc/passwd", "https://10.0.0.1/", "http://[::1]:1/"):
            server.will_say(reply(b"", f"Location: {target}", status="302 Found"))
            status, problem = await fetched(gateway, f"{server.url}/c")
            assert (status, problem["errors"][0]["code"]) == (422, "not_fetched"), target


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(b"no", status="404 Not Found"), "HTTP 404"),
        (reply(b"no", status="403 Forbidden"), "HTTP 403"),
        (reply(b"<html>Please log in</html>", "Content-Type: image/png"), "none of the accepted formats"),
        (Say(), "broke"),
        (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + PNG), "broke"),
        (reply(b"", status="304 Not Modified"), "HTTP 304"),
    ],
    ids=["missing", "expired", "a page", "nothing", "cut", "not modified"],
)
async def test_a_url_that_delivers_no_file_is_refused(gateway: Gateway, answer: Say, message: str) -> None:
    async with running_raw_server(answer) as server:
        status, problem = await fetched(gateway, server.url)
    assert (status, problem["errors"][0]["field"]) == (422, "url")
    assert message in problem["detail"]
    assert (await gateway.client.get("/v1/files")).json()["data"] == []


async def test_a_url_that_drips_has_its_time(settings: Settings, sandbox_url: str) -> None:
    hurried = settings.model_copy(update={"files": settings.files.model_copy(update={"fetch_timeout": 0.2})})
    drip = Say(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + PNG[:10], Then.HANG)
    async with running_gateway(hurried, sandbox_url) as gateway, running_raw_server(drip) as server:
        status, problem = await fetched(gateway, server.url)
    assert (status, problem["errors"][0]["code"]) == (422, "not_fetched")
    assert "within 0.2 seconds" in problem["detail"]


@pytest.mark.parametrize(
    "url",
    ["http://example.com/a.png", "https://127.0.0.1/a.png", "https://localhost/a", "https://metadata.internal/", "x"],
)
async def test_private_targets_are_refused(
    postgres_url: str, redis_url: str, sandbox_url: str, tmp_path: Path, url: str
) -> None:
    strict = gateway_settings(
        postgres_url=postgres_url,
        redis_url=redis_url,
        sandbox_url=sandbox_url,
        directory=tmp_path,
        webhooks={"allow_http": False, "allowed_networks": []},
    )
    async with running_gateway(strict, sandbox_url) as gateway:
        status, problem = await fetched(gateway, url)
    assert (status, problem["errors"][0]["field"]) == (422, "url")
