"""Stored videos over HTTP: who may have them, and which bytes."""

import asyncio
import hashlib
from datetime import timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI

from app.accounts.service import KeyService
from app.assets.records import StoredAsset
from app.assets.service import AssetService
from app.ids import Prefix, encode, new_id
from app.infra.db import Database
from app.media.signing import UrlSigner
from app.media.storage import CHUNK_BYTES, Storage
from app.settings import AssetSettings
from tests.assets.conftest import NOON, URL_KEY, HeldClock, keep, service_for
from tests.support.sample_videos import padded, video

Headers = dict[str, str]


@pytest.fixture
async def owned(database: Database, assets: AssetService, key: tuple[str, UUID]) -> StoredAsset:
    """A video of the account that ``key`` belongs to."""
    return (await keep(database, assets, key[1]))[0]


@pytest.fixture
def bearer(key: tuple[str, UUID]) -> Headers:
    return {"Authorization": f"Bearer {key[0]}"}


@pytest.fixture
def path(owned: StoredAsset) -> str:
    return f"/v1/assets/{encode(Prefix.ASSET, owned.id)}"


async def test_an_asset_is_described(http: httpx2.AsyncClient, owned: StoredAsset, path: str, bearer: Headers) -> None:
    answer = await http.get(path, headers=bearer)

    assert answer.status_code == 200
    assert answer.json() == {
        "id": encode(Prefix.ASSET, owned.id),
        "job_id": encode(Prefix.JOB, owned.job_id),
        "kind": "video",
        "content_type": "video/mp4",
        "size_bytes": len(video()),
        "sha256": hashlib.sha256(video()).hexdigest(),
        "width": 160,
        "height": 96,
        "codec": "h264",
        "seconds": 2.0,
        "frame_rate": 12.0,
        "has_audio": False,
        "deviations": [],
        "created_at": "2026-11-22T12:00:00Z",
        "expires_at": "2026-12-22T12:00:00Z",
        "content_url": f"{path}/content",
        "url": None,
    }


async def test_the_whole_video_comes_with_safe_headers(
    http: httpx2.AsyncClient, owned: StoredAsset, path: str, bearer: Headers
) -> None:
    answer = await http.get(f"{path}/content", headers=bearer)

    assert answer.status_code == 200
    assert answer.content == video()
    assert dict(answer.headers) == {
        "accept-ranges": "bytes",
        "cache-control": "private, no-transform",
        "content-disposition": f'attachment; filename="{encode(Prefix.JOB, owned.job_id)}.mp4"',
        "content-length": str(len(video())),
        "content-security-policy": "sandbox",
        "content-type": "video/mp4",
        "etag": f'"{hashlib.sha256(video()).hexdigest()}"',
        "last-modified": format_datetime(NOON, usegmt=True),
        "x-content-type-options": "nosniff",
    }


async def test_a_poster_comes_as_a_picture(
    http: httpx2.AsyncClient, database: Database, assets: AssetService, key: tuple[str, UUID], bearer: Headers
) -> None:
    _, poster = await keep(database, assets, key[1])
    answer = await http.get(f"/v1/assets/{encode(Prefix.ASSET, poster.id)}/content", headers=bearer)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-disposition"].endswith('.jpg"')
    assert hashlib.sha256(answer.content).digest() == poster.sha256


async def test_head_tells_the_same_without_the_bytes(http: httpx2.AsyncClient, path: str, bearer: Headers) -> None:
    whole = await http.get(f"{path}/content", headers=bearer)
    for range_ in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=999999999-"}):
        head = await http.head(f"{path}/content", headers=bearer | range_)
        assert (head.status_code, head.content) == (200, b"")
        assert dict(head.headers) == dict(whole.headers)


@pytest.mark.parametrize(
    ("range_", "expected"),
    [("bytes=0-9", slice(0, 10)), ("bytes=100-", slice(100, None)), ("bytes=-7", slice(-7, None))],
)
async def test_a_range_gets_206(
    http: httpx2.AsyncClient, path: str, bearer: Headers, range_: str, expected: slice
) -> None:
    answer = await http.get(f"{path}/content", headers=bearer | {"Range": range_})
    start, end, _ = expected.indices(len(video()))
    assert answer.status_code == 206
    assert answer.content == video()[expected]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(video())}"
    assert answer.headers["content-length"] == str(end - start)


async def test_several_ranges_get_the_whole(http: httpx2.AsyncClient, path: str, bearer: Headers) -> None:
    answer = await http.get(f"{path}/content", headers=bearer | {"Range": "bytes=0-1,5-6"})
    assert (answer.status_code, answer.content) == (200, video())


