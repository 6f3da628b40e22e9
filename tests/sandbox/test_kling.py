"""Kling's dialect: tasks, names of the caller's own, the list, signed callbacks, prices by the second."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.sandbox.settings import SandboxSettings
from tests.sandbox.server import REFERENCE, Answer, Client, connected, serving
from tests.support.raw_server import Heard, RawServer, reply, running_raw_server

CREATE = "kling/text-to-video/kling-3.0"
ORDER = {"prompt": "a fox", "settings": {"duration": 3}}
SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


@pytest.fixture
async def receiver() -> AsyncIterator[RawServer]:
    """Takes callbacks in."""
    async with running_raw_server(reply(b"")) as server:
        yield server


async def create(client: Client, prompt: str = "a fox", *, model: str = "kling-3.0", **fields: Any) -> Answer:
    settings = {"duration": 3 if model == "kling-3.0" else 5, **fields.pop("settings", {})}
    order = {"prompt": prompt, "settings": settings, "options": fields}
    return await client.post(f"kling/text-to-video/{model}", json=order)


async def buy(client: Client, prompt: str = "a fox", **fields: Any) -> str:
    created = await create(client, prompt, **fields)
    assert (created.status, created.json["code"]) == (200, 0), created.body
    return str(created.json["data"]["id"])


async def query(client: Client, remote_id: str) -> Answer:
    return await client.get("kling/tasks", params={"task_ids": remote_id})


async def task_of(client: Client, remote_id: str) -> dict[str, Any]:
    (task,) = (await query(client, remote_id)).json["data"]
    return dict(task)


async def ended(client: Client, receiver: RawServer, prompt: str, **fields: Any) -> dict[str, Any]:
    """A task that its callback says is over."""
    remote_id = await buy(client, prompt, callback_url=receiver.url, **fields)
    await receiver.wait_for(3)
    return await task_of(client, remote_id)


def told(heard: list[Heard]) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in heard]


async def test_a_task_names_its_video_and_what_it_cost(client: Client, sandbox_url: str, receiver: RawServer) -> None:
    created = await client.post(CREATE, json=ORDER | {"options": {"external_task_id": "ours"}})
    assert set(created.json) == {"code", "message", "request_id", "data"}
    assert created.json["data"].keys() == {"id", "status", "create_time", "update_time", "external_id"}
    assert created.json["data"]["status"] == "submitted"
    task = await ended(client, receiver, "a fox", settings={"audio": "native"})
    assert (task["status"], task["message"]) == ("succeeded", "")
    assert task["billing"] == [
        {
            "charge_type": "cash",
            "cash_type": "balance",
            "amount": "0.378",
            "currency": "USD",
            "list_price": "0.378",
        }
    ]
    (video,) = task["outputs"]
    assert (video["type"], video["duration"]) == ("video", "3.000")
    assert video["url"].startswith(sandbox_url)
    async with aiohttp.ClientSession() as anybody, anybody.get(video["url"]) as response:
        assert response.status == 200
        assert (await response.read())[4:8] == b"ftyp"


async def test_several_tasks_are_asked_for_at_once_and_unknown_ones_are_left_out(client: Client) -> None:
    first, second = await buy(client, "[never]"), await buy(client, "[never] again")
    answer = await query(client, f"{first},nothing,{second}")
    assert [task["id"] for task in answer.json["data"]] == [first, second]
    nothing = await query(client, "nothing")
    assert (nothing.status, nothing.json["code"], nothing.json["data"]) == (200, 0, [])


async def test_a_task_is_found_by_its_callers_own_name(client: Client) -> None:
    remote_id = await buy(client, "[never]", external_task_id="ours")
    await buy(client, "[never]", external_task_id="theirs")
    found = await client.get("kling/tasks", params={"external_task_ids": "ours"})
    assert [(task["id"], task["external_id"]) for task in found.json["data"]] == [(remote_id, "ours")]
    nothing = await client.get("kling/tasks", params={"external_task_ids": "nobodys"})
    assert (nothing.json["code"], nothing.json["data"]) == (0, [])


async def test_a_name_is_used_once(client: Client) -> None:
    await buy(client, "[never]", external_task_id="ours")
    again = await create(client, "[never]", external_task_id="ours")
    assert (again.status, again.json["code"]) == (400, 1201)
    assert (await client.get("ledger/summary")).json["accepted"] == 1


@pytest.mark.parametrize("params", [{}, {"task_ids": "1", "external_task_ids": "2"}, {"task_id": "1"}])
async def test_a_query_names_tasks_in_one_way(client: Client, params: dict[str, str]) -> None:
    refused = await client.get("kling/tasks", params=params)
    assert (refused.status, refused.json["code"]) == (400, 1201)


async def test_the_list_is_newest_first_and_comes_in_pages(client: Client) -> None:
    bought = [await buy(client, "[never]", external_task_id=f"ours-{number}") for number in range(3)]
    first = (await client.post("kling/tasks", json={"limit": 2})).json["data"]
    assert [task["id"] for task in first["result"]] == [bought[2], bought[1]]
    assert (first["count"], first["has_more"], first["next_cursor"]) == (2, True, bought[1])
    second = (await client.post("kling/tasks", json={"limit": 2, "cursor": first["next_cursor"]})).json["data"]
    assert [task["external_id"] for task in second["result"]] == ["ours-0"]
    assert (second["has_more"], second["next_cursor"]) == (False, "")


async def test_the_list_is_cut_by_time_and_filtered(client: Client, receiver: RawServer) -> None:
    done = await ended(client, receiver, "a fox")
    running = await buy(client, "[never]")

    async def listed(**fields: Any) -> list[str]:
        return [task["id"] for task in (await client.post("kling/tasks", json=fields)).json["data"]["result"]]

    assert await listed(filters=[{"key": "status", "values": ["succeeded"]}]) == [done["id"]]
    assert await listed(filters=[{"key": "product_type", "values": ["video"]}]) == [running, done["id"]]
    assert await listed(filters=[{"key": "product_type", "values": ["image"]}]) == []
    assert await listed(end_time=str(done["create_time"] - 1)) == []
    assert await listed(start_time=done["create_time"]) == [running, done["id"]]


@pytest.mark.parametrize(
    "fields",
    [{"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"filters": [{"key": "x"}]}, {"start_time": "now"}, {"page": 1}],
)
async def test_a_list_is_asked_for_rightly(client: Client, fields: dict[str, Any]) -> None:
    refused = await client.post("kling/tasks", json=fields)
    assert (refused.status, refused.json["code"]) == (400, 1201)


async def test_every_change_is_told_once_in_order(client: Client, receiver: RawServer) -> None:
    remote_id = await buy(client, callback_url=f"{receiver.url}/here?token=1", external_task_id="ours")
    heard = await receiver.wait_for(3)
    assert {one.line for one in heard} == {"POST /here?token=1 HTTP/1.1"}
    assert [task["status"] for task in told(heard)] == ["submitted", "processing", "succeeded"]
    assert {(task["id"], task["external_id"]) for task in told(heard)} == {(remote_id, "ours")}
    assert told(heard)[2] == await task_of(client, remote_id)
    assert not any(name.startswith("webhook-") for one in heard for name in one.headers)


async def test_callbacks_are_signed_by_standard_webhooks(video_directory: Path, receiver: RawServer) -> None:
    settings = SandboxSettings(data_dir=video_directory, render=False, callback_secret=SECRET)
    async with serving(settings) as url, connected(url) as client:
        await buy(client, callback_url=receiver.url)
        heard = await receiver.wait_for(2)
    verified = [Webhook(SECRET).verify(one.body, one.headers) for one in heard]
    assert [task["status"] for task in verified] == ["submitted", "succeeded"]
    assert len({one.headers["webhook-id"] for one in heard}) == 2


async def test_a_forged_callback_comes_before_each_true_one(video_directory: Path, receiver: RawServer) -> None:
    settings = SandboxSettings(data_dir=video_directory, render=False, callback_secret=SECRET)
    async with serving(settings) as url, connected(url) as client:
        await buy(client, "a fox [callback:forged]", callback_url=receiver.url)
        heard = await receiver.wait_for(4)
    assert [task["status"] for task in told(heard)] == ["failed", "submitted", "failed", "succeeded"]
    for forged in (heard[0], heard[2]):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(forged.body, forged.headers)
    for true in (heard[1], heard[3]):
        assert Webhook(SECRET).verify(true.body, true.headers)


async def test_a_callback_may_come_twice(client: Client, receiver: RawServer) -> None:
    await buy(client, "a fox [callback:twice]", callback_url=receiver.url)
    heard = await receiver.wait_for(6)
    assert [task["status"] for task in told(heard)[::2]] == ["submitted", "processing", "succeeded"]
    assert told(heard)[::2] == told(heard)[1::2]


async def test_a_callback_may_come_before_the_reply(client: Client, receiver: RawServer) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await create(client, "a fox [callback:early] [lose-reply] [never]", callback_url=receiver.url)
    assert told(receiver.heard)[0]["status"] == "submitted"


async def test_a_receiver_that_is_away_holds_nothing_up(client: Client, receiver: RawServer) -> None:
    async with running_raw_server() as away:
        url = away.url
    await buy(client, "a fox", callback_url=url)
    assert (await ended(client, receiver, "a fox"))["status"] == "succeeded"


@pytest.mark.parametrize(
    ("bracket", "words"),
    [
        ("[fail:moderation]", "risk control"),
        ("[fail:output]", "generated content"),
        ("[fail:internal]", "Internal"),
    ],
)
async def test_a_failure_has_a_reason_and_no_bill(
    client: Client, receiver: RawServer, bracket: str, words: str
) -> None:
    task = await ended(client, receiver, bracket)
    assert (task["status"], task["outputs"], task["billing"]) == ("failed", [], [])
    assert words in task["message"]
    (entry,) = (await client.get("ledger")).json["entries"]
    assert (entry["charged_usd"], entry["final_cost"]) == ("0.252", "0")


@pytest.mark.parametrize(
    ("model", "settings", "price"),
    [
        ("kling-3.0", {}, "0.252"),
        ("kling-3.0", {"resolution": "4k"}, "1.26"),
        ("kling-3.0", {"audio": "native", "resolution": "1080p"}, "0.504"),
        ("kling-3.0-turbo", {"duration": 15, "aspect_ratio": "1:1"}, "1.680"),
        ("kling-2.6", {"duration": 10, "aspect_ratio": "9:16"}, "0.420"),
        ("kling-2.6", {"resolution": "1080p", "audio": "native"}, "0.70"),
        ("kling-2.5-turbo", {"resolution": "1080p"}, "0.35"),
    ],
)
async def test_prices_are_those_of_the_list(client: Client, model: str, settings: dict[str, Any], price: str) -> None:
    await buy(client, "[never] [fail:internal]", model=model, settings=settings)  # and so without a render
    (entry,) = (await client.get("ledger")).json["entries"]
    assert (entry["model"], entry["charged_usd"]) == (model, price)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("kling-3.0", {"prompt": ""}),
        ("kling-3.0", {"prompt": "x" * 3073}),
        ("kling-2.6", {"prompt": "x" * 2501}),
        ("kling-3.0", {"negative_prompt": "owls"}),
        ("kling-3.0", {"settings": {"duration": 2}}),
        ("kling-3.0", {"settings": {"duration": "5"}}),
        ("kling-3.0", {"settings": {"resolution": "540p"}}),
        ("kling-3.0", {"settings": {"aspect_ratio": "4:3"}}),
        ("kling-3.0", {"settings": {"multi_shot": "yes"}}),
        ("kling-3.0", {"settings": []}),
        ("kling-3.0-turbo", {"settings": {"resolution": "4k"}}),
        ("kling-3.0-turbo", {"settings": {"audio": "off"}}),
        ("kling-2.6", {"settings": {"duration": 7}}),
        ("kling-2.6", {"settings": {"audio": "native"}}),
        ("kling-2.5-turbo", {"settings": {"audio": "off"}}),
        ("kling-3.0", {"options": {"external_task_id": ""}}),
        ("kling-3.0", {"options": {"callback_url": "here"}}),
        ("kling-3.0", {"options": {"seed": 7}}),
    ],
)
async def test_validation_is_strict_per_model(client: Client, model: str, fields: dict[str, Any]) -> None:
    refused = await client.post(f"kling/text-to-video/{model}", json={"prompt": "a fox", **fields})
    assert (refused.status, refused.json["code"]) == (400, 1201)
    assert (await client.get("ledger/summary")).json["accepted"] == 0


@pytest.mark.parametrize(
    ("bracket", "status", "code", "wait"),
    [
        ("[429:1]", 429, 1303, "1"),
        ("[500:1]", 500, 5000, None),
        ("[fail:prompt]", 400, 1301, None),
        ("[fail:quota]", 429, 1102, None),
    ],
)
async def test_a_refused_create_says_why_by_its_code(
    client: Client, bracket: str, status: int, code: int, wait: str | None
) -> None:
    refused = await create(client, bracket, external_task_id="ours")
    assert (refused.status, refused.json["code"], refused.headers.get("retry-after")) == (status, code, wait)
    assert set(refused.json) == {"code", "message", "request_id"}
    assert (await client.get("ledger/summary")).json["accepted"] == 0


async def test_strangers_models_and_paths_that_there_are_not(client: Client, sandbox_url: str) -> None:
    async with connected(sandbox_url, key="other") as stranger:
        refused = await stranger.post(CREATE, json=ORDER)
        assert (refused.status, refused.json["code"]) == (401, 1002)
    for path in ("kling/text-to-video/kling-9", "kling/v1/videos/text2video"):
        missing = await client.post(path, json=ORDER)
        assert (missing.status, missing.json["code"]) == (404, 1203)


async def test_status_reads_fail_as_often_as_asked(client: Client) -> None:
    remote_id = await buy(client, "[flaky:1] [gone:1] [odd-status:1] [never]", external_task_id="ours")
    answers = [await query(client, remote_id) for _ in range(4)]
    assert [answer.status for answer in answers] == [503, 200, 200, 200]
    assert answers[0].json["code"] == 5001
    assert [[task["status"] for task in answer.json["data"]] for answer in answers[1:3]] == [[], ["reticulating"]]
    assert answers[3].json["data"][0]["status"] in {"submitted", "processing"}


async def test_a_lost_reply_is_a_submission_that_can_be_found(client: Client) -> None:
    order = ORDER | {"prompt": "[lose-reply] [never]", "options": {"external_task_id": "sub_1"}}
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.post(CREATE, json=order, headers={REFERENCE: "sub_1"})
    (entry,) = (await client.get("ledger?ref=sub_1")).json["entries"]
    found = (await client.get("kling/tasks", params={"external_task_ids": "sub_1"})).json["data"]
    assert [task["id"] for task in found] == [entry["remote_id"]]


async def test_an_expired_video_cannot_be_fetched(client: Client, receiver: RawServer) -> None:
    task = await ended(client, receiver, "a fox [expired]")
    assert (await client.get(task["outputs"][0]["url"])).status == 403
