"""new-api, TensorRT-LLM and LiteLLM: where they differ from OpenAI's API."""

import re
from typing import Any

import pytest

from tests.sandbox.server import Client, connected, order_of

NEWAPI, TENSORRT, LITELLM = "newapi/v1/videos", "tensorrt/v1/videos", "litellm/v1/videos"
GATEWAYS = (NEWAPI, LITELLM)
ORDER = {"prompt": "a fox ", "model": "sora-2", "size": "64x64", "seconds": 2}


def flat(code: str, message: str) -> dict[str, Any]:
    """new-api's refusal."""
    return {"code": code, "message": message, "data": None}


def error_object(status: int, kind: str, message: str) -> dict[str, Any]:
    """TensorRT-LLM's error."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


@pytest.mark.parametrize("path", GATEWAYS)
@pytest.mark.parametrize("seconds", [2, "2"])
async def test_gateways_take_json_and_forms_with_seconds_of_both_kinds(
    client: Client, path: str, seconds: int | str
) -> None:
    created = await client.post(path, json=ORDER | {"seconds": seconds})
    assert (created.status, created.json["seconds"], created.json["status"]) == (200, "2", "queued")
    form = {name: str(value) for name, value in ORDER.items()}
    assert (await client.post(path, data=form)).status == 200
    entries = (await client.get("ledger")).json["entries"]
    assert [(one["charged_usd"], one["prompt"]) for one in entries] == [("0.20", "a fox ")] * 2


async def test_newapi_leaves_out_what_is_empty(client: Client) -> None:
    created = await client.post(NEWAPI, **order_of("newapi", "a fox"))
    assert re.fullmatch(r"task_[0-9a-f]{32}", created.json["id"])
    assert created.json["task_id"] == created.json["id"]
    assert not created.json.keys() & {"prompt", "error", "completed_at"}
    path = f"{NEWAPI}/{created.json['id']}"
    assert (await client.wait_until(path)).json["completed_at"]
    assert (await client.get(f"{path}/content")).body[4:8] == b"ftyp"


async def test_newapi_refuses_flatly(client: Client) -> None:
    refused = await client.post(NEWAPI, json={"model": "sora-2"})
    assert (refused.status, refused.json) == (400, flat("invalid_request", "prompt is required"))
    missing = await client.get(f"{NEWAPI}/task_unknown")
    assert (missing.status, missing.json) == (400, flat("task_not_exist", "task_not_exist"))
    limited = await client.post(NEWAPI, json=ORDER | {"prompt": "[429]"})
    assert (limited.status, limited.json["code"]) == (429, "rate_limit_exceeded")


async def test_newapi_content_is_a_proxy_with_other_words(client: Client) -> None:
    path = await client.buy("a fox [never]", "newapi")
    await client.wait_until(path, "in_progress")
    early = await client.get(f"{path}/content")
    assert (early.status, early.json["error"]["type"]) == (400, "invalid_request_error")
    assert early.json["error"]["message"] == "Task is not completed yet, current status: IN_PROGRESS"
    missing = await client.get(f"{NEWAPI}/task_unknown/content")
    assert (missing.status, missing.json["error"]["message"]) == (404, "Task not found")


async def test_newapi_neither_lists_nor_deletes(client: Client) -> None:
    listed = await client.get(NEWAPI)
    assert (listed.status, listed.json["error"]["message"]) == (404, "Invalid URL (GET /v1/videos)")
    path = await client.buy("a fox [never]", "newapi")
    assert (await client.delete(path)).status == 404
    assert (await client.get(path)).status == 200


async def test_tensorrt_accepts_with_202_and_tells_a_duration(client: Client) -> None:
    created = await client.post(TENSORRT, json=ORDER)
    assert created.status == 202
    assert re.fullmatch(r"video_[0-9a-f]{32}", created.json["id"])
    assert (created.json["status"], created.json["duration"], created.json["prompt"]) == ("queued", 2.0, "a fox ")
    assert "seconds" not in created.json
    path = f"{TENSORRT}/{created.json['id']}"
    assert (await client.wait_until(path)).json["error"] is None
    assert (await client.get(f"{path}/content")).body[4:8] == b"ftyp"
    assert (await client.get("ledger")).json["entries"][0]["charged_usd"] == "0"


@pytest.mark.parametrize("body", [{"json": ORDER | {"n": 1}}, {"data": {"prompt": "a fox"}}, {"json": []}])
async def test_tensorrt_forbids_forms_and_unknown_fields(client: Client, body: dict[str, Any]) -> None:
    refused = await client.post(TENSORRT, **body)
    assert (refused.status, refused.json) == (400, error_object(400, "BadRequestError", refused.json["message"]))
    assert (await client.get("ledger/summary")).json["accepted"] == 0


async def test_tensorrt_fails_in_plain_text(client: Client) -> None:
    path = await client.buy("[fail:internal]", "tensorrt")
    done = (await client.wait_until(path)).json
    assert isinstance(done["error"], str)
    assert done["completed_at"] >= done["created_at"]
    remote_id = path.rsplit("/", 1)[1]
    content = await client.get(f"{path}/content")
    words = f"Video {remote_id} is not ready (status: failed)"
    assert (content.status, content.json) == (400, error_object(400, "BadRequestError", words))
    missing = await client.get(f"{TENSORRT}/video_unknown")
    assert (missing.status, missing.json) == (404, error_object(404, "NotFoundError", "Video video_unknown not found"))


async def test_tensorrt_lists_everything_oldest_first(client: Client) -> None:
    paths = [await client.buy(f"a fox [never] {number}", "tensorrt") for number in range(3)]
    listed = (await client.get(f"{TENSORRT}?limit=1&order=desc&after=unknown")).json
    assert listed.keys() == {"object", "data"}
    assert [f"{TENSORRT}/{one['id']}" for one in listed["data"]] == paths


async def test_tensorrt_delete_stops_the_render(client: Client) -> None:
    path = await client.buy("a fox [never]", "tensorrt")
    running = await client.wait_until(path, "generating")
    assert running.json["status"] == "generating"
    assert (await client.delete(path)).json == {"deleted": True}
    assert (await client.wait_for_entry("canceled"))["canceled"] is True
    assert (await client.delete(path)).status == 404


async def test_litellm_ids_are_long_and_never_the_same(client: Client) -> None:
    ids = {(await client.post(LITELLM, **order_of("litellm", "[never]"))).json["id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch(r"video_[A-Za-z0-9_=-]{236}", one) for one in ids)
    assert (await client.get(f"{LITELLM}/{ids.pop()}")).json["usage"] == {"duration_seconds": 1.0}


async def test_litellm_errors_have_a_text_as_code(client: Client) -> None:
    refused = await client.post(LITELLM, json={"model": "sora-2"})
    assert (refused.status, refused.json["error"]["code"]) == (400, "400")
    assert set(refused.json["error"]) == {"message", "type", "param", "code"}
    missing = await client.get(f"{LITELLM}/video_unknown")
    assert (missing.status, missing.json["error"]["code"]) == (500, "500")
    assert "not found" in missing.json["error"]["message"]


async def test_litellm_refuses_to_list_and_to_delete(client: Client) -> None:
    path = await client.buy("a fox [never]", "litellm")
    listed = await client.get(LITELLM)
    assert (listed.status, listed.json["error"]["code"]) == (400, "400")
    deleted = await client.delete(path)
    assert (deleted.status, deleted.json) == (405, {"detail": "Method Not Allowed"})
    early = await client.get(f"{path}/content")
    assert (early.status, early.json["error"]["code"]) == (400, "400")


async def test_each_turns_a_wrong_key_away_in_its_own_words(sandbox_url: str) -> None:
    async with connected(sandbox_url, key="other") as stranger:
        refused = await stranger.post(LITELLM, json=ORDER)
        assert (refused.status, refused.json["error"]["message"]) == (400, "No connected db.")
        refused = await stranger.post(NEWAPI, json=ORDER)
        assert (refused.status, refused.json["error"]["type"]) == (401, "new_api_error")
        refused = await stranger.post(TENSORRT, json=ORDER)
        assert (refused.status, refused.json["type"]) == (401, "AuthenticationError")
