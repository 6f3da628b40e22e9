"""A job is ordered again: the same but for what is said, another seed, and known as a variation."""

from typing import Any

import httpx2
import pytest

from tests.support.gateway import PROMPT, Gateway
from tests.support.sample_files import picture

ORDER: dict[str, Any] = {
    "seconds": 2,
    "size": "96x128",
    "max_cost": "1.00",
    "priority": "high",
    "metadata": {"order": "7"},
    "fallbacks": ["sandbox/short"],
    "fallback_on_refusal": True,
    "webhook_url": "https://shop.example/done",
    "mode": "adjust",
}
KEPT = ("model", "prompt", "seconds", "size", "max_cost", "priority", "metadata", "fallback_on_refusal", "webhook_url")


async def again(gateway: Gateway, job_id: str, key: str | None = None, **changes: Any) -> httpx2.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await gateway.client.post(f"/v1/jobs/{job_id}/again", json=changes, headers=headers)


async def test_another_take_is_the_same_request(gateway: Gateway) -> None:
    job = await gateway.create(**ORDER)
    answered = await again(gateway, job["id"])
    take = answered.json()
    assert (answered.status_code, answered.headers["location"]) == (202, f"/v1/jobs/{take['id']}")
    assert (take["parent_id"], job["parent_id"]) == (job["id"], None)
    assert take["id"] != job["id"]
    assert {name: take[name] for name in KEPT} == {name: job[name] for name in KEPT}
    assert [one["model"] for one in take["fallbacks"]] == ["sandbox/short"]


async def test_changes_replace_what_they_name(gateway: Gateway) -> None:
    job = await gateway.create(**ORDER)
    take = (
        await again(
            gateway,
            job["id"],
            prompt="the same at night",
            aspect_ratio="4:3",
            metadata={},
            webhook_url=None,
            fallbacks=[],
            mode="strict",
        )
    ).json()
    assert (take["prompt"], take["seconds"], take["size"]) == ("the same at night", 2, "128x96")
    assert (take["metadata"], take["webhook_url"], take["fallbacks"]) == ({}, None, [])


async def test_a_variation_starts_from_the_same_picture(gateway: Gateway) -> None:
    given = await gateway.client.post("/v1/files", files={"file": ("a.png", picture("PNG", size=(128, 96)))})
    inputs = [{"role": "first_frame", "file_id": given.json()["id"]}]
    job = await gateway.ended((await gateway.create(inputs=inputs))["id"])
    take = await gateway.ended((await again(gateway, job["id"], prompt=f"{PROMPT} again")).json()["id"])
    assert take["status"] == "succeeded", take["error"]
    assert [one["file_id"] for one in take["inputs"]] == [inputs[0]["file_id"]]


async def test_variations_are_listed_by_their_parent(gateway: Gateway) -> None:
    job, _ = await gateway.create(), await gateway.create()
    takes = [(await again(gateway, job["id"])).json()["id"] for _ in range(2)]
    page = (await gateway.client.get("/v1/jobs", params={"parent_id": job["id"]})).json()
    assert [one["id"] for one in page["data"]] == takes[::-1]
    answered = await gateway.client.get("/v1/jobs", params={"parent_id": "job_x"})
    assert (answered.status_code, answered.json()["errors"][0]["field"]) == (422, "query.parent_id")


async def test_a_repeated_request_makes_no_second_variation(gateway: Gateway) -> None:
    job, other = await gateway.create(), await gateway.create()
    first = await again(gateway, job["id"], "once", prompt="at night")
    second = await again(gateway, job["id"], "once", prompt="at night")
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    for answered in (await again(gateway, job["id"], "once"), await again(gateway, other["id"], "once")):
        assert (answered.status_code, answered.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seconds": 13, "mode": "strict"}, "seconds"),
        ({"id": "x"}, "id"),
        ({"prompt": " "}, "prompt"),
        ({"inputs": 1}, "inputs"),
    ],
)
async def test_a_change_that_the_model_does_not_take_is_named(
    gateway: Gateway, changes: dict[str, Any], field: str
) -> None:
    answered = await again(gateway, (await gateway.create())["id"], **changes)
    assert (answered.status_code, answered.json()["errors"][0]["field"]) == (422, field)


async def test_only_the_account_s_own_jobs_are_ordered_again(gateway: Gateway, stranger: httpx2.AsyncClient) -> None:
    job = await gateway.create()
    for job_id in (job["id"], "job_01h455vb4pex5vsknk084sn02q", "x"):
        assert (await stranger.post(f"/v1/jobs/{job_id}/again", json={})).status_code == 404
