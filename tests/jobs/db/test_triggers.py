"""What the database itself refuses, whoever asks."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.ids import new_id
from app.infra.db import Database
from app.jobs.db import repository
from tests.support.job_rows import a_draft

NO_SCHEDULE_ROW = "DELETE FROM schedule WHERE job_id = :job"
SUBMISSION = """
    INSERT INTO submissions (id, job_id, account_id, number, connection, model, upstream_model, state, body_hash,
        send_deadline, charge_certainty, remote_id)
    SELECT :id, id, account_id, :number, :connection, model, model, :state, '', now(), 'none', :remote_id
    FROM jobs WHERE id = :job
"""


async def made(database: Database, account_id: UUID) -> UUID:
    """A job that waits."""
    job_id = new_id()
    async with database.begin() as conn:
        await repository.create(conn, [a_draft(job_id, account_id, "m")])
    return job_id


async def ended(database: Database, account_id: UUID, state: str = "failed") -> UUID:
    job_id = await made(database, account_id)
    end = f"UPDATE jobs SET state = '{state}', finished_at = now() WHERE id = :job"
    await done(database, end, NO_SCHEDULE_ROW, job=job_id)
    return job_id


async def done(database: Database, *statements: str, **fields: Any) -> None:
    """All of it in one transaction."""
    async with database.begin() as conn:
        for statement in statements:
            await conn.execute(text(statement), fields)


async def refused(name: str, database: Database, *statements: str, **fields: Any) -> None:
    with pytest.raises(IntegrityError, match=name):
        await done(database, *statements, **fields)


@pytest.mark.parametrize("state", ["succeeded", "failed", "canceled"])
async def test_an_end_is_final(database: Database, account_id: UUID, state: str) -> None:
    job_id = await ended(database, account_id, state)
    for other in {"queued", "running", "succeeded", "failed", "canceled"} - {state}:
        await refused("has ended", database, f"UPDATE jobs SET state = '{other}' WHERE id = :job", job=job_id)
    again = (
        "INSERT INTO schedule (job_id, account_id, lane, queue, next_at) SELECT id, account_id, 'submit', 'm', now()"
    )
    revived = "UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id = :job"
    await refused("has ended", database, revived, f"{again} FROM jobs WHERE id = :job", job=job_id)
    # Money may still come to light.
    await done(database, "UPDATE jobs SET cost = 1, charge_certainty = 'certain' WHERE id = :job", job=job_id)


async def test_a_live_job_is_on_the_schedule_and_an_ended_one_is_not(database: Database, account_id: UUID) -> None:
    live, gone = await made(database, account_id), await ended(database, account_id)
    await refused("while it is live", database, NO_SCHEDULE_ROW, job=live)
    end = "UPDATE jobs SET state = 'failed', finished_at = now() WHERE id = :job"
    await refused("while it is live", database, end, job=live)
    unscheduled = """
        INSERT INTO jobs (id, account_id, state, model, request, deadline_at)
        SELECT :id, account_id, 'queued', 'm', request, now() FROM jobs WHERE id = :job
    """
    await refused("while it is live", database, unscheduled, id=new_id(), job=live)
    scheduled = """
        INSERT INTO schedule (job_id, account_id, lane, next_at) SELECT id, account_id, 'poll', now()
        FROM jobs WHERE id = :job
    """
    await refused("while it is live", database, scheduled, job=gone)
    # In one transaction the order does not matter, only how it ends.
    await done(database, NO_SCHEDULE_ROW, scheduled, job=live)
    await done(database, NO_SCHEDULE_ROW, end, job=live)


async def test_a_job_has_one_live_submission(database: Database, account_id: UUID) -> None:
    job_id = await made(database, account_id)
    fields: dict[str, Any] = {"job": job_id, "connection": "first", "remote_id": None}
    await done(database, SUBMISSION, **fields, id=new_id(), number=1, state="rejected")
    await done(database, SUBMISSION, **fields, id=new_id(), number=2, state="unknown")
    for number, state in enumerate(("sending", "unknown", "accepted"), start=3):
        await refused("uq_submissions_live", database, SUBMISSION, **fields, id=new_id(), number=number, state=state)
    revived = "UPDATE submissions SET state = 'accepted' WHERE number = 1"
    await refused("uq_submissions_live", database, revived)


async def test_a_remote_id_belongs_to_one_submission_of_a_connection(database: Database, account_id: UUID) -> None:
    fields: dict[str, Any] = {"number": 1, "state": "accepted", "remote_id": "task-1"}
    jobs = [await made(database, account_id) for _ in range(3)]
    await done(database, SUBMISSION, **fields, id=new_id(), job=jobs[0], connection="first")
    twin = {**fields, "id": new_id(), "job": jobs[1]}
    await refused("uq_submissions_remote", database, SUBMISSION, **twin, connection="first")
    await done(database, SUBMISSION, **twin, connection="second")
    await done(database, SUBMISSION, **{**twin, "id": new_id(), "job": jobs[2], "remote_id": None}, connection="first")


async def test_a_job_in_a_line_is_in_the_submit_lane_and_no_other_is(database: Database, account_id: UUID) -> None:
    job_id = await made(database, account_id)
    for wrong in ("queue = NULL", "lane = 'poll'", "lane = 'elsewhere', queue = NULL"):
        await refused("ck_schedule_", database, f"UPDATE schedule SET {wrong} WHERE job_id = :job", job=job_id)
