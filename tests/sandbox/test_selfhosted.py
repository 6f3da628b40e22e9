"""SGLang's and vLLM-Omni's dialects: where they differ from OpenAI's."""

from http import HTTPStatus
from typing import Any

import aiohttp
import pytest

from tests.sandbox.server import Client, connected, order_of

SGLANG, VLLM = "sglang/v1/videos", "vllm/v1/videos"


def form_of(**fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    return form


def envelope(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """vLLM's error body."""
    error = {"message": message, "type": HTTPStatus(status).phrase, "param": param, "code": status}
    return {"error": error}


async def test_sglang_echoes_any_model_and_keeps_the_prompt_to_itself(client: Client) -> None:
    created = await client.post(SGLANG, json={"prompt": "a fox", "model": "any", "size": "64x64", "seconds": 1})
    assert created.status == 200
    assert created.json["model"] == "any"
    assert created.json["seconds"] == "1"
    assert "prompt" not in created.json
    done = (await client.wait_until(f"{SGLANG}/{created.json['id']}")).json
    assert done["status"] == "completed"
    assert created.json["file_paths"] == done["file_paths"] == [done["file_path"]]
    assert (created.json["num_outputs"], created.json["urls"]) == (None, None)
    assert (done["num_outputs"], done["urls"], done["url"]) == (1, [None], None)
    assert done["expires_at"] is None
    assert done.keys() >= {"revised_prompt", "action", "lidar", "peak_memory_mb", "inference_time_s"}


@pytest.mark.parametrize(("ordered", "told"), [(2, "3"), ("3", "4")])
async def test_sglang_tells_the_seconds_of_the_aligned_frames(client: Client, ordered: Any, told: str) -> None:
    order = {"prompt": "[never]", "model": "tencent/HunyuanVideo", "size": "64x64", "seconds": ordered}
    created = await client.post(SGLANG, json=order)
    listed = (await client.get(SGLANG)).json["data"][0]
    assert (created.json["seconds"], listed["seconds"]) == (told, told)


async def test_sglang_takes_an_empty_prompt_and_tells_no_option(client: Client) -> None:
    order = {"prompt": "", "size": "64x64", "seconds": 1, "seed": [7, 8], "negative_prompt": "blur"}
    created = await client.post(SGLANG, json=order)
    assert created.status == 200
    assert not created.json.keys() & {"prompt", "seed", "negative_prompt"}


async def test_sglang_takes_a_length_in_frames_and_sides_one_by_one(client: Client) -> None:
    order = {"prompt": "[never]", "num_frames": "48", "fps": 24, "width": 128, "height": "64", "steps": 9}
    created = await client.post(SGLANG, data=form_of(**{name: str(value) for name, value in order.items()}))
    assert (created.json["seconds"], created.json["size"]) == ("2", "128x64")


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": None},
        {"seed": "x"},
        {"seed": [1, "x"]},
        {"size": "wide"},
        {"width": 63},
        {"seconds": "long"},
        {"seconds": 100},
        {"input_reference": {"image_url": "https://example.test/a.png"}},
    ],
)
async def test_sglang_refuses_with_a_detail(client: Client, change: dict[str, Any]) -> None:
    refused = await client.post(SGLANG, json={"prompt": "a fox"} | change)
    assert refused.status == 400
    assert isinstance(refused.json["detail"], str)


async def test_sglang_reads_a_broken_body_as_an_empty_one(client: Client) -> None:
    refused = await client.post(SGLANG, data=b"{{", headers={"Content-Type": "application/json"})
    assert (refused.status, refused.json) == (400, {"detail": "prompt is required"})


async def test_sglang_has_no_content_until_it_has_and_no_variants(client: Client) -> None:
    running = await client.buy("a fox [never]", "sglang")
    early = await client.get(f"{running}/content")
    assert (early.status, early.json) == (404, {"detail": "Generation is still in-progress"})
    done = await client.buy("a fox", "sglang")
    await client.wait_until(done)
    assert (await client.get(f"{done}/content")).body[4:8] == b"ftyp"
    assert (await client.get(f"{done}/content?variant=0")).status == 200
    assert (await client.get(f"{done}/content?variant=video")).status == 404


async def test_sglang_delete_forgets_the_job_while_the_render_goes_on(client: Client) -> None:
    path = await client.buy("a fox [slow:0.2]", "sglang")
    deleted = await client.delete(path)
    assert deleted.json["object"] == "video"
    assert deleted.json["status"] == "deleted"
    assert (await client.get(path)).json == {"detail": "Video not found"}
    entry = await client.wait_for_entry("succeeded")
    assert entry["charged"] is True
    assert entry["canceled"] is False


async def test_sglang_fails_without_a_code(client: Client) -> None:
    done = await client.wait_until(await client.buy("[fail:internal]", "sglang"))
    assert (done.status, done.json["status"]) == (200, "failed")
    assert set(done.json["error"]) == {"message"}


