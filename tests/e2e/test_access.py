"""Who gets at what, route by route: PROMISES, S2, S3 and S6, against the running product."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from app.accounts import keys
from app.accounts.scopes import ALL, Scope
from app.accounts.service import KeyService
from app.clock import utc_now
from app.ids import Prefix, encode, new_id
from app.settings import Settings
from tests.support.captured_log import captured_log
from tests.support.gateway import PROMPT, Gateway
from tests.support.receiver import Answer, running_receiver
from tests.support.sample_files import picture

DOCUMENT = json.loads((Path(__file__).parents[2] / "openapi" / "gateway.json").read_text())
#: The scope that each operation needs; None: anybody may ask. A new operation must be entered here.
SCOPES = {
    "create_job": Scope.JOBS_WRITE,
    "create_job_again": Scope.JOBS_WRITE,
    "list_jobs": Scope.JOBS_READ,
    "get_job": Scope.JOBS_READ,
    "cancel_job": Scope.JOBS_WRITE,
    "list_job_submissions": Scope.JOBS_READ,
    "list_job_deliveries": Scope.JOBS_READ,
    "stream_job_events": Scope.JOBS_READ,
    "create_file": Scope.FILES_WRITE,
    "list_files": Scope.FILES_READ,
    "get_file": Scope.FILES_READ,
    "get_file_content": Scope.FILES_READ,
    "delete_file": Scope.FILES_WRITE,
    "get_asset": Scope.ASSETS_READ,
    "get_asset_content": Scope.ASSETS_READ,
    "head_asset_content": Scope.ASSETS_READ,
    "list_models": Scope.JOBS_READ,
    "get_webhook_secret": Scope.WEBHOOKS_READ,
    "get_health": None,
    "get_readiness": None,
    "get_metrics": Scope.METRICS_READ,
    "get_input": None,  # nor for what it fetches
    "head_input": None,
    "receive_callback": None,  # a provider has no key: the token in the URL is the proof
}
OPEN = {"get_health", "get_readiness", "receive_callback", "get_input", "head_input"}
SAME_REQUEST = {"X-Request-Id": "same"}
SECURITY_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


@dataclass(frozen=True)
class Operation:
    """One operation of the document; ``path`` has its parameters unfilled until :meth:`on`."""

    id: str
    method: str
    path: str

    def on(self, job_id: str, asset_id: str, file_id: str) -> "Operation":
        things = {"job_id": job_id, "asset_id": asset_id, "file_id": file_id}
        return replace(self, path=self.path.format(**things, connection="sandbox-kling", token="sub_x.y", name="a.png"))

    async def ask(self, client: httpx2.AsyncClient, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        body = {"create_job": {"prompt": PROMPT, "model": "sandbox/video"}, "create_job_again": {}}.get(self.id)
        files = {"file": ("photo.png", picture("PNG"))} if self.id == "create_file" else None
        return await client.request(self.method, self.path, json=body, files=files, headers=headers)


#: What deletes comes last.
OPERATIONS = tuple(
    sorted(
        (
            Operation(described["operationId"], method.upper(), path)
            for path, methods in DOCUMENT["paths"].items()
            for method, described in methods.items()
        ),
        key=lambda operation: operation.method == "DELETE",
    )
)
CLOSED = tuple(operation for operation in OPERATIONS if SCOPES.get(operation.id))


@dataclass(frozen=True)
class Owned:
    """What the gateway's own client has: a job that succeeded, its video, and a file that it gave."""

    job_id: str
    video_id: str
    file_id: str

    def operations(self) -> list[Operation]:
        """The closed operations, each on the owner's things."""
        return [operation.on(self.job_id, self.video_id, self.file_id) for operation in CLOSED]


@pytest.fixture
async def owned(gateway: Gateway) -> Owned:
    job = await gateway.ended((await gateway.create(metadata={"order": "7"}))["id"])
    given = (await gateway.client.post("/v1/files", files={"file": ("photo.png", picture("PNG"))})).json()
    return Owned(job["id"], job["assets"]["video"]["id"], given["id"])


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a key."""
    async with httpx2.AsyncClient(base_url=gateway.url, timeout=30, verify=False) as client:
        yield client


async def bearer(gateway: Gateway, *scopes: str, account: str = "tests") -> dict[str, str]:
    """The header of a new key."""
    key = await KeyService(gateway.resources.database).create(account, "key", scopes or ALL)
    return {"Authorization": f"Bearer {key.text}"}


def same(answer: httpx2.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All of an answer that may differ from another one."""
    return answer.status_code, answer.content, sorted(item for item in answer.headers.items() if item[0] != "date")


