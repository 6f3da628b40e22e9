"""Scripted misbehaviour about inputs, and the limits of a fetch."""

from pathlib import Path
from typing import Any

import pytest

from app.sandbox.fetch import Fetcher
from app.sandbox.inputs import InputRules, InputSource, InvalidInput, Role, is_fetchable
from app.sandbox.settings import SandboxSettings
from tests.sandbox.pictures import BLUE, RED, Host, clip, data_uri, ends_of, entry_of, form_of, halves, roles_of
from tests.sandbox.server import Answer, Client, connected, serving

DIALECTS = ["openai", "sglang", "vllm", "newapi", "litellm", "tensorrt", "runway", "kling"]
PICTURE = halves(size=(300, 300))
RUNWAY, KLING = "runway/v1/image_to_video", "kling/image-to-video/kling-3.0"


async def create(client: Client, dialect: str, prompt: str, url: str) -> Answer:
    """A create with a first frame; ``url`` is used where files are not accepted."""
    if dialect == "runway":
        order: dict[str, Any] = {"model": "gen4.5", "promptText": prompt, "ratio": "960:960", "duration": 2}
        return await client.post(RUNWAY, json=order | {"promptImage": url})
    if dialect == "kling":
        contents = [{"type": "prompt", "text": prompt}, {"type": "first_frame", "url": url}]
        return await client.post(KLING, json={"contents": contents, "settings": {"duration": 3}})
    fields = {"prompt": prompt, "size": "300x300", "seconds": "1"}
    if dialect == "tensorrt":
        return await client.post("tensorrt/v1/videos", json=fields | {"input_reference": url})
    form = form_of(("input_reference", PICTURE, "image/png"), **fields)
    return await client.post(f"{dialect}/v1/videos", data=form)


async def state(client: Client, dialect: str, created: Answer) -> Answer:
    """The job's state, as the dialect tells it."""
    if dialect == "kling":
        return await client.get("kling/tasks", params={"task_ids": created.json["data"]["id"]})
    path = (
        f"runway/v1/tasks/{created.json['id']}" if dialect == "runway" else f"{dialect}/v1/videos/{created.json['id']}"
    )
    return await client.get(path)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_refused_input_is_not_fetched_and_not_charged(client: Client, host: Host, dialect: str) -> None:
    refused = await create(client, dialect, "a fox [input-refused]", host.put("a.png", PICTURE))
    assert refused.status == 400
    assert b"refused" in refused.body
    assert host.requests == []
    assert (await client.get("ledger/summary")).json["accepted"] == 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_lost_input_fails_the_job_at_no_cost(client: Client, host: Host, dialect: str) -> None:
    created = await create(client, dialect, "a fox [input-lost]", host.put("a.png", PICTURE))
    assert created.status in {200, 202}, created.body
    entry = await client.wait_for_entry("failed")
    assert (entry["verdict"], entry["final_cost"]) == ("invalid_input", "0")
    assert await roles_of(client) == [("first_frame", (300, 300))]
    told = await state(client, dialect, created)
    shown = (
        told.json["data"][0]["message"] if dialect == "kling" else told.json.get("error") or told.json["failureCode"]
    )
    expected = {
        "openai": {"code": "invalid_input_reference", "message": "The input reference could not be processed."},
        "sglang": {"message": "Invalid input reference: cannot identify image file"},
        "vllm": {"code": 400, "message": "Invalid input reference: cannot identify image file"},
        "newapi": {"code": "invalid_input_reference", "message": "The input reference could not be processed."},
        "litellm": {"code": "invalid_input_reference", "message": "The input reference could not be processed."},
        "tensorrt": "Invalid input reference: cannot identify image file",
        "runway": "ASSET.INVALID",
        "kling": "Failed to process the input: the image or video is invalid",
    }
    assert (told.status, shown) == (400 if dialect == "vllm" else 200, expected[dialect])


@pytest.mark.parametrize("bracket", ["[input-refused]", "[input-lost]", "[input-slow]"])
@pytest.mark.parametrize("dialect", ["openai", "runway"])
async def test_without_an_input_the_brackets_do_nothing(client: Client, dialect: str, bracket: str) -> None:
    path = await client.buy(f"{bracket} [fail:internal]", dialect)
    assert (await client.wait_until(path)).json["status"].lower() == "failed"
    assert (await entry_of(client))["verdict"] == "internal"


