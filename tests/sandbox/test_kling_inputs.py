"""Kling's inputs: the items of ``contents``, their pictures and videos, and what is refused."""

from typing import Any

import pytest

from tests.sandbox.pictures import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    Host,
    clip,
    ends_of,
    entry_of,
    frames_of,
    halves,
    is_coloured,
    roles_of,
    shows,
)
from tests.sandbox.server import Answer, Client

IMAGE, OMNI = "kling/image-to-video/kling-3.0", "kling/omni-video/kling-3.0-omni"
SIZE = 1280, 720
FIRST = {"type": "first_frame", "url": "https://files.test/first.png"}
LAST = {"type": "last_frame", "url": "https://files.test/last.png"}
BASE = {"type": "base_video", "url": "https://files.test/base.mp4"}
#: Its job ends without a render.
PROMPT = {"type": "prompt", "text": "a fox [fail:internal]"}


async def create(client: Client, path: str, *contents: Any, **settings: Any) -> Answer:
    order = {"contents": contents, "settings": {"duration": 3} | settings}
    return await client.post(path, json=order)


async def ended(client: Client, path: str, *contents: Any, **settings: Any) -> dict[str, Any]:
    """The task at its end."""
    created = await create(client, path, *contents, **settings)
    assert (created.status, created.json["code"]) == (200, 0), created.body
    params = {"task_ids": created.json["data"]["id"]}
    while True:
        (task,) = (await client.get("kling/tasks", params=params)).json["data"]
        if task["status"] in {"succeeded", "failed"}:
            return dict(task)


def item(kind: str, url: str) -> dict[str, str]:
    return {"type": kind, "url": url}


async def test_first_and_last_are_fetched_and_shown(client: Client, host: Host) -> None:
    first, last = halves(RED, BLUE, size=SIZE), halves(GREEN, YELLOW, size=SIZE, kind="JPEG")
    items = item("last_frame", host.put("b", last, kind="image/jpeg")), item("first_frame", host.put("a", first))
    task = await ended(client, IMAGE, *items)
    assert sorted(host.requests) == ["GET /a", "GET /b"]
    start, end, frames = ends_of((await client.get(task["outputs"][0]["url"])).body)
    assert frames == 72
    assert shows(start, first)
    assert shows(end, last)


async def test_omni_edits_a_video_with_references(client: Client, host: Host) -> None:
    base, feature = clip(RED, BLUE, each=36), clip(BLUE)
    picture = halves(GREEN, GREEN, size=(300, 300))
    contents = [
        {"type": "prompt", "text": "a fox"},
        item("base_video", host.put("base", base, kind="video/mp4")),
        item("refer_image", host.put("picture", picture)),
        item("feature_video", host.put("feature", feature, kind="video/mp4")),
    ]
    task = await ended(client, OMNI, *contents, audio="original")
    assert [role for role, _ in await roles_of(client)] == ["source_video", "reference_image", "reference_video"]
    assert (task["outputs"][0]["duration"], task["billing"][0]["amount"]) == ("3.000", "0.378")
    frames = frames_of((await client.get(task["outputs"][0]["url"])).body)
    assert (len(frames), frames[0].shape) == (72, (180, 320, 3))
    assert is_coloured(frames[5][8:36, 8:36], GREEN)
    assert is_coloured(frames[5][8:36, 48:76], BLUE)


async def test_omni_takes_a_prompt_alone(client: Client) -> None:
    assert (await ended(client, OMNI, PROMPT))["status"] == "failed"
    assert (await entry_of(client))["inputs"] == []