# Keys -----------------------------------------------------------------------------------------------------------------


def test_every_operation_has_its_scope_and_only_health_and_callbacks_have_none() -> None:
    assert {operation.id for operation in OPERATIONS} == set(SCOPES)
    assert {operation for operation, scope in SCOPES.items() if scope is None} == OPEN
    undocumented = {described["operationId"] for path in DOCUMENT["paths"].values() for described in path.values()} - {
        described["operationId"]
        for path in DOCUMENT["paths"].values()
        for described in path.values()
        if {"ApiKey": []} in described.get("security", [])
    }
    assert undocumented == OPEN


async def strangers(gateway: Gateway) -> dict[str, dict[str, str]]:
    """Headers that let nobody in."""
    service = KeyService(gateway.resources.database)
    live = gateway.client.headers["authorization"].removeprefix("Bearer ")
    revoked = await service.create("tests", "revoked")
    assert await service.revoke(revoked.id)
    expired = await service.create("tests", "expired", expires_at=utc_now() - timedelta(seconds=1))
    values = {
        "malformed": "Bearer fgk_nothing",
        "mistyped": f"Bearer {live[:-1]}{'0' if live[-1] != '0' else '1'}",
        "unknown": f"Bearer {keys.generate()}",
        "revoked": f"Bearer {revoked.text}",
        "expired": f"Bearer {expired.text}",
        "empty": "",
        "no key": "Bearer",
        "no scheme": live,
        "another scheme": f"Basic {live}",
        "two keys": f"Bearer {live}, Bearer {live}",
    }
    elsewhere = {name: {name: f"Bearer {live}"} for name in ("X-Api-Key", "Cookie", "Proxy-Authorization")}
    return {"nothing": {}, **{name: {"Authorization": value} for name, value in values.items()}, **elsewhere}


async def test_nothing_but_health_and_docs_is_served_without_a_live_key(
    gateway: Gateway, owned: Owned, http: httpx2.AsyncClient
) -> None:
    headers = await strangers(gateway)
    for operation in owned.operations():
        statuses = {name: (await operation.ask(http, value)).status_code for name, value in headers.items()}
        assert statuses == dict.fromkeys(headers, 401), operation
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert (await http.get(path)).status_code == 200, path


async def test_a_stranger_does_not_learn_what_exists(gateway: Gateway, owned: Owned, http: httpx2.AsyncClient) -> None:
    del gateway
    for operation in CLOSED:
        there = await operation.on(owned.job_id, owned.video_id, owned.file_id).ask(http, SAME_REQUEST)
        missing = await operation.on("job_x", "ast_x", "file_x").ask(http, SAME_REQUEST)
        assert same(there) == same(missing), operation
        assert there.headers["www-authenticate"] == "Bearer"


async def test_a_revoked_key_is_refused_once_the_cache_has_forgotten_it(
    gateway: Gateway, http: httpx2.AsyncClient
) -> None:
    service = KeyService(gateway.resources.database)
    key = await service.create("tests", "short-lived")
    headers = {"Authorization": f"Bearer {key.text}"}
    assert (await http.get("/v1/jobs", headers=headers)).status_code == 200
    await service.revoke(key.id)
    async with asyncio.timeout(60):  # after how many seconds: tests/accounts/test_auth.py
        while (await http.get("/v1/jobs", headers=headers)).status_code == 200:  # noqa: ASYNC110  # the cache tells no one
            await asyncio.sleep(0.1)


async def test_a_key_opens_what_its_scope_says_and_nothing_else(
    gateway: Gateway, owned: Owned, http: httpx2.AsyncClient
) -> None:
    only = {scope: await bearer(gateway, scope) for scope in ALL}
    for operation in owned.operations():
        needed = SCOPES[operation.id]
        assert needed is not None
        answers = {scope: await operation.ask(http, headers) for scope, headers in only.items()}
        refused = {scope for scope, answer in answers.items() if answer.status_code == 403}
        assert refused == ALL - {needed}, operation
        # 409: the job cannot be canceled any more.
        assert answers[needed].status_code in ({409} if operation.id == "cancel_job" else {200, 201, 202, 204}), (
            operation
        )


# Other accounts -------------------------------------------------------------------------------------------------------


