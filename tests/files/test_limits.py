"""Bounds on what callers give: bytes, room, time, and how many at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.accounts.service import KeyService
from app.settings import Settings
from tests.support.gateway import Gateway, running_gateway
from tests.support.sample_files import picture

HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'


@asynccontextmanager
async def bounded(settings: Settings, sandbox_url: str, **values: Any) -> AsyncIterator[Gateway]:
    api = {name: values.pop(name) for name in ("body_timeout",) if name in values}
    changed = settings.model_copy(
        update={
            "files": settings.files.model_copy(update=values),
            "api": settings.api.model_copy(update=api),
        }
    )
    async with running_gateway(changed, sandbox_url) as gateway:
        yield gateway


async def give(gateway: Gateway, content: bytes) -> tuple[int, str]:
    reply = await gateway.client.post("/v1/files", files={"file": ("a.png", content)})
    return reply.status_code, "" if reply.is_success else reply.json()["code"]


def padded(size: int) -> bytes:
    return picture("PNG") + bytes(size)


async def test_a_file_is_no_larger_than_allowed(settings: Settings, sandbox_url: str) -> None:
    async with bounded(settings, sandbox_url, max_bytes=300_000) as gateway:
        assert await give(gateway, padded(3_000_000)) == (413, "body_too_large")
        assert await give(gateway, padded(290_000)) == (201, "")


async def test_the_files_of_an_account_have_their_room(settings: Settings, sandbox_url: str) -> None:
    async with bounded(settings, sandbox_url, quota_bytes=700_000) as gateway:
        replies = await asyncio.gather(*(give(gateway, padded(300_000 + number)) for number in range(5)))
        assert sorted(replies) == [(201, "")] * 2 + [(413, "body_too_large")] * 3
        (first, _) = (await gateway.client.get("/v1/files")).json()["data"]
        await gateway.client.delete(f"/v1/files/{first['id']}")
        await gateway.resources.files.expire(10)
        assert await give(gateway, padded(310_000)) == (201, "")


async def opened(gateway: Gateway, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An upload that has begun."""
    address = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Authorization: %b\r\nContent-Length: %d\r\n\r\n"
        % (gateway.client.headers["authorization"].encode(), length)
        + HEAD
        + picture("PNG")[:20]
    )
    await writer.drain()
    return reader, writer


async def test_an_upload_that_pauses_too_long_is_ended(settings: Settings, sandbox_url: str) -> None:
    async with bounded(settings, sandbox_url, body_timeout=0.2) as gateway:
        reader, writer = await opened(gateway, 10_000)
        reply = await reader.read()
        assert reply.startswith(b"HTTP/1.1 408")
        assert b"body_timeout" in reply
        writer.close()


async def test_uploads_at_once_are_limited_and_a_client_that_goes_frees_its_place(
    settings: Settings, sandbox_url: str
) -> None:
    async with bounded(settings, sandbox_url, uploads_per_account=1) as gateway:
        _, writer = await opened(gateway, 10_000)
        while await give(gateway, picture("PNG")) != (429, "rate_limited"):
            await gateway.client.get("/v1/files")
        writer.close()
        while (await give(gateway, picture("PNG")))[0] == 429:
            pass
        assert len((await gateway.client.get("/v1/files")).json()["data"]) == 1


@pytest.mark.parametrize("scopes", [["jobs:write", "files:read"], ["files:write"]])
async def test_each_scope_permits_its_part(gateway: Gateway, scopes: list[str]) -> None:
    key = await KeyService(gateway.resources.database).create("narrow", "key", scopes)
    headers = {"Authorization": f"Bearer {key.text}"}
    written = await gateway.client.post("/v1/files", files={"file": ("a", picture("PNG"))}, headers=headers)
    read = await gateway.client.get("/v1/files", headers=headers)
    expected = (201, 403) if "files:write" in scopes else (403, 200)
    assert (written.status_code, read.status_code) == expected