@pytest.mark.parametrize(
    ("path", "contents", "settings", "reason"),
    [
        (IMAGE, [PROMPT], {}, "first_frame"),
        (IMAGE, [PROMPT, LAST], {}, "first_frame"),
        (OMNI, [PROMPT, LAST], {}, "first_frame"),
        (IMAGE, [], {}, "array"),
        (IMAGE, ["a fox"], {}, "unknown type"),
        (IMAGE, [PROMPT, FIRST, BASE], {}, "unknown type"),
        (OMNI, [PROMPT, {"type": "element", "id": "1"}], {}, "unknown type"),
        (IMAGE, [PROMPT, FIRST, FIRST], {}, "more than one"),
        (IMAGE, [PROMPT, PROMPT, FIRST], {}, "more than one"),
        (IMAGE, [FIRST | {"text": "a fox"}], {}, "text"),
        (IMAGE, [{"type": "first_frame"}], {}, "URL"),
        (IMAGE, [FIRST | {"url": "data:image/png;base64,AAAA"}], {}, "URL"),
        (IMAGE, [FIRST | {"url": "http://files.test/a.png"}], {}, "URL"),
        (IMAGE, [{"type": "prompt", "text": ""}, FIRST], {}, "prompt"),
        (OMNI, [FIRST], {}, "prompt"),
        (OMNI, [PROMPT, BASE, FIRST], {}, "base_video"),
        (OMNI, [PROMPT, BASE], {"resolution": "4k"}, "resolution"),
        (IMAGE, [PROMPT, FIRST], {"audio": "original"}, "audio"),
        ("kling/image-to-video/kling-2.6", [FIRST, LAST], {"duration": 5}, "1080p"),
    ],
)
async def test_invalid_contents_are_refused(
    client: Client, path: str, contents: list[Any], settings: dict[str, Any], reason: str
) -> None:
    refused = await create(client, path, *contents, **settings)
    assert (refused.status, refused.json["code"]) == (400, 1201)
    assert reason in refused.json["message"]
    assert (await client.get("ledger/summary")).json["accepted"] == 0


async def test_each_endpoint_has_its_own_models_and_body(client: Client) -> None:
    unknown = await create(client, "kling/omni-video/kling-3.0", PROMPT)
    assert (unknown.status, unknown.json["code"]) == (404, 1203)
    flat = await client.post(IMAGE, json={"prompt": "a fox"})
    assert (flat.status, flat.json["code"]) == (400, 1201)
    nested = await client.post("kling/text-to-video/kling-3.0", json={"contents": [PROMPT, FIRST]})
    assert (nested.status, nested.json["code"]) == (400, 1201)


@pytest.mark.parametrize(
    "hosted",
    [
        {"content": halves(size=(299, 400))},
        {"content": halves(size=(300, 751))},
        {"content": halves(size=(751, 300))},
        {"content": b"no picture"},
        {"content": clip(RED)},
        {"content": halves(size=(300, 300)), "status": 404},
        {"content": halves(size=(300, 300)), "status": 301, "location": "/elsewhere"},
    ],
)
async def test_a_picture_that_cannot_be_used_is_refused(client: Client, host: Host, hosted: dict[str, Any]) -> None:
    refused = await create(client, IMAGE, PROMPT, item("first_frame", host.put("a", **hosted)))
    assert (refused.status, refused.json["code"]) == (400, 1201)
    assert "first_frame" in refused.json["message"]
    assert host.requests == ["GET /a"]


@pytest.mark.parametrize("size", [(300, 750), (750, 300)])
async def test_the_content_type_of_a_url_does_not_matter(client: Client, host: Host, size: tuple[int, int]) -> None:
    url = host.put("a", halves(size=size, kind="WEBP"), kind="application/octet-stream", measured=False)
    await ended(client, IMAGE, PROMPT, item("first_frame", url))
    (given,) = (await entry_of(client))["inputs"]
    assert (given["content_type"], given["width"], given["height"]) == ("image/webp", *size)


async def test_an_id_taken_during_the_fetch_is_refused(client: Client, host: Host) -> None:
    url = host.put("a", halves(size=(300, 300)))
    order = {"contents": [PROMPT, item("first_frame", url)], "options": {"external_task_id": "ours"}}
    assert (await client.post(IMAGE, json=order)).status == 200
    again = await client.post(IMAGE, json=order)
    assert (again.status, again.json["code"]) == (400, 1201)
