"""Wrong input is answered with what is wrong and what would be right, and nothing is bought."""

import asyncio
from typing import Any

import httpx2
import pytest

from app.ids import Prefix, encode, new_id
from tests.support.gateway import PROMPT, Gateway

ORDER = {"prompt": PROMPT, "model": "sandbox/video"}


async def refused(gateway: Gateway, status: int, code: str, **fields: Any) -> dict[str, Any]:
    reply = await gateway.client.post("/v1/jobs", json={**ORDER, **fields})
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert problem["code"] == code
    assert problem["request_id"] == reply.headers["x-request-id"]
    return problem


async def test_an_unknown_model_gets_the_nearest(gateway: Gateway) -> None:
    problem = await refused(gateway, 422, "unknown_model", model="sandbox/vidoe")
    assert "did you mean sandbox/video" in problem["detail"]
    assert problem["errors"][0]["field"] == "model"


async def test_a_length_that_is_not_offered_names_the_field_and_what_is(gateway: Gateway) -> None:
    problem = await refused(gateway, 422, "invalid_request", model="sandbox/short", seconds=7)
    (error,) = problem["errors"]
    assert error["field"] == "seconds"
    for allowed in ("4", "6", "8"):
        assert allowed in error["message"]


async def test_adjust_takes_the_nearest_and_says_so(gateway: Gateway) -> None:
    job = await gateway.create(model="sandbox/short", seconds=7, mode="adjust")
    assert job["seconds"] in {6, 8}
    (adjustment,) = job["adjustments"]
    assert (adjustment["field"], adjustment["requested"], adjustment["used"]) == ("seconds", 7, job["seconds"])


async def test_what_is_paid_for_is_not_guessed_from_another_type(gateway: Gateway) -> None:
    wrong = {"seconds": True, "seed": "7", "deadline_seconds": "60", "audio": "yes", "fallback_on_refusal": "no"}
    problem = await refused(gateway, 422, "invalid_request", **wrong)
    assert {(error["field"], error["code"]) for error in problem["errors"]} == {
        (field, "invalid_type") for field in wrong
    }
    await refused(gateway, 422, "invalid_request", seconds="4")
    await refused(gateway, 422, "invalid_request", seconds=4.5)


async def test_an_integer_may_be_written_with_a_point(gateway: Gateway) -> None:
    """As JSON Schema says of ``integer``; some languages write 4 so."""
    job = await gateway.create(**ORDER, seconds=4.0, deadline_seconds=60.0)
    assert str(job["seconds"]) == "4"


async def test_every_wrong_field_is_named_at_once(gateway: Gateway) -> None:
    problem = await refused(gateway, 422, "invalid_request", prompt="", seconds="long", sizes="big", metadata={"a": 1})
    assert {error["field"] for error in problem["errors"]} >= {"prompt", "seconds", "sizes", "metadata.a"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": "   "}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"size": "1x1"}, "size"),
        ({"seed": -1}, "seed"),
        ({"negative_prompt": "no cats"}, "negative_prompt"),
        ({"provider_options": {"output_path": "/etc/passwd"}}, "provider_options.output_path"),
        ({"webhook_url": "ftp://example.com"}, "webhook_url"),
        ({"webhook_url": "http://169.254.169.254/latest"}, "webhook_url"),
        ({"deadline_seconds": 10_000_000}, "deadline_seconds"),
        ({"max_cost": "0.001"}, "max_cost"),
        ({"max_cost": "1_0"}, "max_cost"),
        ({"max_cost": "1e3"}, "max_cost"),
        ({"max_cost": "\u0661"}, "max_cost"),
        ({"max_cost": " 1"}, "max_cost"),
        ({"max_cost": True}, "max_cost"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    ],
)
async def test_a_wrong_field_is_named(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    problem = await refused(gateway, 422, "invalid_request", **fields)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert (await gateway.purchases())["accepted"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"webhook_url": "h" * 3000},
        {"metadata": {"a": "b" * 501}},
        {"metadata": {"a" * 41: "b"}},
        {"prompt": "p" * 40_000},
    ],
)
async def test_the_length_of_text_is_one_of_characters(gateway: Gateway, fields: dict[str, Any]) -> None:
    problem = await refused(gateway, 422, "invalid_request", **fields)
    assert [error["code"] for error in problem["errors"]] == ["too_long"]
    assert problem["errors"][0]["message"].endswith(" or fewer characters")


