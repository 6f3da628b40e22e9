"""Inputs of the servers with ``/videos``: each field and form, by pixels or by the ledger, and each refusal."""

import base64
import hashlib
import json
from typing import Any

import aiohttp
import pytest

from tests.sandbox.pictures import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    Host,
    Pixels,
    clip,
    data_uri,
    entry_of,
    form_of,
    frames_of,
    halves,
    is_coloured,
    roles_of,
    shows,
)
from tests.sandbox.server import Client

#: A job that ends without a render, and one that shows its inputs.
FIELDS = {"prompt": "a fox [fail:internal]", "size": "320x180", "seconds": "1"}
SHOWN = FIELDS | {"prompt": "a fox"}
PICTURE = halves()
FILE = ("input_reference", PICTURE, "image/png")
IMAGE = {"image_url": data_uri(PICTURE)}


async def shown(client: Client, dialect: str, **body: Any) -> list[Pixels]:
    """The frames of a video."""
    created = await client.post(f"{dialect}/v1/videos", **body)
    assert created.status == 200, created.body
    path = f"{dialect}/v1/videos/{created.json['id']}"
    assert (await client.wait_until(path)).json["status"] == "completed"
    return frames_of((await client.get(f"{path}/content")).body)


@pytest.mark.parametrize("dialect", ["openai", "sglang", "vllm", "newapi", "litellm"])
async def test_a_file_is_the_first_frame(client: Client, dialect: str) -> None:
    frames = await shown(client, dialect, data=form_of(FILE, **SHOWN))
    assert len(frames) == 24
    assert shows(frames[0], PICTURE)
    assert not shows(frames[12], PICTURE)
    assert (await entry_of(client))["inputs"] == [
        {
            "role": "first_frame",
            "sha256": hashlib.sha256(PICTURE).hexdigest(),
            "content_type": "image/png",
            "width": 320,
            "height": 180,
        }
    ]


async def test_one_prompt_with_two_pictures_gives_two_videos(client: Client) -> None:
    for picture in (halves(RED, BLUE), halves(GREEN, YELLOW)):
        frames = await shown(client, "openai", data=form_of(("input_reference", picture, "image/png"), **SHOWN))
        assert shows(frames[0], picture)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("dialect", ["openai", "newapi", "litellm"])
async def test_a_data_uri_is_the_first_frame(client: Client, dialect: str, kind: str) -> None:
    reference = {"image_url": data_uri(halves(kind=kind), f"image/{kind.lower()}")}
    created = await client.post(f"{dialect}/v1/videos", json=FIELDS | {"input_reference": reference})
    assert created.status == 200, created.body
    assert await roles_of(client) == [("first_frame", (320, 180))]


async def test_openai_fetches_a_url_before_it_replies(client: Client, host: Host) -> None:
    reference = {"image_url": host.put("a.png", PICTURE)}
    created = await client.post("openai/v1/videos", json=FIELDS | {"input_reference": reference})
    assert (created.status, host.requests) == (200, ["GET /a.png"])
    assert await roles_of(client) == [("first_frame", (320, 180))]


async def test_openai_demands_the_size_of_the_video(client: Client) -> None:
    for size in ((180, 320), (640, 360)):
        file = ("input_reference", halves(size=size), "image/png")
        refused = await client.post("openai/v1/videos", data=form_of(file, **FIELDS))
        error = refused.json["error"]
        assert (refused.status, error["code"], error["param"]) == (400, "invalid_value", "input_reference")
        assert error["message"] == "Inpaint image must match the requested width and height"
    assert (await client.get("ledger/summary")).json["accepted"] == 0


@pytest.mark.parametrize("dialect", ["sglang", "vllm", "newapi", "litellm"])
async def test_others_take_any_size(client: Client, dialect: str) -> None:
    file = ("input_reference", halves(size=(64, 96)), "image/png")
    assert (await client.post(f"{dialect}/v1/videos", data=form_of(file, **FIELDS))).status == 200
    assert await roles_of(client) == [("first_frame", (64, 96))]


BAD_FILES = [
    ("input_reference", PICTURE, "application/octet-stream"),
    ("input_reference", PICTURE, "image/jpeg"),
    ("input_reference", PICTURE[:400], "image/png"),
    ("input_reference", b"", "image/png"),
    ("input_reference", clip(RED), "video/mp4"),
]


@pytest.mark.parametrize("file", BAD_FILES, ids=["octet-stream", "other-type", "damaged", "empty", "video"])
@pytest.mark.parametrize("dialect", ["openai", "sglang", "vllm", "newapi", "litellm"])
async def test_a_file_that_is_no_picture_is_refused(client: Client, dialect: str, file: tuple[str, bytes, str]) -> None:
    refused = await client.post(f"{dialect}/v1/videos", data=form_of(file, **FIELDS))
    assert refused.status == 400
    assert refused.json.keys() in ({"error"}, {"detail"}, {"code", "message", "data"})
    assert (await client.get("ledger/summary")).json["accepted"] == 0


BAD_VALUES: list[Any] = [
    {"image_url": "http://files.test/a.png"},
    {"image_url": "data:image/png;base64,%%%"},
    {"image_url": 1},
    {"file_id": "file-1"},
    {},
    "https://files.test/a.png",
]


