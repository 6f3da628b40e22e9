"""Files that callers give, over real HTTP: what is taken, what is not, and that nothing is kept of what is not."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.gateway import Gateway
from tests.support.sample_files import animation, huge_picture, picture, sound
from tests.support.sample_videos import video

UPLOAD = "/v1/files"
BOUNDARY = "xxxxxxxxxxxxxxxxxxxx"


async def give(client: httpx2.AsyncClient, content: bytes, name: str = "photo.jpg") -> httpx2.Response:
    return await client.post(UPLOAD, files={"file": (name, content)})


async def given(gateway: Gateway, content: bytes, name: str = "photo.jpg") -> dict[str, Any]:
    reply = await give(gateway.client, content, name)
    assert reply.status_code == 201, reply.text
    file: dict[str, Any] = reply.json()
    return file


def refused(reply: httpx2.Response) -> tuple[int, str, str]:
    problem = reply.json()
    return reply.status_code, problem["errors"][0]["field"], problem["errors"][0]["message"]


def left(gateway: Gateway) -> list[Path]:
    """Objects and spooled files of callers."""
    store = Path(gateway.settings.assets.store.removeprefix("file://"))
    return [path for path in store.glob("*/files/*") if path.is_file()]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (picture("JPEG"), {"kind": "image", "content_type": "image/jpeg", "width": 96, "height": 64}),
        (picture("JPEG", turned=6), {"kind": "image", "content_type": "image/jpeg", "width": 64, "height": 96}),
        (picture("PNG"), {"kind": "image", "content_type": "image/png", "width": 96, "height": 64}),
        (picture("WEBP"), {"kind": "image", "content_type": "image/webp", "width": 96, "height": 64}),
        (video(), {"kind": "video", "content_type": "video/mp4", "width": 160, "height": 96, "seconds": 2.0}),
        (video(container="webm", audio=True), {"kind": "video", "content_type": "video/webm", "has_audio": True}),
        (video(container="mov"), {"kind": "video", "content_type": "video/quicktime", "has_audio": False}),
        (sound("wav"), {"kind": "audio", "content_type": "audio/wav", "width": None, "has_audio": True}),
        (sound("mp3"), {"kind": "audio", "content_type": "audio/mpeg", "has_audio": True}),
        (sound("m4a"), {"kind": "audio", "content_type": "audio/mp4", "has_audio": True}),
    ],
    ids=["jpeg", "turned", "png", "webp", "mp4", "webm", "mov", "wav", "mp3", "m4a"],
)
async def test_a_file_is_what_its_bytes_say(gateway: Gateway, content: bytes, expected: dict[str, Any]) -> None:
    file = await given(gateway, content, "whatever.pdf")
    assert {name: file[name] for name in expected} == expected
    assert (file["size_bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert file["name"] == "whatever.pdf"
    if file["kind"] != "image":
        assert file["seconds"] == pytest.approx(1.0 if file["kind"] == "audio" else 2.0, abs=0.1)
    kept = await gateway.client.get(f"{UPLOAD}/{file['id']}/content")
    assert (kept.content, kept.headers["content-type"]) == (content, file["content_type"])
    assert (await gateway.client.get(f"{UPLOAD}/{file['id']}")).json() == file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.7\n" + bytes(1000), "none of the accepted formats"),
        (b"GIF89a" + bytes(1000), "none of the accepted formats"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(1000), "HEIC or AVIF"),
        (b"\x00\x00\x00\x18ftypavif" + bytes(1000), "HEIC or AVIF"),
        (b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", "none of the accepted formats"),
        (b"", "is empty"),
        (animation("WEBP"), "is animated"),
        (animation("PNG"), "is animated"),
        (picture("JPEG", size=(800, 600))[:-500], "a damaged picture"),
        (picture("PNG", size=(800, 600))[:-100], "a damaged picture"),
        (huge_picture(), "30000x30000"),
        (video()[:-2000], "truncated"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(100), "damaged"),
        (b"ID3\x04" + bytes(2000), "damaged"),
    ],
    ids=[
        "pdf", "gif", "heic", "avif", "playlist", "empty", "animated webp", "animated png", "cut jpeg", "cut png",
        "bomb", "cut video", "no sound", "no mp3",
    ],
)  # fmt: skip
async def test_what_cannot_be_used_is_refused_with_the_reason(gateway: Gateway, content: bytes, message: str) -> None:
    status, field, said = refused(await give(gateway.client, content, "photo.png"))
    assert (status, field) == (422, "file")
    assert message in said
    assert left(gateway) == []


def body(*parts: tuple[str, bytes]) -> bytes:
    lines = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (BOUNDARY.encode(), head.encode(), content) for head, content in parts]
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


FILE = 'Content-Disposition: form-data; name="file"; filename="a.png"'
OTHER = 'Content-Disposition: form-data; name="purpose"'
PNG = picture("PNG")


@pytest.mark.parametrize(
    ("content", "content_type", "field"),
    [
        (body((FILE, PNG), (OTHER, b"x")), f"multipart/form-data; boundary={BOUNDARY}", "body"),
        (body((OTHER, b"x"), (FILE, PNG)), f"multipart/form-data; boundary={BOUNDARY}", "body"),
        (body((FILE.partition("; filename")[0], PNG)), f"multipart/form-data; boundary={BOUNDARY}", "body"),
        (body((FILE, PNG))[:-30], f"multipart/form-data; boundary={BOUNDARY}", "body"),
        (body(), f"multipart/form-data; boundary={BOUNDARY}", "body"),
        (b"", f"multipart/form-data; boundary={BOUNDARY}", "body"),
        (body((FILE, PNG)), "multipart/form-data; boundary=other", "body"),
        (body((FILE, PNG)), "multipart/form-data", "body"),
        (PNG, "image/png", "header.Content-Type"),
        (b"[]", "application/json", "body"),
        (b'{"url": ""}', "application/json", "url"),
        (b'{"url": "https://a.example", "role": "x"}', "application/json", "role"),
    ],
)
async def test_a_request_of_another_form_is_named(
    gateway: Gateway, content: bytes, content_type: str, field: str
) -> None:
    reply = await gateway.client.post(UPLOAD, content=content, headers={"Content-Type": content_type})
    assert refused(reply)[:2] == (422, field)
    assert left(gateway) == []


async def test_the_same_bytes_are_one_file_of_an_account(gateway: Gateway, stranger: httpx2.AsyncClient) -> None:
    first = await given(gateway, PNG)
    again = await give(gateway.client, PNG, "another name.png")
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    theirs = (await give(stranger, PNG)).json()
    assert theirs["id"] != first["id"]
    for path in (f"{UPLOAD}/{first['id']}", f"{UPLOAD}/{first['id']}/content"):
        assert (await stranger.get(path)).status_code == 404
    assert (await stranger.delete(f"{UPLOAD}/{first['id']}")).status_code == 404
    assert [file["id"] for file in (await stranger.get(UPLOAD)).json()["data"]] == [theirs["id"]]


async def test_the_same_bytes_at_once_are_one_file(gateway: Gateway) -> None:
    replies = await asyncio.gather(*(give(gateway.client, PNG) for _ in range(6)))
    assert {reply.status_code for reply in replies} <= {200, 201}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len((await gateway.client.get(UPLOAD)).json()["data"]) == 1


async def test_a_deleted_file_is_gone_and_may_be_given_again(gateway: Gateway) -> None:
    first = await given(gateway, PNG)
    path = f"{UPLOAD}/{first['id']}"
    assert (await gateway.client.delete(path)).status_code == 204
    for reply in (await gateway.client.get(path), await gateway.client.delete(path)):
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    second = await given(gateway, PNG)
    assert second["id"] != first["id"]
    assert len(left(gateway)) == 2
    assert await gateway.resources.files.expire(10) == 1
    assert len(left(gateway)) == 1
    assert (await gateway.client.get(f"{UPLOAD}/{second['id']}/content")).content == PNG


async def test_files_are_listed_newest_first(gateway: Gateway) -> None:
    ids = [(await given(gateway, picture("PNG", color=color)))["id"] for color in ("red", "green", "blue")]
    page = (await gateway.client.get(UPLOAD, params={"limit": 2})).json()
    rest = (await gateway.client.get(UPLOAD, params={"limit": 2, "cursor": page["next_cursor"]})).json()
    assert [file["id"] for file in page["data"] + rest["data"]] == ids[::-1]
    assert rest["has_more"] is False