async def test_two_keys_are_refused_and_not_one_of_them_taken(gateway: Gateway) -> None:
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    reply = await gateway.client.post("/v1/jobs", json=ORDER, headers=headers)
    assert (reply.status_code, reply.json()["errors"][0]["field"]) == (422, "header.Idempotency-Key")
    assert (await gateway.client.get("/v1/jobs")).json()["data"] == []


async def test_a_missing_key_says_how_to_send_one(gateway: Gateway) -> None:
    async with httpx2.AsyncClient(base_url=gateway.url, verify=False) as nobody:
        reply = await nobody.post("/v1/jobs", json=ORDER)
    assert (reply.status_code, reply.json()["code"]) == (401, "unauthenticated")
    assert "Authorization: Bearer" in reply.json()["detail"]
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_another_accounts_job_is_the_same_as_none(gateway: Gateway, stranger: httpx2.AsyncClient) -> None:
    job = await gateway.create()
    await gateway.ended(job["id"])
    missing = encode(Prefix.JOB, new_id())
    for method, path in [
        ("GET", "/v1/jobs/{}"),
        ("POST", "/v1/jobs/{}/cancel"),
        ("GET", "/v1/jobs/{}/submissions"),
        ("GET", "/v1/jobs/{}/deliveries"),
        ("GET", "/v1/jobs/{}/events"),
    ]:
        headers = {"X-Request-Id": "same"}
        foreign = await stranger.request(method, path.format(job["id"]), headers=headers)
        none = await stranger.request(method, path.format(missing), headers=headers)
        nonsense = await stranger.request(method, path.format("job_x"), headers=headers)
        assert foreign.status_code == 404
        assert foreign.content == none.content == nonsense.content
    assert (await stranger.get("/v1/jobs")).json()["data"] == []


async def test_a_body_of_ten_megabytes_is_turned_away(gateway: Gateway) -> None:
    reply = await gateway.client.post("/v1/jobs", json={**ORDER, "prompt": "x" * 10_000_000})
    assert (reply.status_code, reply.json()["code"]) == (413, "body_too_large")


async def test_the_same_key_and_body_give_the_same_job(gateway: Gateway) -> None:
    replies = await asyncio.gather(
        *(gateway.client.post("/v1/jobs", json=ORDER, headers={"Idempotency-Key": "order-7"}) for _ in range(20))
    )
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert [reply.headers.get("idempotency-replayed") for reply in replies].count("true") == 19
    await gateway.ended(replies[0].json()["id"])
    assert (await gateway.purchases())["accepted"] == 1


async def test_the_same_key_with_another_body_is_refused(gateway: Gateway) -> None:
    await gateway.create(key="order-8")
    reply = await gateway.client.post("/v1/jobs", json={**ORDER, "seconds": 2}, headers={"Idempotency-Key": "order-8"})
    assert (reply.status_code, reply.json()["code"]) == (422, "idempotency_mismatch")


async def test_a_key_is_one_accounts_own(gateway: Gateway, stranger: httpx2.AsyncClient) -> None:
    mine = await gateway.create(key="order-9")
    theirs = await stranger.post("/v1/jobs", json=ORDER, headers={"Idempotency-Key": "order-9"})
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine["id"]


async def test_a_refused_order_does_not_use_up_its_key(gateway: Gateway) -> None:
    headers = {"Idempotency-Key": "order-10"}
    refusal = await gateway.client.post("/v1/jobs", json={**ORDER, "seconds": 99}, headers=headers)
    assert refusal.status_code == 422
    assert (await gateway.client.post("/v1/jobs", json=ORDER, headers=headers)).status_code == 202