async def test_a_slow_input_is_fetched_only_when_the_task_can_start(client: Client, host: Host) -> None:
    blocking = await client.buy("[never] a fox", "runway")
    await client.wait_until(blocking, "RUNNING")
    url = host.put("a.png", PICTURE)
    created = await create(client, "runway", "[input-slow] [fail:internal]", url)
    path = f"runway/v1/tasks/{created.json['id']}"
    await client.wait_until(path, "THROTTLED")
    assert host.requests == []
    assert (await client.get("ledger")).json["entries"][1]["inputs"] == []
    assert (await client.delete(blocking)).status == 204
    assert (await client.wait_until(path)).json["failureCode"] == "INTERNAL"
    assert host.requests == ["HEAD /a.png", "GET /a.png"]
    (given,) = (await client.get("ledger")).json["entries"][1]["inputs"]
    assert (given["role"], given["width"]) == ("first_frame", 300)


@pytest.mark.parametrize("dialect", ["runway", "kling"])
async def test_a_slow_input_that_has_gone_fails_the_task(client: Client, host: Host, dialect: str) -> None:
    created = await create(client, dialect, "a fox [input-slow]", f"{host.url}/gone.png")
    assert created.status == 200
    entry = await client.wait_for_entry("failed")
    assert (entry["verdict"], entry["final_cost"], entry["inputs"]) == ("invalid_input", "0", [])


async def test_a_slow_source_is_charged_as_ten_seconds_and_shown(client: Client, host: Host) -> None:
    url = host.put("a.mp4", clip(RED, BLUE), kind="video/mp4")
    order = {"model": "aleph2", "promptText": "a fox [input-slow]", "videoUri": url}
    created = await client.post("runway/v1/video_to_video", json=order)
    assert created.json["estimatedCost"] == {"credits": 280}
    task = (await client.wait_until(f"runway/v1/tasks/{created.json['id']}")).json
    assert task["cost"] == {"credits": 280}
    start, _, frames = ends_of((await client.get(task["output"][0])).body)
    assert (start.shape, frames) == ((180, 320, 3), 24)
    assert await roles_of(client) == [("source_video", (320, 180))]


async def test_an_instant_sandbox_reads_inputs_too(instant_url: str, host: Host) -> None:
    async with connected(instant_url) as client:
        await client.delete("ledger")
        for prompt in ("a fox", "a fox [input-slow]"):
            created = await create(client, "runway", prompt, host.put("a.png", PICTURE))
            assert (await client.wait_until(f"runway/v1/tasks/{created.json['id']}")).json["status"] == "SUCCEEDED"
        lost = await create(client, "runway", "a fox [input-lost]", host.put("a.png", PICTURE))
        assert (await client.get(f"runway/v1/tasks/{lost.json['id']}")).json["failureCode"] == "ASSET.INVALID"
        entries = (await client.get("ledger")).json["entries"]
        assert [len(entry["inputs"]) for entry in entries] == [1, 1, 1]


async def test_an_input_that_cannot_be_kept_fails_the_task(tmp_path: Path, host: Host) -> None:
    place = tmp_path / "videos"
    place.write_text("not a directory")
    settings = SandboxSettings(data_dir=place, render_seconds=0)
    async with serving(settings) as url, connected(url) as client:
        created = await create(client, "runway", "a fox [input-slow]", host.put("a.png", PICTURE))
        task = await client.wait_until(f"runway/v1/tasks/{created.json['id']}")
        assert task.json["failureCode"] == "INTERNAL"


# Fetching -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [True, False])
async def test_a_fetch_stops_at_its_limit(host: Host, measured: bool) -> None:
    url = host.put("a.png", bytes(2000), measured=measured)
    source, fetcher = InputSource(Role.FIRST_FRAME, "image", url=url), Fetcher()
    content, kind = await fetcher.fetch(source, InputRules(image_bytes=2000))
    assert (len(content), kind) == (2000, "image/png")
    with pytest.raises(InvalidInput, match="too large"):
        await fetcher.fetch(source, InputRules(image_bytes=1999))
    await fetcher.close()


@pytest.mark.parametrize(
    ("url", "by_name", "by_address"),
    [
        ("https://files.test/a.png", True, True),
        ("https://192.0.2.1/a.png", False, True),
        ("http://files.test/a.png", False, False),
        ("http://192.0.2.1/a.png", False, False),
        ("http://localhost:8090/a.png", True, True),
        ("http://127.0.0.2/a.png", True, True),
        ("http://[::1]:80/a.png", True, True),
        ("https://[::1/a.png", False, False),
        ("https://files.test:port/a.png", False, False),
        ("file:///etc/hosts", False, False),
        ("a.png", False, False),
    ],
)
def test_which_urls_may_be_fetched(url: str, by_name: bool, by_address: bool) -> None:
    assert is_fetchable(url, addresses=False) is by_name
    assert is_fetchable(url) is by_address


def test_data_uris_need_no_fetch() -> None:
    assert not is_fetchable(data_uri(PICTURE))
