"""Possibly wasted charges are named, and what the database forbids is checked all the same."""

from collections.abc import Sequence

import pytest

from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs import errors
from app.jobs.db import submissions
from app.jobs.engine.render_results import RenderResults
from app.jobs.records import Claim
from app.providers.base import Accepted, Unknown
from app.settings import Settings
from tests.doctor.broken_gateway import RUNWAY, BrokenGateway, Unguarded
from tests.support.database import empty
from tests.support.gateway import running_gateway
from tests.support.lane_driver import LaneDriver


async def end_in_doubt(broken: BrokenGateway) -> str:
    """A job that failed with `upstream_outcome_unknown`; its public id."""
    purchase = await broken.intend(**RUNWAY)
    await broken.outcomes.unknown(purchase.job_id, purchase.submission_id, Unknown("no reply"))
    await broken.outcomes.unprovable(purchase.job_id, purchase.submission_id, "it cannot be asked")
    return encode(Prefix.JOB, purchase.job_id)


async def test_what_may_have_been_charged_is_summed_up_and_still_watched(broken: BrokenGateway) -> None:
    jobs = [await end_in_doubt(broken) for _ in range(2)]
    await broken.execute("UPDATE submissions SET estimated_cost = 0.24")
    found = await broken.examine()
    assert list(found) == ["charge_possible", "submission_unreconciled"]
    assert found["charge_possible"].severity == "problem"
    assert "may have been charged, an estimated 0.48 USD: " in found["charge_possible"].message
    assert found["charge_possible"].facts["jobs"] == jobs
    assert "the provider's bill" in found["charge_possible"].advice
    assert found["submission_unreconciled"].severity == "notice"
    assert found["submission_unreconciled"].message.startswith(
        "2 jobs have ended with a submission that is still being reconciled: "
    )


async def test_a_submission_without_a_price_is_not_taken_for_a_free_one(broken: BrokenGateway) -> None:
    await end_in_doubt(broken)
    await broken.execute("UPDATE submissions SET estimated_cost = NULL")
    found = (await broken.examine())["charge_possible"]
    assert "an estimated 0.00 USD, not counting 1 without a price: " in found.message


async def test_what_turned_out_to_cost_nothing_is_no_finding(broken: BrokenGateway) -> None:
    await end_in_doubt(broken)
    await broken.execute("UPDATE jobs SET charge_certainty = 'none'")
    assert list(await broken.examine()) == ["submission_unreconciled"]


async def test_a_second_submission_of_a_job_is_declared(broken: BrokenGateway) -> None:
    first = await broken.intend(**RUNWAY)
    await broken.outcomes.absent(first.job_id, first.submission_id, "", "Trying again.")
    await broken.execute("UPDATE schedule SET ready_at = NULL")
    second = await broken.intend_again()
    await broken.outcomes.accepted(second.job_id, second.submission_id, Accepted("task-2"))
    assert not await broken.examine()
    await broken.outcomes.accepted(first.job_id, first.submission_id, Accepted("task-1"))
    found = await broken.examine()
    assert list(found) == ["job_charged_again"]
    assert found["job_charged_again"].severity == "notice"
    assert found["job_charged_again"].facts["jobs"] == [encode(Prefix.JOB, first.job_id)]
    await broken.execute("UPDATE submissions SET cost = 0 WHERE remote_id = 'task-1'")
    assert not await broken.examine()


async def test_a_video_that_came_late_is_a_notice(broken: BrokenGateway) -> None:
    job_id = await broken.order()
    hands = LaneDriver(broken.resources)
    await hands.work(Lane.SUBMIT)
    async with broken.resources.database.read() as conn:
        submission = await submissions.live_of(conn, job_id)
    assert submission is not None
    claim = Claim(job_id, await hands.value("SELECT fence FROM schedule"))
    await RenderResults(broken.resources.engine).abandoned(claim, submission, errors.TIMEOUT)
    while await hands.value("SELECT count(*) FROM watches"):
        await hands.execute("UPDATE watches SET next_at = clock_timestamp()")
        await hands.work(Lane.RECONCILE)
    found = await broken.examine()
    assert list(found) == ["video_late"]
    assert found["video_late"].severity == "notice"
    job = encode(Prefix.JOB, job_id)
    assert found["video_late"].message == f"1 video of the last 7 days arrived after the job had ended: {job}."


SUBMISSION = (
    "INSERT INTO submissions (id, job_id, account_id, number, connection, model, upstream_model, state, body_hash, "
    "send_deadline, charge_certainty) SELECT gen_random_uuid(), id, account_id, {0}, 'sandbox', model, 'video', "
    "'accepted', '', now(), 'none' FROM jobs"
)
SUCCEED = "UPDATE jobs SET state = 'succeeded', finished_at = now()"
VIDEO = (
    "INSERT INTO assets (id, account_id, job_id, kind, object_key, content_type, size_bytes, sha256, width, height, "
    "codec, expires_at) SELECT gen_random_uuid(), account_id, id, 'video', 'video.mp4', 'video/mp4', 1, '', 1, 1, "
    "'h264', now() FROM jobs"
)
RUN = "UPDATE jobs SET state = 'running'"
POLL = "UPDATE schedule SET lane = 'poll', queue = NULL"


@pytest.mark.parametrize(
    ("name", "mistakes"),
    [
        ("two_live_submissions", [RUN, POLL, SUBMISSION.format(1), SUBMISSION.format(2)]),
        ("live_job_unscheduled", ["DELETE FROM schedule"]),
        ("ended_job_scheduled", [SUCCEED, VIDEO]),
        ("running_job_without_submission", [RUN, POLL]),
        ("live_submission_of_no_running_job", [SUBMISSION.format(1)]),
        ("succeeded_job_without_video", [SUCCEED, "DELETE FROM schedule"]),
    ],
)
async def test_what_must_never_be_is_looked_for(
    unguarded_database: Unguarded, settings: Settings, sandbox_url: str, name: str, mistakes: Sequence[str]
) -> None:
    database = settings.database.model_validate({"url": unguarded_database.url})
    await empty(unguarded_database.database)
    async with running_gateway(settings.model_copy(update={"database": database}), sandbox_url, workers=0) as gateway:
        broken = BrokenGateway(gateway)
        job_id = await broken.order()
        await unguarded_database.execute(mistakes)
        found = dict(await broken.examine())
    # The index that forbids two live purchases is gone from this database, and that is said too.
    assert "uq_submissions_live" in found.pop("database_not_migrated").message
    assert list(found) == [name]
    assert found[name].severity == "problem"
    assert found[name].facts["jobs"] == [encode(Prefix.JOB, job_id)]
    assert found[name].message.startswith("Invariant violated: 1 job ")


async def test_a_job_that_takes_its_whole_way_breaks_no_invariant(broken: BrokenGateway) -> None:
    await broken.order()
    hands = LaneDriver(broken.resources)
    while not await hands.value("SELECT finished_at IS NOT NULL FROM jobs"):
        assert not await broken.examine()
        await hands.work()
    assert not await broken.examine()
