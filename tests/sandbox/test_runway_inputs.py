"""Runway's inputs: URLs as it fetches them, data URIs, uploads, and what each endpoint accepts."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.sandbox.inputs import MEBIBYTE
from app.sandbox.settings import SandboxSettings
from tests.sandbox.pictures import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    Host,
    clip,
    data_uri,
    ends_of,
    entry_of,
    form_of,
    frames_of,
    halves,
    is_coloured,
    roles_of,
    shows,
)
from tests.sandbox.server import Client, connected, serving

IMAGE, VIDEO, UPLOADS = "runway/v1/image_to_video", "runway/v1/video_to_video", "runway/v1/uploads"
SIZE = 960, 960
#: Its job ends without a render.
ORDER = {"model": "gen4.5", "promptText": "a fox [fail:internal]", "ratio": "960:960", "duration": 2}
VEO = {"model": "veo3.1", "promptText": "a fox [fail:internal]", "ratio": "1280:720", "duration": 4}
SHOWN = ORDER | {"promptText": "a fox"}
UPLOAD = {"filename": "first.png", "type": "ephemeral"}
PICTURE = halves(size=SIZE)


async def ended(client: Client, path: str, order: dict[str, Any]) -> dict[str, Any]:
    """The task at its end."""
    created = await client.post(path, json=order)
    assert created.status == 200, created.body
    return dict((await client.wait_until(f"runway/v1/tasks/{created.json['id']}")).json)


async def upload(client: Client, content: bytes) -> str:
    """Upload a file; gives its URI."""
    told = (await client.post(UPLOADS, json=UPLOAD)).json
    async with aiohttp.ClientSession() as anyone:
        form = form_of(("file", content, "image/png"), **told["fields"])
        async with anyone.post(told["uploadUrl"], data=form) as response:
            assert (response.status, await response.read()) == (204, b"")
    return str(told["runwayUri"])


async def test_a_url_is_asked_for_by_head_then_fetched_and_shown(client: Client, host: Host) -> None:
    task = await ended(client, IMAGE, SHOWN | {"promptImage": host.put("first.png", PICTURE)})
    assert host.requests == ["HEAD /first.png", "GET /first.png"]
    assert (task["status"], task["cost"]) == ("SUCCEEDED", {"credits": 24})
    start, end, frames = ends_of((await client.get(task["output"][0])).body)
    assert frames == 48
    assert shows(start, PICTURE)
    assert not shows(end, PICTURE)


async def test_first_and_last_reach_their_ends(client: Client, host: Host) -> None:
    first, last = halves(RED, BLUE, size=(1280, 720)), halves(GREEN, YELLOW, size=(1280, 720), kind="WEBP")
    uris = [
        {"uri": data_uri(last, "image/webp"), "position": "last"},
        {"uri": host.put("first.png", first), "position": "first"},
    ]
    task = await ended(client, IMAGE, VEO | {"promptText": "a fox", "promptImage": uris})
    start, end, _ = ends_of((await client.get(task["output"][0])).body)
    assert shows(start, first)
    assert shows(end, last)
    assert await roles_of(client) == [("last_frame", (1280, 720)), ("first_frame", (1280, 720))]


async def test_the_ledger_has_the_digest_of_what_was_fetched(client: Client, host: Host) -> None:
    await ended(client, IMAGE, ORDER | {"promptImage": host.put("first.png", PICTURE)})
    assert (await entry_of(client))["inputs"] == [
        {
            "role": "first_frame",
            "sha256": hashlib.sha256(PICTURE).hexdigest(),
            "content_type": "image/png",
            "width": 960,
            "height": 960,
        }
    ]


Put = Callable[[Host], str]


@pytest.mark.parametrize(
    ("put", "requests"),
    [
        (lambda host: f"{host.url}/missing.png", 1),
        (lambda host: host.put("moved.png", status=302, location=host.put("there.png", PICTURE)), 1),
        (lambda host: host.put("page", PICTURE, kind="text/html"), 1),
        (lambda host: host.put("bytes", PICTURE, kind="application/octet-stream"), 1),
        (lambda host: host.put("animation", PICTURE, kind="image/gif"), 1),
        (lambda host: host.put("unmeasured", PICTURE, measured=False), 1),
        (lambda host: host.put("large", bytes(16 * MEBIBYTE + 1)), 1),
        (lambda host: host.put("other-type", PICTURE, kind="image/jpeg"), 2),
        (lambda host: host.put("damaged", PICTURE[:500]), 2),
        (lambda host: host.put("video", clip(RED), kind="video/mp4"), 1),
        (lambda _: "http://127.0.0.1:9/nothing-listens.png", 0),
        (lambda _: data_uri(PICTURE[:500]), 0),
    ],
    ids=[
        "404", "redirect", "html", "octet-stream", "gif", "no-length", "too-large",
        "mismatch", "damaged", "video", "refused-connection", "damaged-data-uri",
    ],
)  # fmt: skip
async def test_an_asset_that_cannot_be_used_fails_the_task_at_no_cost(
    client: Client, host: Host, put: Put, requests: int
) -> None:
    task = await ended(client, IMAGE, SHOWN | {"promptImage": put(host)})
    assert (task["status"], task["failureCode"], task["cost"]) == ("FAILED", "ASSET.INVALID", {"credits": 0})
    assert len(host.requests) == requests
    entry = await entry_of(client)
    assert (entry["verdict"], entry["final_cost"], entry["inputs"]) == ("invalid_input", "0", [])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "must be a URI"),
        ([], "one first image"),
        (["https://files.test/a.png"], "array of objects"),
        ([{"uri": "https://files.test/a.png"}], "array of objects"),
        ([{"uri": "https://files.test/a.png", "position": "last"}], "positions other than first"),
        ([{"uri": "https://files.test/a.png", "position": "first"}] * 2, "one first image"),
        ("http://files.test/a.png", "HTTPS URL"),
        ("https://192.0.2.1/a.png", "HTTPS URL"),
        ("ftp://files.test/a.png", "HTTPS URL"),
        ("https:///a.png", "HTTPS URL"),
        ("http://127.0.0.1/" + "a" * 2048, "at most 2048"),
        ("runway://nothing", "upload"),
        ("data:image/png;base64,%%%", "data URI of"),
        ("data:text/plain,a", "data URI of"),
    ],
)
async def test_an_invalid_prompt_image_is_refused(client: Client, value: object, reason: str) -> None:
    refused = await client.post(IMAGE, json=ORDER | {"promptImage": value})
    assert (refused.status, refused.json["issues"][0]["path"]) == (400, ["promptImage"])
    assert reason in refused.json["error"]
    assert (await client.get("ledger/summary")).json["accepted"] == 0


async def test_a_data_uri_is_limited(client: Client) -> None:
    order = ORDER | {"promptImage": data_uri(bytes(4 * MEBIBYTE))}
    body = io.BytesIO(json.dumps(order).encode())
    refused = await client.post(IMAGE, data=body, headers={"Content-Type": "application/json"})
    assert refused.status == 400
    assert "at most 5242880 characters" in refused.json["error"]


async def test_a_last_frame_needs_a_first_one(client: Client) -> None:
    last = [{"uri": data_uri(PICTURE), "position": "last"}]
    refused = await client.post(IMAGE, json=VEO | {"promptImage": last})
    assert (refused.status, refused.json["issues"][0]["path"]) == (400, ["promptImage"])


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("runway/v1/text_to_video", {"promptImage": "https://files.test/a.png"}, "promptImage"),
        ("runway/v1/text_to_video", {"model": "gen4_turbo"}, "model"),
        ("runway/v1/text_to_video", {"ratio": "960:960"}, "ratio"),
        (IMAGE, {"videoUri": "https://files.test/a.mp4"}, "videoUri"),
        (IMAGE, {"model": "aleph2"}, "model"),
        (VIDEO, {"model": "aleph2", "videoUri": "https://files.test/a.mp4"}, "duration"),
    ],
)
async def test_each_endpoint_has_its_own_models_and_fields(
    client: Client, path: str, change: dict[str, Any], field: str
) -> None:
    refused = await client.post(path, json=ORDER | change)
    assert (refused.status, refused.json["issues"][0]["path"]) == (400, [field])


async def test_some_models_need_no_prompt(client: Client) -> None:
    order = {"model": "gen4_turbo", "ratio": "960:960", "promptImage": data_uri(PICTURE[:500])}
    task = await ended(client, IMAGE, order)
    assert task["failureCode"] == "ASSET.INVALID"
    assert (await entry_of(client))["charged_credits"] == 50


# Uploads --------------------------------------------------------------------------------------------------------------


async def test_an_upload_can_be_used_more_than_once(client: Client) -> None:
    uri = await upload(client, PICTURE)
    assert uri.startswith("runway://")
    for _ in range(2):
        await client.delete("ledger")
        await ended(client, IMAGE, ORDER | {"promptImage": uri})
        assert await roles_of(client) == [("first_frame", SIZE)]


@pytest.mark.parametrize(
    ("change", "field"),
    [({"filename": None}, "filename"), ({"type": "permanent"}, "type"), ({"size": 1}, "size")],
)
async def test_an_upload_is_validated(client: Client, change: dict[str, Any], field: str) -> None:
    refused = await client.post(UPLOADS, json=UPLOAD | change)
    assert (refused.status, refused.json["issues"][0]["path"]) == (400, [field])


async def test_an_upload_needs_its_fields_and_a_file(client: Client) -> None:
    told = (await client.post(UPLOADS, json=UPLOAD)).json
    file = ("file", PICTURE, "image/png")
    unsigned = await client.post(told["uploadUrl"], data=form_of(file))
    assert (unsigned.status, b"AccessDenied" in unsigned.body) == (403, True)
    empty = await client.post(told["uploadUrl"], data=form_of(**told["fields"]))
    assert (empty.status, b"InvalidArgument" in empty.body) == (400, True)
    elsewhere = await client.post(f"{told['uploadUrl']}0", data=form_of(file, **told["fields"]))
    assert elsewhere.status == 403
    refused = await client.post(IMAGE, json=ORDER | {"promptImage": told["runwayUri"]})
    assert refused.status == 400


async def test_an_upload_expires(video_directory: Path) -> None:
    settings = SandboxSettings(data_dir=video_directory, upload_seconds=0)
    async with serving(settings) as url, connected(url) as client:
        told = (await client.post(UPLOADS, json=UPLOAD)).json
        form = form_of(("file", PICTURE, "image/png"), **told["fields"])
        assert (await client.post(told["uploadUrl"], data=form)).status == 403


# Videos ---------------------------------------------------------------------------------------------------------------


async def test_an_edit_has_the_size_and_the_length_of_its_source(client: Client, host: Host) -> None:
    source = host.put("source.mp4", clip(RED, BLUE, GREEN), kind="video/mp4")
    task = await ended(client, VIDEO, {"model": "aleph2", "promptText": "a fox", "videoUri": source})
    assert task["cost"] == {"credits": 56}  # one and a half seconds
    frames = frames_of((await client.get(task["output"][0])).body)
    assert (len(frames), frames[0].shape) == (36, (180, 320, 3))
    assert await roles_of(client) == [("source_video", (320, 180))]


async def test_an_edit_can_have_references(client: Client) -> None:
    source, reference = data_uri(clip(RED), "video/mp4"), {"uri": data_uri(halves(GREEN, GREEN))}
    order = {"model": "gemini_omni_flash", "promptText": "a fox", "videoUri": source, "references": [reference]}
    task = await ended(client, VIDEO, order)
    (frame, *_) = frames_of((await client.get(task["output"][0])).body)
    assert is_coloured(frame[8:36, 8:36], GREEN)


async def test_an_extension_is_billed_by_what_it_adds(client: Client) -> None:
    order = {"model": "gemini_omni_flash_1.1", "mode": "extend", "duration": 3, "promptText": "a fox"}
    task = await ended(client, VIDEO, order | {"videoUri": await upload(client, clip(RED, BLUE))})
    frames = frames_of((await client.get(task["output"][0])).body)
    assert (task["cost"], len(frames)) == ({"credits": 30}, 24 + 72)
    assert is_coloured(frames[0], RED)
    assert is_coloured(frames[24], BLUE)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": None}, "mode"),
        ({"mode": "restyle"}, "mode"),
        ({"mode": "extend", "ratio": "1280:720"}, "ratio"),
        ({"mode": "reference"}, "ratio"),
        ({"mode": "edit", "references": ["https://files.test/a.png"]}, "references"),
        ({"mode": "edit", "videoUri": None}, "videoUri"),
    ],
)
async def test_a_mode_has_its_own_fields(client: Client, change: dict[str, Any], field: str) -> None:
    order = {"model": "gemini_omni_flash_1.1", "promptText": "a fox", "videoUri": data_uri(clip(RED), "video/mp4")}
    refused = await client.post(VIDEO, json=order | change)
    assert (refused.status, refused.json["issues"][0]["path"]) == (400, [field])