async def test_a_foreign_object_is_byte_for_byte_a_missing_one(
    gateway: Gateway, owned: Owned, http: httpx2.AsyncClient
) -> None:
    headers = await bearer(gateway, account="others") | SAME_REQUEST
    named = [operation for operation in CLOSED if "{" in operation.path]
    for operation in named:
        nothing = [encode(prefix, new_id()) for prefix in (Prefix.JOB, Prefix.ASSET, Prefix.FILE)]
        foreign = await operation.on(owned.job_id, owned.video_id, owned.file_id).ask(http, headers)
        missing = await operation.on(*nothing).ask(http, headers)
        assert foreign.status_code == 404, operation
        assert same(foreign) == same(missing), operation


@pytest.mark.parametrize("header", [{"Range": "bytes=0-1"}, {"If-None-Match": "*"}, {"Prefer": "wait=1"}])
async def test_no_header_tells_a_foreign_object_from_a_missing_one(
    gateway: Gateway, owned: Owned, http: httpx2.AsyncClient, header: dict[str, str]
) -> None:
    headers = await bearer(gateway, account="others") | SAME_REQUEST | header
    for path, foreign, missing in (
        ("/v1/assets/{}/content", owned.video_id, encode(Prefix.ASSET, new_id())),
        ("/v1/jobs/{}", owned.job_id, encode(Prefix.JOB, new_id())),
    ):
        answers = [await http.get(path.format(name), headers=headers) for name in (foreign, missing)]
        assert same(answers[0]) == same(answers[1])
        assert answers[0].status_code == 404


async def test_a_wrong_signature_does_not_tell_whether_the_video_exists(
    gateway: Gateway, owned: Owned, http: httpx2.AsyncClient
) -> None:
    del gateway
    query = "expires=9999999999&signature=wrong"
    there, missing = [
        await http.get(f"/v1/assets/{video}/content?{query}", headers=SAME_REQUEST)
        for video in (owned.video_id, encode(Prefix.ASSET, new_id()))
    ]
    assert same(there) == same(missing)
    assert there.status_code == 403


async def test_a_signed_url_opens_its_video_and_nothing_else(
    gateway: Gateway, owned: Owned, http: httpx2.AsyncClient
) -> None:
    asset = (await gateway.client.get(f"/v1/assets/{owned.video_id}?signed=1")).json()
    poster = (await gateway.get(owned.job_id))["assets"]["poster"]["id"]
    query = urlsplit(asset["url"]).query
    assert (await http.get(asset["url"])).status_code == 200
    assert (await http.get(f"/v1/assets/{poster}/content?{query}")).status_code == 403
    for operation in owned.operations():
        if not operation.id.endswith("asset_content"):
            signed = replace(operation, path=f"{operation.path}?{query}")
            assert (await signed.ask(http)).status_code == 401, operation
    others = await bearer(gateway, account="others")
    assert (await http.get(asset["url"], headers=others)).status_code == 200
    assert (await http.get(asset["url"].partition("?")[0], headers=others)).status_code == 404


# Tricks with the request line and the headers ------------------------------------------------------------------------

TARGETS = (
    *("//v1/jobs", "/v1//jobs", "/v1/jobs/", "/v1/jobs//", "/V1/jobs", "/v1/./jobs", "/v1/jobs/../jobs"),
    *("/healthz/../v1/jobs", "/healthz/..%2fv1/jobs", "/healthz%2f..%2fv1%2fjobs", "/v1%2fjobs", "/v1/jobs%00"),
    *("/docs/../v1/jobs", "/v1/jobs;/healthz", "/v1/jobs%3f/healthz", "/v1/jobs#/healthz", "/%76%31/%6a%6f%62%73"),
    *("/v1/jobs?path=/healthz", "/v1/jobs/%2e%2e/jobs", "/v1/jobs\\..\\healthz", "/healthz?/v1/jobs", "*"),
    *("http://127.0.0.1/v1/jobs", "http://localhost/healthz/../v1/jobs", "https://healthz/v1/jobs"),
    *("/v1/jobs/{job}", "//v1/jobs/{job}", "/v1/jobs/{job}/", "/v1/jobs/x%2f..%2f{job}", "/v1/assets/{video}//content"),
    *("/v1/assets/{video}/content?signed=1", "/metrics/", "//metrics", "/metrics%2f", "/healthz/../metrics"),
)
DISGUISES = (
    "Host: localhost",
    "Host: healthz",
    "Host: 127.0.0.1/healthz?",
    "Host: ",
    "Host: x\r\nX-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz",
    "Host: x\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1;host=localhost",
    "Host: x\r\nX-Forwarded-Host: localhost\r\nX-Forwarded-Prefix: /healthz\r\nX-Forwarded-Proto: https",
    "Host: x\r\nX-HTTP-Method-Override: OPTIONS\r\nX-Forwarded-User: tests\r\nX-Account-Id: tests",
)


