"""Creates that come at the same time are written down together, and answered one by one."""

import asyncio
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.ids import new_id
from tests.support.gateway import Gateway, running_gateway

ORDER = {"prompt": "a lighthouse", "model": "sandbox/video"}
TAKE_KEY = "INSERT INTO idempotency_keys (account_id, key, body_hash, job_id) SELECT id, :key, '', :job FROM accounts"


async def post(gateway: Gateway, key: str | None = None, **fields: Any) -> httpx2.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await gateway.client.post("/v1/jobs", json={**ORDER, **fields}, headers=headers)


async def post_as_clients_do(gateway: Gateway, key: str | None = None, **fields: Any) -> httpx2.Response:
    """Again after each 503: where the machine has stood still for seconds, many requests at once are too many."""
    while (reply := await post(gateway, key, **fields)).status_code == 503:
        pass
    return reply


async def test_each_of_many_creates_gets_its_own_job(gateway: Gateway) -> None:
    replies = await asyncio.gather(
        *(post_as_clients_do(gateway, metadata={"number": str(number)}) for number in range(40))
    )
    jobs = [reply.json() for reply in replies]
    assert [job["metadata"]["number"] for job in jobs] == [str(number) for number in range(40)]
    assert len({job["id"] for job in jobs}) == 40
    for job in jobs:
        read = await gateway.get(job["id"])
        assert {name: read[name] for name in ("id", "metadata", "created_at", "deadline_at")} == {
            name: job[name] for name in ("id", "metadata", "created_at", "deadline_at")
        }


async def test_a_create_and_the_first_read_tell_the_same(gateway: Gateway) -> None:
    """The answer to a create is made of what was sent to the database; the read of what came back."""
    await gateway.stop_workers()
    fields: dict[str, Any] = {
        "max_cost": "1.50",
        "metadata": {"a": "ü"},
        "priority": "high",
        "fallbacks": ["sandbox/short"],
    }
    created = (await post(gateway, "same", seconds=4, size="1280x720", **fields)).json()
    read = await gateway.get(created["id"])
    only_of_reads = {"queue", "estimated_finish_at"}
    assert {name: value for name, value in created.items() if name not in only_of_reads} == {
        name: value for name, value in read.items() if name not in only_of_reads
    }


async def test_keys_that_come_together_are_each_used_once(gateway: Gateway) -> None:
    asked = [post_as_clients_do(gateway, f"key-{number % 5}") for number in range(30)]
    replies = await asyncio.gather(*asked)
    assert {reply.status_code for reply in replies} == {202}
    by_key: dict[int, set[str]] = {}
    for number, reply in enumerate(replies):
        by_key.setdefault(number % 5, set()).add(reply.json()["id"])
    assert [len(ids) for ids in by_key.values()] == [1] * 5
    assert len(set.union(*by_key.values())) == 5


async def test_a_key_in_the_hands_of_a_frozen_process_delays_no_other_request(gateway: Gateway) -> None:
    async with gateway.resources.database.begin() as frozen:
        await frozen.execute(text(TAKE_KEY), {"key": "held", "job": new_id()})
        held, *others = await asyncio.gather(
            post(gateway, "held"), *(post(gateway, f"free-{number}") for number in range(10))
        )
        await frozen.rollback()
    assert (held.status_code, held.json()["code"]) == (503, "unavailable")
    assert [other.status_code for other in others] == [202] * 10
    assert (await post(gateway, "held")).status_code == 202


@pytest.mark.parametrize("key", ["once", None])
async def test_an_order_that_is_refused_stops_none_of_those_beside_it(gateway: Gateway, key: str | None) -> None:
    good, bad, also_good = await asyncio.gather(post(gateway), post(gateway, key, seconds=86_000), post(gateway))
    assert [good.status_code, bad.status_code, also_good.status_code] == [202, 422, 202]


async def test_what_was_accepted_once_is_returned_again_though_the_rules_have_changed(gateway: Gateway) -> None:
    first = await post(gateway, "yesterday", deadline_seconds=3600)
    stricter = gateway.settings.model_copy(
        update={"jobs": gateway.settings.jobs.model_copy(update={"default_deadline": 60, "max_deadline": 60})}
    )
    async with running_gateway(stricter, str(gateway.sandbox.base_url), workers=0) as later:
        again = await post(later, "yesterday", deadline_seconds=3600)
        other = await post(later, "yesterday", deadline_seconds=3601)
        fresh = await post(later, "today", deadline_seconds=3600)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["idempotency-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert (fresh.status_code, fresh.json()["errors"][0]["field"]) == (422, "deadline_seconds")
