"""The audit counts what it says that it counts: no more, no less, and names the oldest."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.ids import earliest
from app.infra.db import Database
from app.jobs.db import audit, repository, submissions
from app.jobs.db.audit import ConnectionLoad, Route
from app.providers.base import Accepted, Unknown
from app.settings import Settings
from tests.doctor.broken_gateway import RUNWAY, BrokenGateway
from tests.support.gateway import running_gateway

VIDEO = Route("sandbox/video", "sandbox")


@pytest.fixture
async def broken(settings: Settings, sandbox_url: str) -> AsyncIterator[BrokenGateway]:
    """A gateway whose steps the test makes."""
    async with running_gateway(settings, sandbox_url, workers=0) as running:
        yield BrokenGateway(running)


async def test_the_oldest_jobs_are_named_first_and_not_all(broken: BrokenGateway, database: Database) -> None:
    jobs = [await broken.order() for _ in range(audit.NAMED + 2)]
    late = jobs[3]
    await broken.execute("UPDATE schedule SET next_at = clock_timestamp() - interval '2 min'")
    statement = "UPDATE schedule SET next_at = clock_timestamp() - interval '1 h' WHERE job_id = :id"
    await broken.execute(statement, id=late)
    async with database.read() as conn:
        (tally,) = await audit.overdue(conn, 60)
        assert await audit.overdue(conn, 3700) == []
    assert (tally.name, tally.count, len(tally.jobs)) == ("submit", len(jobs), audit.NAMED)
    assert tally.jobs[0] == late
    assert 3600 <= tally.oldest < 3700


async def test_only_a_way_that_a_job_wants_can_keep_it_waiting(broken: BrokenGateway, database: Database) -> None:
    job_id = await broken.order()
    await broken.execute("UPDATE jobs SET created_at = created_at - interval '2 min'")
    await broken.execute("UPDATE schedule SET avoid = '{sandbox}'")
    async with database.read() as conn:
        assert await audit.stalled(conn, [VIDEO], 60) is None
        assert await audit.stalled(conn, [Route("sandbox/short", "other")], 60) is None
        waiting = await audit.stalled(conn, [VIDEO, Route("sandbox/video", "other")], 60)
        assert await audit.unserved(conn, [VIDEO, Route("sandbox/video", "other")]) == []
        (unserved,) = await audit.unserved(conn, [])
    assert waiting is not None
    assert waiting.jobs == unserved.jobs == (job_id,)
    assert unserved.name == "sandbox/video"


async def test_what_a_connection_holds_is_told_apart(broken: BrokenGateway, database: Database) -> None:
    sending = await broken.intend()
    accepted = await broken.intend()
    storing = await broken.intend()
    abandoned = await broken.intend(**RUNWAY)
    for purchase in (accepted, storing):
        await broken.outcomes.accepted(purchase.job_id, purchase.submission_id, Accepted(str(purchase.job_id)))
    async with database.begin() as conn:
        await submissions.change(conn, storing.submission_id, results=["video"])
    await broken.outcomes.unknown(abandoned.job_id, abandoned.submission_id, Unknown("no reply"))
    await broken.outcomes.unprovable(abandoned.job_id, abandoned.submission_id, "it cannot be asked")
    assert sending.connection == "sandbox"
    async with database.read() as conn:
        assert await audit.connection_loads(conn) == [
            ConnectionLoad("sandbox", live=3, slots=2, without_remote_id=1, reconciled=0),
            ConnectionLoad("sandbox-runway", live=0, slots=0, without_remote_id=0, reconciled=1),
        ]


async def test_what_was_ordered_before_is_not_counted(broken: BrokenGateway, database: Database) -> None:
    doubtful = await broken.intend(**RUNWAY)
    await broken.outcomes.unknown(doubtful.job_id, doubtful.submission_id, Unknown("no reply"))
    await broken.outcomes.unprovable(doubtful.job_id, doubtful.submission_id, "it cannot be asked")
    twice = await broken.intend(**RUNWAY)
    await broken.outcomes.absent(twice.job_id, twice.submission_id, "", "Trying again.")
    await broken.execute("UPDATE schedule SET ready_at = NULL")
    again = await broken.intend_again()
    for purchase in (again, twice):
        await broken.outcomes.accepted(twice.job_id, purchase.submission_id, Accepted(str(purchase.submission_id)))
    async with database.read() as conn:
        now = await repository.now(conn)
        before, after = earliest(now - timedelta(hours=1)), earliest(now + timedelta(hours=1))
        cost, charged = await audit.possibly_charged(conn, before), await audit.charged_again(conn, before)
        assert cost is not None
        assert charged is not None
        assert (cost.group.jobs, charged.jobs) == ((doubtful.job_id,), (twice.job_id,))
        assert await audit.possibly_charged(conn, after) is None
        assert await audit.charged_again(conn, after) is None
