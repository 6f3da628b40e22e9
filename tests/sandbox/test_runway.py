"""Runway's dialect: tasks, throttling, signed results, credits."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from app.sandbox.settings import SandboxSettings
from tests.sandbox.server import KEY, Client, connected, serving

CREATE = "runway/v1/text_to_video"
ORDER = {"model": "gen4.5", "promptText": "a fox", "ratio": "1280:720", "duration": 2}


async def test_a_task_runs_and_names_a_signed_result(client: Client, sandbox_url: str) -> None:
    created = await client.post(CREATE, json=ORDER)
    assert created.status == 200
    assert created.json["estimatedCost"] == {"credits": 24}
    path = f"runway/v1/tasks/{created.json['id']}"
    done = (await client.wait_until(path)).json
    assert set(done) == {"id", "status", "createdAt", "cost", "output"}
    assert (done["status"], done["cost"]) == ("SUCCEEDED", {"credits": 24})
    async with aiohttp.ClientSession() as anybody, anybody.get(done["output"][0]) as response:
        assert response.status == 200
        assert (await response.read())[4:8] == b"ftyp"
    assert done["output"][0].startswith(sandbox_url)


async def test_every_read_signs_the_result_anew(client: Client) -> None:
    path = await client.buy("a fox", "runway")
    first = (await client.wait_until(path)).json["output"]
    second = (await client.get(path)).json["output"]
    assert first != second
    for (url,) in (first, second):
        assert (await client.get(url)).status == 200


async def test_a_result_url_dies_and_cannot_be_changed(video_directory: Path) -> None:
    settings = SandboxSettings(data_dir=video_directory, render_seconds=0, result_url_seconds=0)
    async with serving(settings) as url, connected(url) as client:
        done = await client.wait_until(await client.buy("a fox", "runway"))
        (signed,) = done.json["output"]
        assert (await client.get(signed)).status == 403
        longer = signed.replace("expires=", "expires=9")
        assert (await client.get(longer)).status == 403
        assert (await client.get(signed.partition("?")[0])).status == 403


async def test_running_tasks_report_progress(client: Client) -> None:
    path = await client.buy("a fox [never]", "runway")
    running = (await client.wait_until(path, "RUNNING")).json
    assert running["status"] == "RUNNING"
    assert 0 <= running["progress"] < 1
    assert running["estimatedCost"] == {"credits": 24}
    assert "cost" not in running


async def test_over_the_concurrency_a_task_is_throttled_and_starts_by_itself(client: Client) -> None:
    first = await client.buy("a fox [never]", "runway")
    await client.wait_until(first, "RUNNING")
    second = await client.buy("a fox", "runway")
    throttled = (await client.wait_until(second, "THROTTLED")).json
    assert throttled["status"] == "THROTTLED"
    assert throttled["estimatedCost"] == {"credits": 24}
    assert (await client.delete(first)).status == 204
    assert (await client.wait_until(second)).json["status"] == "SUCCEEDED"


async def test_a_cancel_gives_the_money_back_only_before_the_task_runs(client: Client) -> None:
    running = await client.buy("a fox [never]", "runway")
    await client.wait_until(running, "RUNNING")
    throttled = await client.buy("a fox", "runway")
    for path, credits_kept in ((throttled, 0), (running, 24)):
        assert (await client.delete(path)).status == 204
        task = (await client.get(path)).json
        assert (task["status"], task["cost"]) == ("CANCELLED", {"credits": credits_kept})
    assert (await client.delete(running)).status == 204
    assert (await client.get(running)).status == 404


@pytest.mark.parametrize(
    ("bracket", "code", "cost"),
    [
        ("[fail:moderation]", "SAFETY.INPUT.TEXT", 24),
        ("[fail:output]", "SAFETY.OUTPUT.VIDEO", 24),
        ("[fail:internal]", "INTERNAL", 0),
    ],
)
async def test_a_failure_names_its_code_and_what_it_cost(client: Client, bracket: str, code: str, cost: int) -> None:
    task = (await client.wait_until(await client.buy(bracket, "runway"))).json
    assert (task["status"], task["failureCode"], task["cost"]) == ("FAILED", code, {"credits": cost})
    assert task["failure"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": "sora-2"}, "model"),
        ({"model": []}, "model"),
        ({"duration": None}, "duration"),
        ({"duration": "4"}, "duration"),
        ({"duration": True}, "duration"),
        ({"duration": 11}, "duration"),
        ({"ratio": "16:9"}, "ratio"),
        ({"ratio": "1920:1080"}, "ratio"),
        ({"promptText": ""}, "promptText"),
        ({"promptText": "🦊" * 501}, "promptText"),
        ({"seed": -1}, "seed"),
        ({"contentModeration": {"publicFigureThreshold": "high"}}, "contentModeration"),
        ({"negativePrompt": "owls"}, "negativePrompt"),
        ({"prompt": "a fox"}, "prompt"),
        ({"model": "veo3.1", "duration": 4, "audio": "yes"}, "audio"),
        ({"model": "veo3.1", "duration": 4, "negativePrompt": 1}, "negativePrompt"),
        ({"model": "veo3.1", "duration": 5}, "duration"),
    ],
)
async def test_validation_is_strict_per_model(client: Client, change: dict[str, Any], field: str) -> None:
    refused = await client.post(CREATE, json=ORDER | change)
    assert refused.status == 400
    assert field in refused.json["error"]
    assert refused.json["issues"][0]["path"] == [field]
    assert (await client.get("ledger/summary")).json["accepted"] == 0


async def test_a_body_that_is_no_object_is_refused(client: Client) -> None:
    refused = await client.post(CREATE, json=[ORDER])
    assert (refused.status, set(refused.json)) == (400, {"error"})


async def test_the_version_header_is_required(sandbox_url: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession() as session:
        for version in ({}, {"X-Runway-Version": "2023-01-01"}):
            async with session.post(f"{sandbox_url}/{CREATE}", json=ORDER, headers=headers | version) as response:
                assert response.status == 400
                assert "X-Runway-Version" in (await response.json())["error"]


async def test_strangers_and_unknown_tasks_are_turned_away(client: Client, sandbox_url: str) -> None:
    missing = await client.get("runway/v1/tasks/nothing")
    assert (missing.status, set(missing.json)) == (404, {"error"})
    async with connected(sandbox_url, key="other") as stranger:
        refused = await stranger.post(CREATE, json=ORDER)
        assert (refused.status, set(refused.json)) == (401, {"error"})


async def test_the_organization_tells_limits_and_use(client: Client) -> None:
    await client.buy("[never]", "runway")
    told = (await client.get("runway/v1/organization")).json
    assert told["tier"]["models"]["gen4.5"]["maxConcurrentGenerations"] == 1
    assert told["usage"]["models"]["gen4.5"]["dailyGenerations"] == 1
    assert told["creditBalance"] > 0
