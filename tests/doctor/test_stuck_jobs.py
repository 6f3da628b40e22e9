"""Stuck jobs are found; jobs that are only busy are not reported."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from app.ids import Prefix, encode
from app.jobs.db import connection_health
from app.jobs.db.reconciliations import add
from app.providers.base import Accepted, Unknown
from app.settings import Settings
from tests.doctor.broken_gateway import RUNWAY, BrokenGateway, examined
from tests.support.gateway import Gateway, running_gateway
from tests.support.lane_driver import LaneDriver

WAITED = "UPDATE jobs SET created_at = created_at - interval '5 min'"


def with_connection(settings: Settings, **fields: Any) -> Settings:
    """The same, with one connection changed."""
    changed = settings.connections["sandbox"].model_copy(update=fields)
    return settings.model_copy(update={"connections": {**settings.connections, "sandbox": changed}})


def without(settings: Settings, name: str) -> Settings:
    kept = {other: connection for other, connection in settings.connections.items() if other != name}
    return settings.model_copy(update={"connections": kept})


async def test_a_gateway_that_works_has_nothing_to_be_found(settings: Settings, sandbox_url: str) -> None:
    async with running_gateway(settings, sandbox_url) as gateway:
        jobs = [await gateway.create(webhook_url="http://127.0.0.1:9/") for _ in range(2)]
        rendering = await gateway.create("[never]")
        await asyncio.gather(*(gateway.ended(job["id"]) for job in jobs))
        await gateway.reached(rendering["id"], "job.started")
        assert not await BrokenGateway(gateway).examine()


async def test_jobs_that_no_worker_claims_are_counted_by_lane(broken: BrokenGateway) -> None:
    purchases = [await broken.intend(prompt=f"video {number}") for number in range(7)]
    for purchase in purchases:
        await broken.outcomes.accepted(purchase.job_id, purchase.submission_id, Accepted(f"task-{purchase.job_id}"))
    await broken.execute("UPDATE schedule SET next_at = clock_timestamp() - interval '30 s'")
    assert not await broken.examine()
    await broken.execute("UPDATE schedule SET next_at = clock_timestamp() - interval '5 min'")
    found = (await broken.examine())["job_overdue"]
    assert found.severity == "problem"
    assert found.message.startswith("The poll lane has 7 jobs overdue, the oldest by 5 min: job_")
    assert found.message.endswith(" and 2 more.")
    assert (found.facts["lane"], found.facts["count"]) == ("poll", 7)
    assert set(found.facts["jobs"]) < {encode(Prefix.JOB, purchase.job_id) for purchase in purchases}
    assert "filmgate worker" in found.advice


async def test_a_job_past_its_deadline_is_overdue_in_its_line(broken: BrokenGateway) -> None:
    await broken.order()
    await broken.execute("UPDATE schedule SET next_at = clock_timestamp() - interval '2 min'")
    found = await broken.examine()
    assert list(found) == ["job_overdue"]
    assert found["job_overdue"].facts["lane"] == "submit"


async def test_a_reconciliation_that_no_worker_claims_is_overdue(broken: BrokenGateway) -> None:
    purchase = await broken.intend(**RUNWAY)
    await broken.outcomes.unknown(purchase.job_id, purchase.submission_id, Unknown("no reply"))
    await broken.outcomes.unprovable(purchase.job_id, purchase.submission_id, "it cannot be asked")
    await broken.execute("UPDATE watches SET next_at = clock_timestamp() - interval '2 min'")
    assert (await broken.examine())["job_overdue"].facts["lane"] == "watch"


async def test_jobs_that_could_start_and_do_not_are_found(broken: BrokenGateway) -> None:
    await broken.order()
    assert not await broken.examine()
    await broken.execute(WAITED)
    found = await broken.examine()
    assert list(found) == ["job_kept_waiting"]
    assert found["job_kept_waiting"].message.startswith("The submit lane has 1 job waiting although a connection has")
    assert found["job_kept_waiting"].facts["oldest_seconds"] >= 300


async def test_a_job_that_is_let_in_meanwhile_was_not_stuck(broken: BrokenGateway) -> None:
    await broken.order()
    await broken.execute(WAITED)
    hands = LaneDriver(broken.resources)
    found, _ = await asyncio.gather(broken.examine(), hands.settle())
    assert "job_kept_waiting" not in found


@pytest.mark.parametrize("limit", [{"max_concurrent": 1}, {"requests_per_minute": 1}])
async def test_jobs_that_wait_for_room_are_not_stuck(
    settings: Settings, sandbox_url: str, limit: Mapping[str, int]
) -> None:
    async with running_gateway(with_connection(settings, **limit), sandbox_url, workers=0) as gateway:
        broken = BrokenGateway(gateway)
        purchase = await broken.intend()
        await broken.outcomes.accepted(purchase.job_id, purchase.submission_id, Accepted("task-1"))
        await broken.order()
        await broken.execute(WAITED)
        assert not await broken.examine()


async def test_a_job_that_has_to_wait_before_its_next_try_is_not_stuck(broken: BrokenGateway) -> None:
    await broken.order()
    await broken.execute(WAITED)
    await broken.execute("UPDATE schedule SET ready_at = clock_timestamp() + interval '1 min'")
    assert not await broken.examine()
    await broken.execute("UPDATE schedule SET ready_at = clock_timestamp() - interval '30 s'")
    assert not await broken.examine()
    await broken.execute("UPDATE schedule SET ready_at = clock_timestamp() - interval '90 s'")
    assert list(await broken.examine()) == ["job_kept_waiting"]


async def test_a_line_that_no_connection_serves_is_found(broken: BrokenGateway, settings: Settings) -> None:
    job = encode(Prefix.JOB, await broken.order())
    await broken.execute(WAITED)
    found = await examined(without(settings, "sandbox"))
    assert list(found) == ["line_unserved"]
    assert found["line_unserved"].message == (
        f"The line of sandbox/video has 1 job that no connection serves, the oldest for 5 min: {job}."
    )


async def test_a_job_that_all_its_connections_have_turned_away_is_served_by_none(broken: BrokenGateway) -> None:
    await broken.order()
    await broken.execute("UPDATE schedule SET avoid = '{sandbox}'")
    assert list(await broken.examine()) == ["line_unserved"]


async def test_submissions_on_a_connection_that_was_removed_are_found(
    broken: BrokenGateway, settings: Settings
) -> None:
    purchase = await broken.intend()
    await broken.outcomes.accepted(purchase.job_id, purchase.submission_id, Accepted("task-1"))
    found = await examined(without(settings, "sandbox"))
    assert list(found) == ["connection_removed"]
    assert "Connection sandbox is no longer configured, but has 1 live submission and 0 being reconciled." in str(found)
    async with broken.resources.database.begin() as conn:
        await add(conn, purchase.submission_id, purchase.job_id, next_in=60, last=60)
    await broken.execute("UPDATE submissions SET state = 'abandoned'")
    await broken.execute("UPDATE jobs SET state = 'queued'")
    await broken.execute("UPDATE schedule SET lane = 'submit', queue = 'sandbox/short'")
    facts = (await examined(without(settings, "sandbox")))["connection_removed"].facts
    assert (facts["live"], facts["watched"]) == (0, 1)


async def test_a_connection_that_fails_is_first_a_notice_then_a_problem(broken: BrokenGateway) -> None:
    breaker = {"known": 0, "break_after": 5, "pause": 3000, "longest": 3000}

    async def fail() -> None:
        async with broken.resources.database.begin() as conn:
            await connection_health.lock(conn, "sandbox")
            trouble = "The key\nwas refused " + "x" * 500
            await connection_health.record_failure(conn, "sandbox", trouble, **breaker)

    await fail()
    found = await broken.examine()
    assert list(found) == ["connection_troubled"]
    assert found["connection_troubled"].message.startswith("Connection sandbox failed 1 time in a row: The key was")
    assert found["connection_troubled"].severity == "notice"
    for _ in range(4):
        await fail()
    found = await broken.examine()
    assert list(found) == ["connection_closed"]
    assert "failed 5 times in a row and accepts no jobs for another 50 min: The key was refused xx" in str(found)
    assert len(found["connection_closed"].message) < 300
    assert found["connection_closed"].severity == "problem"


async def test_a_closed_connection_delays_no_job_for_no_reason(broken: BrokenGateway) -> None:
    await broken.order()
    await broken.execute(WAITED)
    async with broken.resources.database.begin() as conn:
        await connection_health.lock(conn, "sandbox")
        await connection_health.close(conn, "sandbox", 300, "slow down")
    found = await broken.examine()
    assert list(found) == ["connection_paused"]
    assert found["connection_paused"].message == (
        "Connection sandbox asked for a pause and accepts no jobs for another 5 min: slow down."
    )


async def test_a_submission_in_doubt_is_a_notice_until_it_should_be_known(
    broken: BrokenGateway, gateway: Gateway
) -> None:
    purchase = await broken.intend()
    await broken.outcomes.unknown(purchase.job_id, purchase.submission_id, Unknown("no reply"))
    found = await broken.examine()
    assert list(found) == ["submission_in_doubt"]
    assert found["submission_in_doubt"].severity == "notice"
    wait = gateway.settings.jobs.unknown_wait + gateway.settings.jobs.submit_timeout + 61
    await broken.execute("UPDATE submissions SET created_at = created_at - make_interval(secs => :wait)", wait=wait)
    (found_late,) = (await broken.examine()).values()
    assert (found_late.code, found_late.severity) == ("submission_in_doubt", "problem")
    assert found_late.facts["jobs"] == [encode(Prefix.JOB, purchase.job_id)]