async def test_a_range_behind_the_end_gets_416(http: httpx2.AsyncClient, path: str, bearer: Headers) -> None:
    answer = await http.get(f"{path}/content", headers=bearer | {"Range": f"bytes={len(video())}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(video())}"
    assert answer.json()["code"] == "range_not_satisfiable"


async def test_a_download_is_resumed_only_when_the_file_is_the_same(
    http: httpx2.AsyncClient, path: str, bearer: Headers
) -> None:
    etag = (await http.head(f"{path}/content", headers=bearer)).headers["etag"]
    rest = {"Range": "bytes=10-"}
    same = await http.get(f"{path}/content", headers=bearer | rest | {"If-Range": etag})
    assert (same.status_code, same.content) == (206, video()[10:])
    other = await http.get(f"{path}/content", headers=bearer | rest | {"If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, video())


async def test_what_the_caller_has_is_not_sent_again(http: httpx2.AsyncClient, path: str, bearer: Headers) -> None:
    etag = (await http.head(f"{path}/content", headers=bearer)).headers["etag"]
    for method in ("GET", "HEAD"):
        answer = await http.request(method, f"{path}/content", headers=bearer | {"If-None-Match": etag})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag


# Who may ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/content"])
async def test_without_a_key_nothing_is_shown(http: httpx2.AsyncClient, path: str, suffix: str) -> None:
    for headers in ({}, {"Authorization": "Bearer fgk_wrong"}, {"Authorization": "Basic Zm9v"}):
        answer = await http.get(path + suffix, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize("suffix", ["", "/content"])
async def test_a_key_without_the_scope_shows_nothing(
    http: httpx2.AsyncClient, database: Database, path: str, suffix: str
) -> None:
    made = await KeyService(database).create("the owner", "jobs only", ["jobs:read"])
    answer = await http.get(path + suffix, headers={"Authorization": f"Bearer {made.text}"})
    assert answer.status_code == 403


@pytest.mark.parametrize("suffix", ["", "/content"])
async def test_a_foreign_asset_is_refused_byte_for_byte_like_a_missing_one(
    http: httpx2.AsyncClient, database: Database, path: str, suffix: str
) -> None:
    stranger = await KeyService(database).create("a stranger", "test", ["assets:read"])
    headers = {"Authorization": f"Bearer {stranger.text}"}
    bodies = set()
    for other in (path, f"/v1/assets/{encode(Prefix.ASSET, new_id())}", "/v1/assets/ast_nonsense", "/v1/assets/x"):
        answer = await http.get(other + suffix, headers=headers)
        assert answer.status_code == 404
        bodies.add(answer.content.replace(answer.json()["request_id"].encode(), b""))
    assert len(bodies) == 1


async def test_a_deleted_video_is_gone(
    http: httpx2.AsyncClient, assets: AssetService, path: str, bearer: Headers, clock: HeldClock
) -> None:
    clock.now += timedelta(days=30)
    await assets.expire(10)
    for suffix in ("", "/content"):
        answer = await http.get(path + suffix, headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (410, "gone")


async def test_a_storage_that_is_away_is_said_before_the_first_byte(
    http: httpx2.AsyncClient, in_directory: AssetSettings, owned: StoredAsset, path: str, bearer: Headers
) -> None:
    await Storage.open(in_directory).delete(owned.object_key)
    answer = await http.get(f"{path}/content", headers=bearer)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert in_directory.store.removeprefix("file://") not in answer.text


# Signed URLs --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def signed(http: httpx2.AsyncClient, path: str, bearer: Headers) -> str:
    """A URL that needs no key."""
    url: str = (await http.get(f"{path}?signed=1", headers=bearer)).json()["url"]
    return url


async def test_a_signed_url_needs_no_key(http: httpx2.AsyncClient, owned: StoredAsset, signed: str) -> None:
    answer = await http.get(signed)
    assert (answer.status_code, answer.content) == (200, video())
    name = f"{encode(Prefix.JOB, owned.job_id)}.mp4"
    assert answer.headers["content-disposition"] == f'inline; filename="{name}"'
    assert answer.headers["content-security-policy"] == "sandbox"
    assert (await http.head(signed)).status_code == 200
    assert (await http.get(signed, headers={"Range": "bytes=0-3"})).content == video()[:4]


async def test_a_signed_url_ends(http: httpx2.AsyncClient, signed: str, clock: HeldClock) -> None:
    clock.now += timedelta(seconds=3599)
    assert (await http.get(signed)).status_code == 200
    clock.now += timedelta(seconds=1)
    answer = await http.get(signed)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "expired" in answer.json()["detail"]


async def test_a_signed_url_ends_with_its_video(
    assets: AssetService, owned: StoredAsset, clock: HeldClock, http: httpx2.AsyncClient
) -> None:
    clock.now = owned.expires_at - timedelta(seconds=60)
    url = assets.sign(owned)
    assert parse_qs(urlsplit(url).query)["expires"] == [str(int(owned.expires_at.timestamp()))]
    clock.now = owned.expires_at
    assert (await http.get(url)).status_code == 403


@pytest.mark.parametrize(
    "change",
    [
        {"expires": "99999999999"},
        {"expires": ""},
        {"expires": "soon"},
        {"expires": None},
        {"signature": ""},
        {"signature": None},
        {"signature": "A" * 43},
        {"signature": "ä€"},
    ],
)
async def test_a_signed_url_cannot_be_changed(
    http: httpx2.AsyncClient, signed: str, change: dict[str, str | None]
) -> None:
    parts = urlsplit(signed)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | change
    answer = await http.get(parts.path, params={name: value for name, value in query.items() if value is not None})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_signed_url_opens_no_other_video(
    http: httpx2.AsyncClient, database: Database, assets: AssetService, key: tuple[str, UUID], signed: str
) -> None:
    other = (await keep(database, assets, key[1]))[0]
    answer = await http.get(f"/v1/assets/{encode(Prefix.ASSET, other.id)}/content?{urlsplit(signed).query}")
    assert answer.status_code == 403
    # Nor does it describe its own: that needs a key.
    assert (await http.get(signed.replace("/content", ""))).status_code == 401


async def test_another_gateways_signature_is_none(
    http: httpx2.AsyncClient, owned: StoredAsset, path: str, clock: HeldClock
) -> None:
    for signing_key, expected in ((bytes(32), 403), (URL_KEY, 200)):
        query = UrlSigner([signing_key], timedelta(hours=1), clock).query(owned.id, owned.expires_at)
        assert (await http.get(f"{path}/content?{query}")).status_code == expected


async def test_a_signed_url_works_beside_any_authorization_header(
    http: httpx2.AsyncClient, database: Database, signed: str, key: tuple[str, UUID]
) -> None:
    stranger = await KeyService(database).create("a stranger", "test", ["assets:read"])
    other_scope = await KeyService(database).create("the owner", "jobs only", ["jobs:read"])
    for value in (f"Bearer {stranger.text}", f"Bearer {other_scope.text}", "Bearer fgk_wrong", "Basic Zm9v", ""):
        answer = await http.get(signed, headers={"Authorization": value})
        assert (answer.status_code, answer.headers["content-disposition"].split(";")[0]) == (200, "inline"), value
    # Another signature opens nothing, but does not close what a key opens either.
    broken = f"{signed[:-1]}{'A' if signed[-1] != 'A' else 'B'}"
    assert (await http.get(broken, headers={"Authorization": f"Bearer {stranger.text}"})).status_code == 404
    assert (await http.get(broken, headers={"Authorization": "Basic Zm9v"})).status_code == 403
    assert (await http.get(broken, headers={"Authorization": f"Bearer {key[0]}"})).status_code == 200


async def test_urls_are_absolute_where_the_gateway_knows_its_name(
    database: Database, in_directory: AssetSettings, owned: StoredAsset, clock: HeldClock
) -> None:
    assets = service_for(database, in_directory, clock, public_url="https://videos.example/gateway/")
    shown = assets.show(owned, signed=True)
    assert shown.content_url == f"https://videos.example/gateway/v1/assets/{shown.id}/content"
    assert shown.url is not None
    assert shown.url.startswith(f"{shown.content_url}?expires=")


# A client that goes away ----------------------------------------------------------------------------------------------


async def test_a_client_that_goes_away_stops_the_reading(
    app: FastAPI, database: Database, assets: AssetService, key: tuple[str, UUID]
) -> None:
    start, nothing = padded(video(), 20 * CHUNK_BYTES)
    owned = (await keep(database, assets, key[1], start + bytes(nothing)))[0]
    target = assets.sign(owned)
    sent: list[dict[str, Any]] = []
    full = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not full.is_set():
            await full.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if len(sent) == 3:
            # The client takes no more, and a moment later it is gone.
            full.set()
            await asyncio.Event().wait()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": urlsplit(target).path,
        "raw_path": urlsplit(target).path.encode(),
        "query_string": urlsplit(target).query.encode(),
        "root_path": "",
        "headers": [],
    }
    await app(scope, receive, send)  # type: ignore[arg-type]

    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 2]
    assert sum(len(message.get("body", b"")) for message in sent) == 2 * CHUNK_BYTES