async def said(port: int, *requests: str) -> bytes:
    """Everything that the gateway answers to these bytes, until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("".join(requests).encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_no_spelling_of_a_path_and_no_header_gets_around_the_key(gateway: Gateway, owned: Owned) -> None:
    port = int(gateway.url.rpartition(":")[2])
    for target in TARGETS:
        for disguise in DISGUISES:
            line = target.format(job=owned.job_id, video=owned.video_id)
            answer = await said(port, f"GET {line} HTTP/1.1\r\n{disguise}\r\nConnection: close\r\n\r\n")
            status = int(answer.split(b" ", 2)[1])
            # The whole line is a query of /healthz, or it says nothing that is a path.
            assert status in {400, 401, 404} or (target.startswith("/healthz?") and status == 200), (line, disguise)
            assert b'"data"' not in answer, (line, disguise)
            assert b"filmgate_" not in answer, (line, disguise)
            assert PROMPT.encode() not in answer, (line, disguise)


async def test_a_request_hidden_in_anothers_body_gets_no_response(gateway: Gateway) -> None:
    port = int(gateway.url.rpartition(":")[2])
    hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for framing in (
        f"Content-Length: {len(hidden) + 5}\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        f"Content-Length: 0\r\nContent-Length: {len(hidden)}",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
    ):
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
        async with asyncio.timeout(60):
            answer = await said(port, head, "0\r\n\r\n", hidden)
        assert b'"status":"ok"' not in answer, framing


async def test_no_header_makes_a_caller_another_account(
    gateway: Gateway, owned: Owned, http: httpx2.AsyncClient
) -> None:
    others = await bearer(gateway, account="others")
    for name in ("X-Account-Id", "X-Forwarded-User", "X-Remote-User", "Forwarded", "X-Api-Key"):
        headers = {**others, name: gateway.client.headers["authorization"].removeprefix("Bearer ")}
        assert (await http.get(f"/v1/jobs/{owned.job_id}", headers=headers)).status_code == 404
        assert (await http.get("/v1/jobs", headers=headers)).json()["data"] == []


async def test_the_host_header_is_never_repeated(gateway: Gateway, owned: Owned, http: httpx2.AsyncClient) -> None:
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}
    headers = await bearer(gateway) | evil
    paths = [operation.on(owned.job_id, owned.video_id, owned.file_id) for operation in OPERATIONS]
    signed = Operation("get_asset", "GET", f"/v1/assets/{owned.video_id}?signed=1")
    slash = Operation("list_jobs", "GET", "/v1/jobs/")
    for operation in [*paths, signed, slash]:
        answer = await operation.ask(http, headers)
        assert b"evil.example" not in answer.content, operation
        assert "evil.example" not in str(answer.headers.raw), operation


async def test_every_response_has_the_security_headers(
    gateway: Gateway, owned: Owned, http: httpx2.AsyncClient
) -> None:
    live = await bearer(gateway)
    others = await bearer(gateway, account="others")
    operations = [operation.on(owned.job_id, owned.video_id, owned.file_id) for operation in OPERATIONS]
    answers = [await operation.ask(http, headers) for operation in operations for headers in ({}, live, others)]
    answers += [
        await http.get("/nothing"),
        await http.get("/docs"),
        await http.get("/openapi.json"),
        await http.request("TRACE", "/v1/jobs"),
        await http.request("DELETE", "/v1/jobs"),
        await http.post("/v1/jobs", content=b"{", headers={**live, "Content-Type": "application/json"}),
        await http.post("/v1/jobs", content=b" " * 2_000_000, headers=live),
        await http.get(f"/v1/assets/{owned.video_id}/content", headers={**live, "Range": "bytes=99999999-"}),
    ]
    for answer in answers:
        request = answer.request
        found = {name: answer.headers.get(name) for name in SECURITY_HEADERS}
        assert found == SECURITY_HEADERS, request
        assert answer.headers["x-request-id"], request
        assert answer.headers["cache-control"] == expected_caching(answer), request


def expected_caching(answer: httpx2.Response) -> str:
    if answer.status_code in {200, 206} and answer.request.url.path.endswith("/content"):
        return "private, no-transform"
    # What the standard of event streams asks for.
    return "no-cache" if answer.headers["content-type"].startswith("text/event-stream") else "no-store"


# A canary through every input ----------------------------------------------------------------------------------------


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Of a gateway that logs all it can."""
    return settings.model_copy(update={"log_level": "debug"})