@pytest.mark.parametrize("value", BAD_VALUES)
async def test_openai_refuses_other_values(client: Client, value: object) -> None:
    refused = await client.post("openai/v1/videos", json=FIELDS | {"input_reference": value})
    error = refused.json["error"]
    assert (refused.status, error["code"], error["param"]) == (400, "invalid_value", "input_reference")


@pytest.mark.parametrize(
    "hosted",
    [
        {"status": 404},
        {"status": 302, "location": "/elsewhere"},
        {"content": PICTURE, "kind": "application/octet-stream"},
        {"content": PICTURE, "kind": "image/webp"},
    ],
)
async def test_openai_refuses_a_url_that_it_cannot_use(client: Client, host: Host, hosted: dict[str, Any]) -> None:
    reference = {"image_url": host.put("a.png", **hosted)}
    refused = await client.post("openai/v1/videos", json=FIELDS | {"input_reference": reference})
    assert (refused.status, refused.json["error"]["param"]) == (400, "input_reference")
    assert host.requests == ["GET /a.png"]


# SGLang ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reference_url", "input_reference"])
async def test_sglang_takes_a_url_as_a_field(client: Client, host: Host, name: str) -> None:
    for body in (
        {"json": FIELDS | {name: data_uri(PICTURE)}},
        {"data": form_of(**FIELDS, **{name: host.put("a", PICTURE)})},
    ):
        await client.delete("ledger")
        assert (await client.post("sglang/v1/videos", **body)).status == 200
        assert await roles_of(client) == [("first_frame", (320, 180))]


async def test_sglang_shows_a_reference_video(client: Client) -> None:
    frames = await shown(client, "sglang", data=form_of(("video_reference", clip(GREEN), "video/mp4"), **SHOWN))
    assert is_coloured(frames[0][8:36, 8:36], GREEN)


@pytest.mark.parametrize("value", [IMAGE, [data_uri(PICTURE)], "/data/a.png"])
async def test_sglang_refuses_what_is_no_url(client: Client, value: object) -> None:
    refused = await client.post("sglang/v1/videos", json=FIELDS | {"input_reference": value})
    assert (refused.status, refused.json.keys()) == (400, {"detail"})


# vLLM-Omni ------------------------------------------------------------------------------------------------------------


async def vllm(client: Client, form: aiohttp.FormData) -> int:
    return (await client.post("vllm/v1/videos", data=form)).status


async def test_vllm_takes_several_files_as_references(client: Client) -> None:
    files = [("input_references", halves(colour, colour), "image/png") for colour in (RED, GREEN)]
    frames = await shown(client, "vllm", data=form_of(*files, **SHOWN))
    assert is_coloured(frames[0][8:36, 8:36], RED)
    assert is_coloured(frames[0][8:36, 48:76], GREEN)


@pytest.mark.parametrize(
    ("value", "roles"),
    [(IMAGE, ["first_frame"]), ([IMAGE], ["reference_image"]), ([IMAGE, IMAGE], ["reference_image"] * 2)],
)
async def test_vllm_takes_json_as_text(client: Client, value: object, roles: list[str]) -> None:
    video = json.dumps({"video_url": data_uri(clip(RED), "video/mp4")})
    form = form_of(**FIELDS, image_reference=json.dumps(value), video_reference=video)
    assert await vllm(client, form) == 200
    assert [role for role, _ in await roles_of(client)] == [*roles, "reference_video"]


@pytest.mark.parametrize(
    "fields",
    [
        {"image_reference": "{"},
        {"image_reference": "[]x"},
        {"image_reference": json.dumps(IMAGE | {"detail": "high"})},
        {"image_reference": json.dumps({"file_id": "1"})},
        {"image_reference": json.dumps({"video_url": "https://files.test/a.mp4"})},
        {"input_reference": data_uri(PICTURE)},
    ],
)
async def test_vllm_refuses_other_text(client: Client, fields: dict[str, str]) -> None:
    refused = await client.post("vllm/v1/videos", data=form_of(**FIELDS, **fields))
    assert (refused.status, refused.json["error"]["param"]) == (400, next(iter(fields)))


async def test_vllm_refuses_combinations(client: Client) -> None:
    other, image = ("input_references", PICTURE, "image/png"), {"image_reference": json.dumps(IMAGE)}
    for form in (form_of(FILE, other, **FIELDS), form_of(FILE, **FIELDS, **image), form_of(other, **FIELDS, **image)):
        assert await vllm(client, form) == 400
    assert (await client.get("ledger/summary")).json["accepted"] == 0


# TensorRT-LLM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [data_uri(PICTURE), base64.b64encode(PICTURE).decode()])
async def test_tensorrt_takes_text(client: Client, value: str) -> None:
    created = await client.post("tensorrt/v1/videos", json=FIELDS | {"input_reference": value})
    assert created.status == 202
    assert await roles_of(client) == [("first_frame", (320, 180))]


@pytest.mark.parametrize("value", ["%%%", "http://files.test/a.png", base64.b64encode(b"text").decode(), IMAGE])
async def test_tensorrt_refuses_other_values(client: Client, value: object) -> None:
    refused = await client.post("tensorrt/v1/videos", json=FIELDS | {"input_reference": value})
    assert (refused.status, refused.json["object"]) == (400, "error")
