"""OpenAI's dialect: shapes, limits and manners."""

from typing import Any

import aiohttp
import pytest

from tests.sandbox.pictures import halves
from tests.sandbox.server import Client, connected

VIDEOS = "openai/v1/videos"


async def test_a_video_is_submitted_polled_and_fetched(client: Client) -> None:
    order = {"prompt": "a fox", "model": "sora-2", "seconds": "1", "size": "64x64"}
    created = await client.post(VIDEOS, json=order)
    assert created.status == 200
    assert created.json | {"id": "", "created_at": 0} == {
        "id": "",
        "object": "video",
        "model": "sora-2",
        "status": "queued",
        "progress": 0,
        "created_at": 0,
        "completed_at": None,
        "expires_at": None,
        "prompt": "a fox",
        "size": "64x64",
        "seconds": "1",
        "remixed_from_video_id": None,
        "error": None,
    }
    path = f"{VIDEOS}/{created.json['id']}"
    done = (await client.wait_until(path)).json
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["expires_at"] == done["completed_at"] + 3600
    video = await client.get(f"{path}/content")
    assert (video.status, video.headers["Content-Type"]) == (200, "video/mp4")
    assert video.body[4:8] == b"ftyp"
    assert (await client.get(f"{path}/content?variant=video")).body == video.body
    poster = await client.get(f"{path}/content?variant=thumbnail")
    assert poster.headers["Content-Type"] == "image/webp"
    assert poster.body[8:12] == b"WEBP"


async def test_a_form_is_as_good_as_json(client: Client) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("prompt", "a fox\r\nand an owl – 🦉")
    form.add_field("size", "64x64")
    picture = halves(size=(64, 64))
    form.add_field("input_reference", picture, filename="first.png", content_type="image/png")
    created = await client.post(VIDEOS, data=form)
    assert created.status == 200
    assert created.json["prompt"] == "a fox\r\nand an owl – 🦉"
    assert (created.json["model"], created.json["seconds"]) == ("sora-2", "4")


async def test_a_running_job_says_when_to_ask_again(client: Client) -> None:
    path = await client.buy("a fox [never]")
    running = await client.wait_until(path, "in_progress")
    assert running.json["status"] == "in_progress"
    assert 100 <= int(running.headers["openai-poll-after-ms"]) <= 1000
    content = await client.get(f"{path}/content")
    assert (content.status, content.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": "x" * 32_001}, "prompt", "invalid_value"),
        ({"seconds": 4}, "seconds", "invalid_type"),
        ({"seconds": "0"}, "seconds", "invalid_value"),
        ({"seconds": "61"}, "seconds", "invalid_value"),
        ({"seconds": "4.5"}, "seconds", "invalid_value"),
        ({"size": "720p"}, "size", "invalid_value"),
        ({"size": "62x720"}, "size", "invalid_value"),
        ({"size": "5000x720"}, "size", "invalid_value"),
        ({"size": "641x361"}, "size", "invalid_value"),
        ({"model": 3}, "model", "invalid_type"),
        ({"seed": 7}, "seed", "unknown_parameter"),
        ({"input_reference": {"image_url": "a", "file_id": "b"}}, "input_reference", "invalid_value"),
    ],
)
async def test_what_the_api_does_not_take_is_refused(
    client: Client, change: dict[str, Any], field: str, code: str
) -> None:
    refused = await client.post(VIDEOS, json={"prompt": "a fox"} | change)
    assert refused.status == 400
    error = refused.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["param"], error["code"], error["type"]) == (field, code, "invalid_request_error")
    assert (await client.get("ledger/summary")).json["accepted"] == 0


async def test_a_body_that_is_no_json_object_is_refused(client: Client) -> None:
    for body in (b"{", b"[]", b"\xff"):
        refused = await client.post(VIDEOS, data=body, headers={"Content-Type": "application/json"})
        assert refused.status == 400
        assert "error" in refused.json


async def test_no_request_is_accepted_without_the_key(sandbox_url: str) -> None:
    async with connected(sandbox_url, key="other") as stranger:
        for method, path in (("POST", VIDEOS), ("GET", VIDEOS), ("GET", f"{VIDEOS}/x"), ("DELETE", f"{VIDEOS}/x")):
            refused = await stranger.ask(method, path)
            assert refused.status == 401
            assert refused.json["error"]["code"] == "invalid_api_key"


async def test_the_list_is_paged_newest_first(client: Client) -> None:
    ids = [(await client.buy(f"a fox [never] {number}")).rsplit("/", 1)[1] for number in range(3)]
    first = (await client.get(f"{VIDEOS}?limit=2")).json
    assert [item["id"] for item in first["data"]] == [ids[2], ids[1]]
    assert (first["object"], first["has_more"]) == ("list", True)
    assert (first["first_id"], first["last_id"]) == (ids[2], ids[1])
    rest = (await client.get(f"{VIDEOS}?limit=2&after={ids[1]}")).json
    assert [item["id"] for item in rest["data"]] == [ids[0]]
    assert rest["has_more"] is False
    oldest = (await client.get(f"{VIDEOS}?order=asc&limit=1")).json
    assert oldest["data"][0]["prompt"] == "a fox [never] 0"
    assert (await client.get(f"{VIDEOS}?limit=0")).json["data"] == []
    for query in ("limit=101", "limit=-1", "limit=x", "after=video_unknown"):
        assert (await client.get(f"{VIDEOS}?{query}")).status == 400


async def test_only_finished_videos_can_be_deleted(client: Client) -> None:
    running = await client.buy("a fox [never]")
    assert (await client.delete(running)).status == 400
    done = await client.buy("a fox")
    await client.wait_until(done)
    assert (await client.delete(done)).json == {
        "id": done.rsplit("/", 1)[1],
        "object": "video.deleted",
        "deleted": True,
    }
    missing = await client.get(done)
    assert missing.status == 404
    assert missing.json["error"]["type"] == "invalid_request_error"


async def test_paths_and_methods_that_do_not_exist_are_told_in_the_dialect(client: Client) -> None:
    assert (await client.post("openai/v1/images", json={})).json["error"]["message"] == "Not Found"
    refused = await client.ask("PUT", VIDEOS)
    assert (refused.status, refused.json["error"]["message"]) == (405, "Method Not Allowed")


@pytest.mark.parametrize(
    ("model", "size", "usd"),
    [
        ("sora-2", "1280x720", "0.20"),
        ("sora-2-pro", "1280x720", "0.60"),
        ("sora-2-pro", "1024x1792", "1.00"),
        ("sora-2-pro", "1920x1080", "1.40"),
        ("sandbox-video", "1280x720", "0.02"),
    ],
)
async def test_the_price_is_the_published_one(client: Client, model: str, size: str, usd: str) -> None:
    await client.post(VIDEOS, json={"prompt": "[fail:internal]", "model": model, "size": size, "seconds": "2"})
    entry = await client.wait_for_entry("failed")
    assert entry["charged_usd"] == usd
    assert entry["final_cost"] == "0"
