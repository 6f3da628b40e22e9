"""Behind a path prefix, every URL that the gateway names leads back to it."""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from app.settings import ApiSettings, Settings
from tests.support.gateway import Gateway, running_gateway

PREFIX = "/filmgate"
ORDER = {"prompt": "a dog", "model": "sandbox/video"}


def with_api(settings: Settings, **values: Any) -> Settings:
    api = ApiSettings.model_validate({**settings.api.model_dump(), **values})
    return settings.model_copy(update={"api": api})


async def locations(gateway: Gateway, *headers: Mapping[str, str]) -> list[str]:
    """Where the jobs are that are ordered with these headers."""
    found = []
    for lines in headers:
        created = await gateway.client.post("/v1/jobs", json=ORDER, headers=lines)
        found.append(created.headers["Location"].removesuffix(created.json()["id"]))
    return found


@pytest.mark.parametrize("path", ["", PREFIX], ids=["the proxy strips it", "the proxy leaves it"])
async def test_the_path_of_the_public_url_is_the_prefix_of_every_url(
    settings: Settings, sandbox_url: str, path: str
) -> None:
    behind = with_api(settings, public_url=f"https://videos.example{PREFIX}/")
    async with running_gateway(behind, sandbox_url) as gateway:
        created = await gateway.client.post(f"{path}/v1/jobs", json=ORDER)
        location = created.headers["Location"]
        assert location == f"{PREFIX}/v1/jobs/{created.json()['id']}"
        job = await gateway.ended(created.json()["id"])
        assert {asset["content_url"].partition("/v1/")[0] for asset in job["assets"].values()} == {
            f"https://videos.example{PREFIX}"
        }
        document = (await gateway.client.get(f"{path}/openapi.json")).json()
        assert document["servers"] == [{"url": PREFIX}]
        problem = (await gateway.client.get("/", headers={"X-Long": "x" * 70_000})).json()
        assert problem["type"] == f"{PREFIX}/docs/problems/headers_too_large"
        for known in ("/docs", "/healthz", "/metrics"):
            assert (await gateway.client.get(path + known)).status_code == 200, known
        assert (await gateway.client.put(f"{path}/v1/jobs")).headers["Allow"] == "GET, POST"


async def test_only_a_trusted_proxy_names_the_prefix(settings: Settings, sandbox_url: str) -> None:
    named: Mapping[str, str] = {"X-Forwarded-Prefix": "/videos/"}
    odd = [
        *("//evil.example", "https://evil.example", "/a b", "/a?b", "/a\\b", "/a, /b", ""),
        *("/a/../b", "/v1", "/v1/jobs", "/docs", "/x" * 200),
    ]
    async with running_gateway(settings, sandbox_url, workers=0) as gateway:
        assert await locations(gateway, named, {}) == ["/videos/v1/jobs/", "/v1/jobs/"]
        assert set(await locations(gateway, *({"X-Forwarded-Prefix": prefix} for prefix in odd))) == {"/v1/jobs/"}
        # A prefix ends where a segment ends: "/v" is none of "/v1/jobs".
        refused = await gateway.client.put("/v1/jobs", headers={"X-Forwarded-Prefix": "/v"})
        assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, POST")
    async with running_gateway(with_api(settings, trusted_proxies=()), sandbox_url, workers=0) as gateway:
        assert await locations(gateway, named) == ["/v1/jobs/"]


async def test_content_urls_have_the_prefix_of_the_request_that_asked(settings: Settings, sandbox_url: str) -> None:
    async with running_gateway(settings, sandbox_url) as gateway:
        job_id = (await gateway.client.post("/v1/jobs", json=ORDER)).json()["id"]
        await gateway.ended(job_id)

        async def urls(prefix: str) -> set[str]:
            """The first parts of all URLs that a client behind this prefix is given."""
            behind = {"X-Forwarded-Prefix": prefix} if prefix else {}
            job, jobs = [
                (await gateway.client.get(f"{prefix}/v1/jobs{path}", headers=behind)).json()
                for path in (f"/{job_id}", "?limit=1")
            ]
            stream = await gateway.client.get(f"{prefix}/v1/jobs/{job_id}/events", headers=behind)
            last = json.loads(re.findall("^data: (.*)$", stream.text, re.MULTILINE)[-1])["data"]
            assert last["assets"] == job["assets"]
            found = [asset["content_url"] for one in (job, *jobs["data"], last) for asset in one["assets"].values()]
            asset_id = job["assets"]["video"]["id"]
            signed = await gateway.client.get(f"{prefix}/v1/assets/{asset_id}?signed=1", headers=behind)
            content = await gateway.client.get(signed.json()["url"], headers=behind)
            assert (content.status_code, content.headers["content-type"]) == (200, "video/mp4")
            return {url.partition("/v1/")[0] for url in (*found, signed.json()["content_url"], signed.json()["url"])}

        # Side by side: reads that share a round trip share no prefix.
        prefixes = ["/videos", "", "/gw/eu"] * 5
        assert await asyncio.gather(*map(urls, prefixes)) == [{prefix} for prefix in prefixes]


async def test_the_type_of_a_problem_leads_to_its_page_behind_a_prefix(gateway: Gateway) -> None:
    behind = {"X-Forwarded-Prefix": "/videos"}
    problem = (await gateway.client.get("/videos/v1/jobs/nothing", headers=behind)).json()
    assert problem["type"] == "/videos/docs/problems/not_found"
    page = await gateway.client.get(problem["type"], headers=behind)
    assert (page.status_code, "not_found" in page.text) == (200, True)


async def test_the_docs_come_from_the_gateway_alone(gateway: Gateway) -> None:
    assert [(await gateway.client.head(path)).status_code for path in ("/", "/docs")] == [307, 200]
    page = await gateway.client.get("/docs")
    named = set(re.findall(r"(?:src|href|url)[=:]\s*[\"']([^\"']+)[\"']", page.text))
    assert len(named) == 4
    for url in named:
        assert not re.match(r"[a-z]+:|/", url), url
        found = await gateway.client.get(str(httpx2.URL(f"{gateway.url}/docs").join(url)))
        assert (found.status_code, bool(found.content)) == (200, True), url
    assert (await gateway.client.get("/docs/../main.py")).status_code == 404
    assert (await gateway.client.get("/docs/__init__.py")).status_code == 404


async def test_the_docs_can_be_switched_off(settings: Settings, sandbox_url: str) -> None:
    async with running_gateway(with_api(settings, docs=False), sandbox_url, workers=0) as gateway:
        for path in ("/", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
            assert (await gateway.client.get(path)).status_code == 404, path
        assert (await gateway.client.get("/v1/models")).status_code == 200
