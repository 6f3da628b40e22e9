"""What a provider said is never lost, however late, odd or broken it was said; and a job always ends."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.ids import Prefix, decode, encode
from app.jobs.db import repository, submissions
from app.jobs.engine.submit_results import SubmitResults
from app.jobs.states import ChargeCertainty, State, SubmissionState
from app.providers.base import Accepted, Rejected, Unknown
from app.providers.errors import Billed, Failure, Fault
from app.settings import Settings
from tests.support.gateway import FINAL, Gateway, running_gateway
from tests.support.http_server import Say
from tests.support.scripted_runway import ORDER, Upstream, running_upstream, served_by


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as running:
        yield running


@pytest.fixture
async def served(settings: Settings, sandbox_url: str, upstream: Upstream) -> AsyncIterator[Gateway]:
    """A gateway whose one provider is scripted by the test."""
    async with running_gateway(served_by(settings, upstream), sandbox_url) as gateway:
        yield gateway


def inner(public_id: str, prefix: Prefix = Prefix.JOB) -> UUID:
    found = decode(prefix, public_id)
    assert found is not None
    return found


async def unknown_purchase(gateway: Gateway, upstream: Upstream) -> tuple[UUID, UUID]:
    """A job whose paid request is under way and stays so, and its submission."""
    upstream.create = None
    job = await gateway.create(**ORDER)
    await gateway.reached(job["id"], "job.submitting")
    (submission,) = await gateway.submissions(job["id"])
    return inner(job["id"]), inner(submission["id"], Prefix.SUBMISSION)


async def execute(gateway: Gateway, statement: str) -> None:
    async with gateway.resources.database.begin() as conn:
        await conn.execute(text(statement))


async def slots_taken(gateway: Gateway) -> int:
    async with gateway.resources.database.read() as conn:
        return await submissions.slots_taken(conn, "sandbox-runway")


async def test_a_late_acceptance_of_a_failed_job_is_counted_and_takes_no_slot(
    served: Gateway, upstream: Upstream
) -> None:
    job_id, submission_id = await unknown_purchase(served, upstream)
    outcomes = SubmitResults(served.resources.engine)
    await outcomes.unknown(job_id, submission_id, Unknown("no reply"))
    await outcomes.unprovable(job_id, submission_id, "it cannot be asked")
    await outcomes.accepted(job_id, submission_id, Accepted("task-9", Decimal("0.24")))
    (job,) = (await served.client.get("/v1/jobs")).json()["data"]
    assert (job["status"], job["error"]["code"]) == ("failed", "upstream_outcome_unknown")
    assert job["cost"]["certainty"] == "certain"
    (submission,) = await served.submissions(job["id"])
    assert (submission["state"], submission["remote_id"]) == ("abandoned", "task-9")
    assert await slots_taken(served) == 0


async def test_an_acceptance_after_a_false_proof_of_absence_is_not_submitted_again(
    served: Gateway, upstream: Upstream
) -> None:
    job_id, submission_id = await unknown_purchase(served, upstream)
    outcomes = SubmitResults(served.resources.engine)
    await outcomes.absent(job_id, submission_id, "", "Trying again.")
    await outcomes.accepted(job_id, submission_id, Accepted("task-1"))
    (job,) = (await served.client.get("/v1/jobs")).json()["data"]
    assert (job["status"], job["phase"]) == ("running", "rendering")
    (submission,) = await served.submissions(job["id"])
    assert submission["state"] == "accepted"
    assert upstream.asked["POST"] == 1


async def test_an_acceptance_after_a_second_submission_is_in_the_ledger(served: Gateway, upstream: Upstream) -> None:
    job_id, submission_id = await unknown_purchase(served, upstream)
    outcomes = SubmitResults(served.resources.engine)
    upstream.create = Say('{"id": "task-2"}')
    await outcomes.absent(job_id, submission_id, "", "Trying again.")
    await execute(served, "UPDATE schedule SET ready_at = NULL")
    (job,) = (await served.client.get("/v1/jobs")).json()["data"]
    await served.reached(job["id"], "job.started")
    await outcomes.accepted(job_id, submission_id, Accepted("task-1"))
    first, second = await served.submissions(job["id"])
    assert (first["state"], first["remote_id"], first["certainty"]) == ("abandoned", "task-1", "certain")
    assert (second["state"], second["remote_id"]) == ("accepted", "task-2")


async def test_a_late_refusal_is_evidence_too(served: Gateway, upstream: Upstream) -> None:
    job_id, submission_id = await unknown_purchase(served, upstream)
    outcomes = SubmitResults(served.resources.engine)
    async with served.resources.database.begin() as conn:
        await conn.execute(text("UPDATE schedule SET fence = fence + 1, next_at = clock_timestamp() + '1 hour'"))
    await outcomes.unknown(job_id, submission_id, Unknown("no reply"))
    await execute(served, "UPDATE schedule SET next_at = clock_timestamp() + interval '1 hour'")
    refusal = Failure(Fault.INPUT, retryable=False, billed=Billed.NO, detail="bad ratio")
    await outcomes.rejected(job_id, submission_id, Rejected(refusal))
    (job,) = (await served.client.get("/v1/jobs")).json()["data"]
    assert (job["error"]["code"], job["cost"]["certainty"]) == ("input_refused", "none")


async def test_the_same_outcome_written_twice_changes_nothing(served: Gateway, upstream: Upstream) -> None:
    job_id, submission_id = await unknown_purchase(served, upstream)
    outcomes = SubmitResults(served.resources.engine)
    for _ in range(2):
        await outcomes.accepted(job_id, submission_id, Accepted("task-1"))
    async with served.resources.database.read() as conn:
        submission = await submissions.get(conn, submission_id)
    assert submission is not None
    assert submission.state is SubmissionState.ACCEPTED


@pytest.mark.parametrize("odd", ["cut emoji \\ud83d", "nul \\u0000"])
async def test_text_that_no_database_can_hold_does_not_lose_a_submission(
    served: Gateway, upstream: Upstream, odd: str
) -> None:
    upstream.create = Say(f'{{"id": "task-1", "note": "{odd}", "huge": 1e999}}')
    job = await served.create(**ORDER)
    await served.reached(job["id"], "job.started")
    upstream.status = Say(f'{{"id": "task-1", "status": "FAILED", "failure": "{odd}", "cost": {{"credits": 1e10}}}}')
    ended = await served.ended(job["id"])
    assert (ended["status"], ended["error"]["fault"]) == ("failed", "provider")


async def test_a_provider_that_hangs_does_not_keep_a_job_past_its_deadline(
    settings: Settings, sandbox_url: str, upstream: Upstream
) -> None:
    hasty = served_by(settings, upstream, timeout=0.6)
    hasty = hasty.model_copy(update={"worker": settings.worker.model_copy(update={"lease": 0.6})})
    async with running_gateway(hasty, sandbox_url) as gateway:
        job = await gateway.create(**ORDER)
        await gateway.reached(job["id"], "job.started")
        upstream.status = upstream.delete = None
        await execute(gateway, "UPDATE jobs SET deadline_at = clock_timestamp()")
        ended = await gateway.ended(job["id"])
    assert (ended["error"]["code"], ended["cost"]["certainty"]) == ("timeout", "certain")


async def test_a_provider_that_asks_for_a_day_does_not_move_the_deadline(served: Gateway, upstream: Upstream) -> None:
    upstream.create = Say('{"error": "slow down"}', 429, {"Retry-After": "86400"})
    job = await served.create(**ORDER, deadline_seconds=10)
    await served.reached(job["id"], "job.queued", saying="upstream account")
    await execute(served, "UPDATE jobs SET deadline_at = clock_timestamp()")
    async with served.resources.database.read() as conn:
        wait = await conn.scalar(text("SELECT extract(epoch FROM next_at - clock_timestamp()) FROM schedule"))
    assert wait <= 10


async def test_a_job_of_a_connection_that_was_removed_says_so_and_ends_at_its_deadline(
    served: Gateway, upstream: Upstream, settings: Settings, sandbox_url: str
) -> None:
    job = await served.create(**ORDER)
    await served.reached(job["id"], "job.started")
    await served.stop_workers()
    others = settings.model_copy(update={"connections": {"sandbox": settings.connections["sandbox"]}})
    await execute(served, "UPDATE schedule SET next_at = clock_timestamp()")
    async with running_gateway(others, sandbox_url) as gateway:
        await gateway.reached(job["id"], "job.waiting", saying="no longer configured")
        await execute(gateway, "UPDATE jobs SET deadline_at = clock_timestamp()")
        ended = job
        while ended["status"] not in FINAL:
            # More than once: a step under way knows the old deadline, and plans its next look for then.
            await execute(gateway, "UPDATE schedule SET next_at = clock_timestamp()")
            ended = await gateway.get(job["id"], wait=5)
    assert (ended["error"]["code"], ended["cost"]["certainty"]) == ("timeout", "certain")
    assert upstream.asked["POST"] == 1


async def test_told_to_stop_a_worker_lets_a_paid_request_end(served: Gateway, upstream: Upstream) -> None:
    await unknown_purchase(served, upstream)
    stopping = asyncio.create_task(served.stop_workers())
    await asyncio.sleep(0)
    upstream.release()
    await stopping
    (job,) = (await served.client.get("/v1/jobs")).json()["data"]
    (submission,) = await served.submissions(job["id"])
    assert submission["state"] != "sending"


async def test_a_canceled_job_says_that_its_cancel_is_confirmed(served: Gateway, upstream: Upstream) -> None:
    upstream.create = Say('{"error": "slow down"}', 429)
    job = await served.create(**ORDER)
    await served.reached(job["id"], "job.queued", saying="upstream account")
    await served.client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = await served.ended(job["id"])
    assert (ended["status"], ended["cancel"]["outcome"]) == ("canceled", "confirmed")


async def test_the_event_stream_of_an_ended_job_ends(gateway: Gateway) -> None:
    job = await gateway.create()
    await gateway.ended(job["id"])
    for last in ("0", "9" * 18):
        headers = {"Last-Event-ID": last}
        reply = await gateway.client.get(f"/v1/jobs/{job['id']}/events", headers=headers)
        assert reply.status_code == 200
        assert ("job.succeeded" in reply.text) == (last == "0")
    beyond = await gateway.client.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "9" * 30})
    assert beyond.status_code == 422


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"a\x00": "b"}},
        {"metadata": {"a": "b\x00"}},
        {"negative_prompt": "a\x00"},
        {"webhook_url": "http://127.0.0.1/\x00"},
    ],
)
async def test_what_no_database_can_hold_is_refused_by_name(gateway: Gateway, fields: dict[str, Any]) -> None:
    reply = await gateway.client.post("/v1/jobs", json={"prompt": "a video", "model": "default", **fields})
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")
    assert reply.json()["errors"][0]["field"].startswith(next(iter(fields)))


@pytest.mark.parametrize("query", ["model=%00", "metadata[a]=%00", "foo=1", "metadata[]=1", "created_after=2026-01-01"])
async def test_a_filter_that_is_none_is_refused(gateway: Gateway, query: str) -> None:
    reply = await gateway.client.get(f"/v1/jobs?{query}")
    assert (reply.status_code, reply.json()["code"]) == (422, "invalid_request")


async def test_a_cancel_that_meets_a_requeue_ends_the_job(served: Gateway, upstream: Upstream) -> None:
    job_id, submission_id = await unknown_purchase(served, upstream)
    engine = served.resources.engine
    async with engine.transitions.begin() as changes:
        conn = changes.conn
        await repository.lock(conn, job_id)
        canceling = asyncio.create_task(served.client.post(f"/v1/jobs/{encode(Prefix.JOB, job_id)}/cancel"))
        async with engine.database.read() as other:
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while not await other.scalar(waiting):  # noqa: ASYNC110  # nobody but the database knows
                await asyncio.sleep(0.01)
        await submissions.end(conn, submission_id, SubmissionState.ABSENT, charge_certainty=ChargeCertainty.NONE)
        await changes.move(job_id, State.QUEUED, from_=(State.SUBMITTING,), fence=None)
    assert (await canceling).json()["status"] == "canceled"