async def test_lists_are_filtered_and_paged(gateway: Gateway) -> None:
    jobs = [await gateway.create(metadata={"parity": str(number % 2)}) for number in range(5)]
    failing = await gateway.create(f"{PROMPT} [fail:internal]")
    await asyncio.gather(*(gateway.ended(job["id"]) for job in [*jobs, failing]))

    async def listed(**query: Any) -> dict[str, Any]:
        reply = await gateway.client.get("/v1/jobs", params=query)
        assert reply.status_code == 200, reply.text
        page: dict[str, Any] = reply.json()
        return page

    everything = [job["id"] for job in (await listed())["data"]]
    assert everything == [failing["id"], *(job["id"] for job in reversed(jobs))]
    first = await listed(limit=4)
    second = await listed(limit=4, cursor=first["next_cursor"])
    assert [job["id"] for job in [*first["data"], *second["data"]]] == everything
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    assert [job["id"] for job in (await listed(status="failed"))["data"]] == [failing["id"]]
    assert len((await listed(**{"metadata[parity]": "0"}))["data"]) == 3
    assert (await listed(model="default", created_before=jobs[0]["created_at"]))["data"] == []
    assert len((await listed(model="default", created_after=jobs[0]["created_at"]))["data"]) == 6
    for ever in ({"created_after": "0001-01-01T00:00:00Z"}, {"created_before": "9999-12-31T23:59:59Z"}):
        assert len((await listed(**ever))["data"]) == 6
    for never in ({"created_before": "1969-12-31T23:59:59Z"}, {"created_after": "9999-12-31T23:59:59Z"}):
        assert (await listed(**never))["data"] == []
    # A filter that is repeated matches any of its values, and a job must match all filters.
    assert len((await listed(status=["failed", "succeeded"]))["data"]) == 6
    assert len((await listed(model=["runway/gen4.5", "default"], status="succeeded"))["data"]) == 5
    assert len((await listed(**{"metadata[parity]": ["0", "1"]}))["data"]) == 5
    assert len((await listed(**{"metadata[parity]": ["1", "2"]}, status=["queued", "succeeded"]))["data"]) == 2


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("created_after=2026-01-01T00:00:00Z&created_after=2026-01-02T00:00:00Z", "query.created_after", "repeated"),
        ("limit=1&limit=2", "query.limit", "repeated"),
        ("&".join(["metadata[a]=1"] * 21), "query.metadata[a]", "too_long"),
        ("&".join(["status=failed"] * 21), "query.status", "too_long"),
        (f"metadata[{'a' * 41}]=1", f"query.metadata[{'a' * 41}]", "too_long"),
        ("metadata[a]=%00", "query.metadata[a]", "invalid_format"),
        ("metadata[]=1", "query.metadata[]", "unknown"),
        ("limit=1_0", "query.limit", "invalid_type"),
        ("limit=%2B1", "query.limit", "invalid_type"),
        ("limit=1.0", "query.limit", "invalid_type"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_named(gateway: Gateway, query: str, field: str, code: str) -> None:
    reply = await gateway.client.get(f"/v1/jobs?{query}")
    assert reply.status_code == 422
    assert [(error["field"], error["code"]) for error in reply.json()["errors"]] == [(field, code)]


async def test_every_name_of_metadata_can_be_looked_for(gateway: Gateway) -> None:
    names = ["a]b[", "]", "[", "a b", "metadata[a]", "ä&=%", "line\nend"]
    job = await gateway.create(**ORDER, metadata=dict.fromkeys(names, "1"))
    for name in names:
        found = (await gateway.client.get("/v1/jobs", params={f"metadata[{name}]": "1"})).json()["data"]
        assert [one["id"] for one in found] == [job["id"]], name


async def test_models_tell_what_can_be_ordered(gateway: Gateway) -> None:
    reply = (await gateway.client.get("/v1/models", params={"available": True})).json()
    models = {model["name"]: model for model in reply["data"]}
    assert models["sandbox/short"]["seconds"] == [4, 6, 8]
    assert models["runway/gen4.5"]["connections"] == ["sandbox-runway"]
    assert reply["aliases"] == {"default": "sandbox/video"}


async def test_operators_see_figures_and_reasons(gateway: Gateway) -> None:
    await gateway.ended((await gateway.create())["id"])
    readiness = await gateway.client.get("/readyz")
    assert readiness.json()["status"] == "ready"
    assert set(readiness.json()["checks"]) == {"postgres", "redis", "storage"}
    figures = (await gateway.client.get("/metrics")).text
    assert "filmgate_jobs" in figures
    assert 'filmgate_submissions_total{connection="sandbox",outcome="accepted"}' in figures
    async with httpx2.AsyncClient(base_url=gateway.url, verify=False) as nobody:
        assert (await nobody.get("/metrics")).status_code == 401
        assert (await nobody.get("/healthz")).status_code == 200
