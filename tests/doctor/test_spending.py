"""Money that may have been spent in vain is named; and what the database forbids is looked for all the same."""

from collections.abc import Sequence

import pytest

from app.ids import Prefix, encode
from app.infra.queue import Lane
from app.jobs import failures
from app.jobs.db import submissions
from app.jobs.engine.render_results import Verdicts
from app.jobs.records import Claim
from app.providers.base import Accepted, Unknown
from app.settings import Settings
from tests.doctor.broken_gateway import RUNWAY, Patient, Unguarded
from tests.support.database import empty
from tests.support.gateway import running_gateway
from tests.support.lane_driver import Hands


async def end_in_doubt(patient: Patient) -> str:
    """A job that failed because nobody can tell whether it was bought; its public id."""
    purchase = await patient.intend(**RUNWAY)
    await patient.outcomes.unknown(purchase.job_id, purchase.submission_id, Unknown("no reply"))
    await patient.outcomes.unprovable(purchase.job_id, purchase.submission_id, "it cannot be asked")
    return encode(Prefix.JOB, purchase.job_id)


async def test_what_may_have_been_charged_is_summed_up_and_still_watched(patient: Patient) -> None:
    jobs = [await end_in_doubt(patient) for _ in range(2)]
    await patient.execute("UPDATE submissions SET estimated_cost = 0.24")
    found = await patient.examine()
    assert list(found) == ["charge_possible", "purchase_watched"]
    assert found["charge_possible"].severity == "problem"
    assert "at an estimated 0.48 USD: " in found["charge_possible"].message
    assert found["charge_possible"].facts["jobs"] == jobs
    assert "the provider's bill" in found["charge_possible"].advice
    assert found["purchase_watched"].severity == "notice"
    assert found["purchase_watched"].message.startswith("2 jobs have ended with a purchase that is still watched: ")


async def test_a_purchase_without_a_price_is_not_taken_for_a_free_one(patient: Patient) -> None:
    await end_in_doubt(patient)
    await patient.execute("UPDATE submissions SET estimated_cost = NULL")
    found = (await patient.examine())["charge_possible"]
    assert "at an estimated 0.00 USD and 1 without a price: " in found.message


async def test_what_turned_out_to_cost_nothing_is_no_finding(patient: Patient) -> None:
    await end_in_doubt(patient)
    await patient.execute("UPDATE jobs SET charge_certainty = 'none'")
    assert list(await patient.examine()) == ["purchase_watched"]


async def test_a_second_purchase_of_a_job_is_declared(patient: Patient) -> None:
    first = await patient.intend(**RUNWAY)
    await patient.outcomes.nothing_bought(first.job_id, first.submission_id, "", "Trying again.")
    await patient.execute("UPDATE schedule SET ready_at = NULL")
    second = await patient.intend_again()
    await patient.outcomes.accepted(second.job_id, second.submission_id, Accepted("task-2"))
    assert not await patient.examine()
    await patient.outcomes.accepted(first.job_id, first.submission_id, Accepted("task-1"))
    found = await patient.examine()
    assert list(found) == ["job_charged_again"]
    assert found["job_charged_again"].severity == "notice"
    assert found["job_charged_again"].facts["jobs"] == [encode(Prefix.JOB, first.job_id)]
    await patient.execute("UPDATE submissions SET cost = 0 WHERE remote_id = 'task-1'")
    assert not await patient.examine()


async def test_a_film_that_came_late_is_a_notice(patient: Patient) -> None:
    job_id = await patient.order()
    hands = Hands(patient.resources)
    await hands.work(Lane.SUBMIT)
    async with patient.resources.database.read() as connection:
        submission = await submissions.live_of(connection, job_id)
    assert submission is not None
    claim = Claim(job_id, await hands.value("SELECT fence FROM schedule"))
    await Verdicts(patient.resources.bench).given_up(claim, submission, failures.TIMEOUT)
    while await hands.value("SELECT count(*) FROM watches"):
        await hands.execute("UPDATE watches SET next_at = clock_timestamp()")
        await hands.work(Lane.WATCH)
    found = await patient.examine()
    assert list(found) == ["film_late"]
    assert found["film_late"].severity == "notice"
    job = encode(Prefix.JOB, job_id)
    assert found["film_late"].message == f"1 film of the last 7 days came out after the job had ended: {job}."


SUBMISSION = (
    "INSERT INTO submissions (id, job_id, account_id, number, connection, model, upstream_model, state, body_hash, "
    "send_deadline, charge_certainty) SELECT gen_random_uuid(), id, account_id, {0}, 'sandbox', model, 'film', "
    "'accepted', '', now(), 'none' FROM jobs"
)
SUCCEED = "UPDATE jobs SET state = 'succeeded', finished_at = now()"
FILM = (
    "INSERT INTO assets (id, account_id, job_id, kind, object_key, content_type, size_bytes, sha256, width, height, "
    "codec, expires_at) SELECT gen_random_uuid(), account_id, id, 'film', 'film.mp4', 'video/mp4', 1, '', 1, 1, "
    "'h264', now() FROM jobs"
)
RUN = "UPDATE jobs SET state = 'running'"
POLL = "UPDATE schedule SET lane = 'poll', queue = NULL"


@pytest.mark.parametrize(
    ("name", "mistakes"),
    [
        ("two_live_purchases", [RUN, POLL, SUBMISSION.format(1), SUBMISSION.format(2)]),
        ("live_job_unscheduled", ["DELETE FROM schedule"]),
        ("ended_job_scheduled", [SUCCEED, FILM]),
        ("running_job_without_purchase", [RUN, POLL]),
        ("live_purchase_of_no_running_job", [SUBMISSION.format(1)]),
        ("succeeded_job_without_film", [SUCCEED, "DELETE FROM schedule"]),
    ],
)
async def test_what_must_never_be_is_looked_for(
    unguarded_database: Unguarded, settings: Settings, sandbox_url: str, name: str, mistakes: Sequence[str]
) -> None:
    database = settings.database.model_validate({"url": unguarded_database.url})
    await empty(unguarded_database.database)
    async with running_gateway(settings.model_copy(update={"database": database}), sandbox_url, workers=0) as gateway:
        patient = Patient(gateway)
        job_id = await patient.order()
        await unguarded_database.execute(mistakes)
        found = dict(await patient.examine())
    # The index that forbids two live purchases is gone from this database, and that is said too.
    assert "uq_submissions_live" in found.pop("database_not_migrated").message
    assert list(found) == [name]
    assert found[name].severity == "problem"
    assert found[name].facts["jobs"] == [encode(Prefix.JOB, job_id)]
    assert found[name].message.startswith("This must never be: 1 job ")


async def test_a_job_that_takes_its_whole_way_breaks_no_invariant(patient: Patient) -> None:
    await patient.order()
    hands = Hands(patient.resources)
    while not await hands.value("SELECT finished_at IS NOT NULL FROM jobs"):
        assert not await patient.examine()
        await hands.work()
    assert not await patient.examine()