async def test_sglang_lists_in_its_own_limits(client: Client) -> None:
    await client.buy("[never]", "sglang")
    assert len((await client.get(SGLANG)).json["data"]) == 1
    assert (await client.get(f"{SGLANG}?after=unknown")).json["data"] == []
    refused = await client.get(f"{SGLANG}?limit=0")
    assert refused.status == 422
    assert refused.json["detail"][0]["loc"] == ["query", "limit"]
    refused = await client.get(f"{SGLANG}?order=x")
    assert (refused.status, refused.json["detail"][0]["loc"]) == (422, ["query", "order"])


async def test_vllm_takes_forms_only(client: Client) -> None:
    encoded = await client.post(VLLM, data={"prompt": "a fox [never]", "size": "64x64"})
    assert (encoded.status, encoded.json["size"]) == (200, "64x64")
    refused = await client.post(VLLM, json={"prompt": "a fox"})
    assert refused.status == 400
    assert refused.json["error"]["code"] == 400
    created = await client.post(VLLM, **order_of("vllm", "a fox"))
    assert created.status == 200
    assert created.json["id"].startswith("video_gen_")
    assert (created.json["model"], created.json["prompt"]) == ("sandbox-video", "a fox")


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a fox", "model": "sora-2"},
        {"prompt": "a fox", "seconds": "04"},
        {"prompt": "a fox", "seconds": "4.5"},
        {"prompt": "a fox", "size": "720p"},
        {"prompt": "a fox", "seed": "x"},
        {"size": "64x64"},
    ],
)
async def test_vllm_refuses_in_its_engines_shape(client: Client, fields: dict[str, str]) -> None:
    refused = await client.post(VLLM, data=form_of(**fields))
    assert refused.status == 400
    error = refused.json["error"]
    assert refused.json == envelope(400, error["message"], error["param"])


@pytest.mark.parametrize(("bracket", "status"), [("[fail:internal]", 500), ("[fail:moderation]", 400)])
async def test_vllm_responds_to_a_failed_job_with_an_http_error_and_the_job(
    client: Client, bracket: str, status: int
) -> None:
    path = await client.buy(bracket, "vllm")
    done = await client.wait_until(path)
    assert done.status == status
    assert (done.json["object"], done.json["status"]) == ("video", "failed")
    assert done.json["error"]["code"] == status
    content = await client.get(f"{path}/content")
    assert (content.status, content.json) == (422, envelope(422, "Video generation failed"))
    assert done.json["completed_at"] >= done.json["created_at"]
    listed = await client.get(VLLM)
    assert (listed.status, listed.json["data"][0]["status"]) == (200, "failed")


async def test_vllm_progress_is_nothing_and_then_everything(client: Client) -> None:
    running = await client.buy("a fox [never]", "vllm")
    assert (await client.wait_until(running, "in_progress")).json["progress"] == 0
    assert (await client.get(f"{running}/content")).status == 404
    done = await client.buy("a fox", "vllm")
    assert (await client.wait_until(done)).json["progress"] == 100
    assert (await client.get(f"{done}/content?variant=ignored")).body[4:8] == b"ftyp"


async def test_vllm_has_fields_of_its_own(client: Client) -> None:
    created = await client.post(VLLM, **order_of("vllm", "a fox"))
    assert created.json.items() >= {"quality": "default", "peak_memory_mb": 0.0, "action": None}.items()
    done = (await client.wait_until(f"{VLLM}/{created.json['id']}")).json
    assert (done["fps"], done["num_frames"], done["duration_s"]) == (24, 24, 1.0)
    assert (done["metrics"], done["stage_durations"]) == ({}, {})
    assert not done.keys() & {"seed", "negative_prompt"}


async def test_vllm_refuses_an_order_that_is_none(client: Client) -> None:
    refused = await client.get(f"{VLLM}?order=x")
    assert (refused.status, refused.json) == (400, envelope(400, "Invalid 'order': 'x'.", "order"))


async def test_vllm_with_several_api_servers_accepts_nothing(client: Client) -> None:
    refused = await client.post(VLLM, **order_of("vllm", "a fox [api-servers]"))
    assert refused.status == 409
    assert refused.json == envelope(409, refused.json["error"]["message"])
    assert "not supported with --api-server-count" in refused.json["error"]["message"]
    assert (await client.get("ledger/summary")).json["accepted"] == 0


async def test_vllm_delete_cancels(client: Client) -> None:
    path = await client.buy("a fox [never]", "vllm")
    deleted = await client.delete(path)
    assert deleted.json == {"id": path.rsplit("/", 1)[1], "object": "video.deleted", "deleted": True}
    entry = await client.wait_for_entry("canceled")
    assert entry["canceled"] is True
    missing = await client.delete(path)
    assert (missing.status, missing.json) == (404, envelope(404, f"Video {path.rsplit('/', 1)[1]} not found"))


async def test_each_server_turns_strangers_away_in_its_own_words(sandbox_url: str) -> None:
    async with connected(sandbox_url, key="other") as stranger:
        assert (await stranger.get(SGLANG)).json == {"detail": "Incorrect API key provided."}
        refused = await stranger.get(VLLM)
        assert (refused.status, refused.json) == (401, {"error": "Unauthorized"})