@pytest.fixture
def log(settings: Settings) -> Iterator[io.StringIO]:
    """What API and worker write to their logs."""
    with captured_log(settings) as stream:
        yield stream


async def send_canaries(gateway: Gateway, http: httpx2.AsyncClient, hook: str) -> set[str]:
    """One canary through each input, in orders that end well, end badly, and are refused; returns the canaries.

    They look like nothing that a redactor would know.
    """
    sent: set[str] = set()

    def canary(place: str) -> str:
        sent.add(f"canary-{place}-of-the-test")
        return f"canary-{place}-of-the-test"

    jobs = []
    for bracket in ("", "[fail:moderation]", "[fail:prompt]", "[html]"):
        job = await gateway.create(
            f"{canary('prompt')} {bracket}",
            key=canary("idempotency") + bracket,
            metadata={canary("metadata-name"): canary("metadata-value")},
            webhook_url=f"{hook}/{canary('webhook-path')}?{canary('webhook-query')}=1",
            provider_options={canary("option-name"): {"a": canary("option-value")}},
            negative_prompt=canary("negative-prompt"),
            mode="adjust",
        )
        jobs.append(job["id"])
    refused: list[dict[str, object]] = [
        {"webhook_url": f"https://{canary('webhook-user')}:{canary('webhook-password')}@example.com/"},
        {"model": canary("model")},
        {"provider_options": {canary("refused-option"): canary("refused-value")}},
        {canary("unknown-field"): canary("unknown-value")},
        {"seconds": canary("wrong-type")},
        {"metadata": {"a": canary("nul") + "\0"}},
    ]
    for fields in refused:
        order = {"prompt": canary("refused-prompt"), "model": "sandbox/video", **fields}
        await gateway.client.post("/v1/jobs", json=order)
    content_type = {"Content-Type": "application/json"}
    await gateway.client.post("/v1/jobs", content=f'{{"{canary("bad-json")}', headers=content_type)
    for path in (
        f"/v1/jobs/{canary('job-id')}",
        f"/v1/jobs?model={canary('model-filter')}&metadata[{canary('filter-name')}]={canary('filter-value')}",
        f"/v1/jobs?cursor={canary('cursor')}",
        f"/v1/assets/{canary('asset-id')}/content?expires=1&signature={canary('signature')}",
        f"/{canary('path')}",
    ):
        await gateway.client.get(path)
        await http.get(path)
    for name in ("Authorization", "Cookie", "Referer", "User-Agent", "X-Api-Key", "Prefer", "Range", "Last-Event-ID"):
        await http.get(f"/v1/jobs/{jobs[0]}", headers={name: f"Bearer {canary(name.lower())}"})
        if name != "Authorization":
            await gateway.client.get(f"/v1/jobs/{jobs[0]}/submissions", headers={name: canary(name.lower())})
    # Only what looks like an id is taken over as the request's id.
    await http.get("/v1/jobs", headers={"X-Request-Id": f"{canary('request-id')} and more"})
    await gateway.client.request(canary("method").upper(), "/v1/jobs")
    sent.add(canary("method").upper())
    for job_id in jobs:
        await gateway.ended(job_id)
    return sent


async def test_a_canary_in_any_input_is_in_no_log_and_no_other_accounts_response(
    log: io.StringIO, gateway: Gateway, http: httpx2.AsyncClient
) -> None:
    secret = (await gateway.client.get("/v1/webhook-secret")).json()["secret"]
    key = gateway.client.headers["authorization"].removeprefix("Bearer ")
    async with running_receiver() as receiver:
        receiver.will_answer(
            Answer(500, body=b"canary-reply-of-the-test"), Answer(410, body=b"canary-reply-of-the-test")
        )
        hook = receiver.url.rstrip("/")
        sent = await send_canaries(gateway, http, hook) | {secret, key, "canary-reply-of-the-test"}
        await receiver.wait_for(4)
        await receiver.idle()
    written = log.getvalue()
    assert "request completed" in written
    assert "video stored" in written
    assert "webhook attempted" in written
    assert {canary for canary in sent if canary in written} == set()
    others = await bearer(gateway, account="others")
    (job,) = (await gateway.client.get("/v1/jobs?status=succeeded&limit=1")).json()["data"]
    video = job["assets"]["video"]["id"]
    for operation in OPERATIONS:
        text = (await operation.on(job["id"], video, "file_x").ask(http, others)).text
        assert {canary for canary in sent if canary in text} == set(), operation
