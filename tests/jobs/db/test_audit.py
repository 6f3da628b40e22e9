"""The audit counts what it says that it counts: no more, no less, and names the oldest."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.ids import earliest
from app.infra.db import Database
from app.jobs.db import audit, repository, submissions
from app.jobs.db.audit import Holding, Way
from app.providers.base import Accepted, Unknown
from app.settings import Settings
from tests.doctor.broken_gateway import RUNWAY, Patient
from tests.support.gateway import running_gateway

FILM = Way("sandbox/film", "sandbox")


@pytest.fixture
async def patient(settings: Settings, sandbox_url: str) -> AsyncIterator[Patient]:
    """A gateway whose steps the test makes."""
    async with running_gateway(settings, sandbox_url, workers=0) as running:
        yield Patient(running)


async def test_the_oldest_jobs_are_named_first_and_not_all(patient: Patient, database: Database) -> None:
    jobs = [await patient.order() for _ in range(audit.NAMED + 2)]
    late = jobs[3]
    await patient.execute("UPDATE schedule SET next_at = clock_timestamp() - interval '2 min'")
    statement = "UPDATE schedule SET next_at = clock_timestamp() - interval '1 h' WHERE job_id = :id"
    await patient.execute(statement, id=late)
    async with database.read() as connection:
        (tally,) = await audit.overdue(connection, 60)
        assert await audit.overdue(connection, 3700) == []
    assert (tally.name, tally.count, len(tally.jobs)) == ("submit", len(jobs), audit.NAMED)
    assert tally.jobs[0] == late
    assert 3600 <= tally.oldest < 3700


async def test_only_a_way_that_a_job_wants_can_keep_it_waiting(patient: Patient, database: Database) -> None:
    job_id = await patient.order()
    await patient.execute("UPDATE jobs SET created_at = created_at - interval '2 min'")
    await patient.execute("UPDATE schedule SET avoid = '{sandbox}'")
    async with database.read() as connection:
        assert await audit.kept_waiting(connection, [FILM], 60) is None
        assert await audit.kept_waiting(connection, [Way("sandbox/short", "other")], 60) is None
        waiting = await audit.kept_waiting(connection, [FILM, Way("sandbox/film", "other")], 60)
        assert await audit.unserved(connection, [FILM, Way("sandbox/film", "other")]) == []
        (unserved,) = await audit.unserved(connection, [])
    assert waiting is not None
    assert waiting.jobs == unserved.jobs == (job_id,)
    assert unserved.name == "sandbox/film"


async def test_what_a_connection_has_in_hand_is_told_apart(patient: Patient, database: Database) -> None:
    sending = await patient.intend()
    accepted = await patient.intend()
    storing = await patient.intend()
    abandoned = await patient.intend(**RUNWAY)
    for purchase in (accepted, storing):
        await patient.outcomes.accepted(purchase.job_id, purchase.submission_id, Accepted(str(purchase.job_id)))
    async with database.begin() as connection:
        await submissions.change(connection, storing.submission_id, results=["film"])
    await patient.outcomes.unknown(abandoned.job_id, abandoned.submission_id, Unknown("no reply"))
    await patient.outcomes.unprovable(abandoned.job_id, abandoned.submission_id, "it cannot be asked")
    assert sending.connection == "sandbox"
    async with database.read() as connection:
        assert await audit.in_hand(connection) == [
            Holding("sandbox", live=3, slots=2, nameless=1, watched=0),
            Holding("sandbox-runway", live=0, slots=0, nameless=0, watched=1),
        ]


async def test_what_was_ordered_before_is_not_counted(patient: Patient, database: Database) -> None:
    doubtful = await patient.intend(**RUNWAY)
    await patient.outcomes.unknown(doubtful.job_id, doubtful.submission_id, Unknown("no reply"))
    await patient.outcomes.unprovable(doubtful.job_id, doubtful.submission_id, "it cannot be asked")
    twice = await patient.intend(**RUNWAY)
    await patient.outcomes.nothing_bought(twice.job_id, twice.submission_id, "", "Trying again.")
    await patient.execute("UPDATE schedule SET ready_at = NULL")
    again = await patient.intend_again()
    for purchase in (again, twice):
        await patient.outcomes.accepted(twice.job_id, purchase.submission_id, Accepted(str(purchase.submission_id)))
    async with database.read() as connection:
        now = await repository.now(connection)
        before, after = earliest(now - timedelta(hours=1)), earliest(now + timedelta(hours=1))
        cost, charged = await audit.unsettled(connection, before), await audit.charged_again(connection, before)
        assert cost is not None
        assert charged is not None
        assert (cost.tally.jobs, charged.jobs) == ((doubtful.job_id,), (twice.job_id,))
        assert await audit.unsettled(connection, after) is None
        assert await audit.charged_again(connection, after) is None
