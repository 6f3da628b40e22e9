"""Where failover ends: at safety refusals, doubts, deadlines and cancels; and what comes to light late still counts."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from app.ids import Prefix
from app.jobs.engine.submit_results import SubmitResults
from app.providers.base import Accepted
from tests.support.http_server import Say
from tests.support.scripted_runway import BAD_PROMPT, BUSY, DENIED, FAILED_FREE, FORGOTTEN, MAIN, OTHER, RUNNING, Studio
from tests.support.submit_fixtures import Office, asked, inner, shop

FLAGGED = {**FAILED_FREE, "failureCode": "SAFETY.INPUT.TEXT"}
WITHHELD = {**FAILED_FREE, "failureCode": "SAFETY.OUTPUT.VIDEO"}
CHARGED = {**FAILED_FREE, "cost": {"credits": 10}}


@pytest.mark.parametrize("consent", [False, True])
@pytest.mark.parametrize(
    ("answer", "verdict", "code"),
    [
        pytest.param(BAD_PROMPT, FAILED_FREE, "prompt_refused", id="at-once"),
        pytest.param(None, FLAGGED, "prompt_refused", id="by-the-input-check"),
        pytest.param(None, WITHHELD, "output_moderated", id="by-the-output-check"),
    ],
)
async def test_a_safety_refusal_is_shopped_around_only_with_consent(
    office: Office,
    first: Studio,
    second: Studio,
    answer: Say | None,
    verdict: Mapping[str, Any],
    code: str,
    consent: bool,
) -> None:
    first.refusal, first.says = answer, verdict
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER], fallback_on_refusal=consent)
        assert job["fallback_on_refusal"] is consent
        ended = await gateway.ended(job["id"])
    if consent:
        assert (ended["status"], ended["model_used"], asked(second)) == ("succeeded", OTHER, ["other"])
    else:
        assert (ended["status"], ended["error"]["code"], asked(second)) == ("failed", code, [])


@pytest.mark.parametrize(
    ("answer", "says", "code"),
    [
        pytest.param(None, FORGOTTEN, "upstream_lost", id="forgotten"),
        pytest.param(None, {"status": "CANCELLED"}, "canceled_upstream", id="canceled-by-somebody-else"),
        pytest.param(None, {"status": "SUCCEEDED", "output": ["http://127.0.0.1:9/"]}, "asset_unavailable", id="gone"),
        pytest.param(Say("<html>"), RUNNING, "upstream_outcome_unknown", id="reply-lost"),
        pytest.param(None, RUNNING, "timeout", id="our-deadline"),
    ],
)
async def test_what_may_still_be_a_video_is_not_submitted_elsewhere(
    office: Office, first: Studio, second: Studio, answer: Say | None, says: Mapping[str, Any], code: str
) -> None:
    first.refusal, first.says = answer, says
    async with shop(office.changed("assets", fetch_tries=1), lost_after=0.01) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER], max_cost="9")
        if code == "timeout":
            await gateway.reached(job["id"], "job.started")
            await desk.execute("UPDATE jobs SET deadline_at = clock_timestamp()")
        ended = await gateway.ended(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", code)
    assert (len(first.orders), second.orders) == (1, [])


async def test_a_render_that_fails_after_the_deadline_is_not_submitted_again_and_says_why(
    office: Office, first: Studio, second: Studio
) -> None:
    first.says = RUNNING
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER])
        await gateway.reached(job["id"], "job.started")
        (render,) = first.renders
        render.gate.clear()
        await first.until(lambda: render.held > 0)
        await desk.execute("UPDATE jobs SET deadline_at = clock_timestamp()")
        render.says = FAILED_FREE
        render.gate.set()
        ended = await gateway.ended(job["id"])
    assert (ended["status"], ended["error"]["code"], second.orders) == ("failed", "provider_error", [])


async def test_a_lease_extension_for_other_renders_does_not_end_a_job_that_waits_again(
    office: Office, first: Studio
) -> None:
    """One batch of looks: one render failed and its job waits anew, the look at the other one hangs."""
    first.says = RUNNING
    async with shop(office.changed("worker", lease=0.6), second=[OTHER]) as desk:
        gateway = desk.gateway
        await desk.execute("INSERT INTO connections (name, closed_until) VALUES ('second', now() + '1 hour')")
        jobs = [await gateway.create(model=MAIN, fallbacks=[OTHER]) for _ in range(2)]
        await first.until(lambda: len(first.renders) == 2)
        failing, hanging = first.renders
        for render in first.renders:
            render.gate.clear()
        await first.until(lambda: failing.held >= 1 and hanging.held >= 1)
        await desk.execute("UPDATE schedule SET next_at = clock_timestamp(), fence = fence + 1")
        await first.until(lambda: failing.held >= 2 and hanging.held >= 2)
        failing.says = FAILED_FREE
        failing.gate.set()
        queued = await desk.until("SELECT id FROM jobs WHERE state = 'queued'")
        lease = await desk.value("SELECT next_at FROM schedule WHERE lane = 'poll'")
        await desk.until("SELECT next_at FROM schedule WHERE lane = 'poll' AND next_at <> :lease", lease=lease)
        (job,) = [job for job in jobs if inner(job["id"]) == queued]
        due = await desk.value("SELECT next_at FROM schedule WHERE job_id = :job", job=queued)
        assert due == datetime.fromisoformat(job["deadline_at"])
        first.open_gates()


# Cancel and late evidence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [BUSY, DENIED])
async def test_a_job_canceled_while_it_was_submitted_is_not_submitted_elsewhere(
    office: Office, first: Studio, second: Studio, answer: Say
) -> None:
    first.gate.clear()
    first.refusal = answer
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER])
        await first.ordered(1)
        canceling = (await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")).json()
        assert (canceling["cancel"]["outcome"], canceling["model_used"]) == ("requested", MAIN)
        first.gate.set()
        ended = await gateway.ended(job["id"])
        steps = [step["type"] for step in await desk.log(job["id"])]
    assert (ended["status"], ended["cancel"]["outcome"], ended["error"]) == ("canceled", "confirmed", None)
    assert (len(first.orders), second.orders) == (1, [])
    assert steps == ["job.queued", "job.submitting", "job.cancel_requested", "job.queued", "job.canceled"]


async def test_a_job_canceled_while_its_render_failed_is_not_submitted_elsewhere(
    office: Office, first: Studio, second: Studio
) -> None:
    first.says = RUNNING
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER])
        await gateway.reached(job["id"], "job.started")
        (render,) = first.renders
        render.gate.clear()
        await first.until(lambda: render.held > 0)
        await gateway.client.post(f"/v1/jobs/{job['id']}/cancel")
        render.says = FAILED_FREE
        render.gate.set()
        ended = await gateway.ended(job["id"])
    assert (ended["status"], ended["cancel"]["outcome"], second.orders) == ("canceled", "confirmed", [])


async def test_a_submission_that_comes_to_light_late_counts_against_max_cost(
    office: Office, first: Studio, second: Studio
) -> None:
    first.gate.clear()
    first.refusal = Say("", 500)
    second.says = RUNNING
    async with shop(office) as desk:
        gateway = desk.gateway
        job = await gateway.create(model=MAIN, fallbacks=[OTHER], max_cost="0.29")
        await first.ordered(1)
        (submission,) = await gateway.submissions(job["id"])
        job_id, submission_id = inner(job["id"]), inner(submission["id"], Prefix.SUBMISSION)
        outcomes = SubmitResults(gateway.resources.engine)
        await outcomes.absent(job_id, submission_id, "", "Trying again.")
        await gateway.reached(job["id"], "job.started")
        await outcomes.accepted(job_id, submission_id, Accepted("task-9"))
        second.says = CHARGED
        ended = await gateway.ended(job["id"])
        rows = await desk.ledger(job["id"])
        first.gate.set()
    assert rows == [("first", "main", "abandoned"), ("second", "main", "done")]
    assert (ended["status"], ended["cost"]["certainty"]) == ("failed", "certain")
    assert asked(second) == ["main"]
