"""What is over goes after its time; what anybody still needs stays, however old it is."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app import failpoints
from app.failpoints import Failpoint
from app.jobs.states import State
from tests.retention.aged_jobs import Attic
from tests.support.settings import gateway_settings


async def test_events_go_after_their_days_and_the_ledger_stays(attic: Attic) -> None:
    job_id = await attic.age(await attic.finished(), 31)
    before = await attic.left_of(job_id)
    assert before["events"] == 5
    await attic.retention(deliveries_days=60, idempotency_days=60).remove()
    after = await attic.left_of(job_id)
    assert before - after == {"events": 5}
    assert (await attic.job(job_id)).state is State.SUCCEEDED


async def test_what_is_younger_stays(attic: Attic) -> None:
    job_id = await attic.age(await attic.finished(), 29)
    before = await attic.left_of(job_id)
    await attic.retention(jobs_days=30).remove()
    assert await attic.left_of(job_id) == before


async def test_events_of_a_live_job_stay_however_old(attic: Attic) -> None:
    job_id = await attic.age(await attic.ordered(), 400)
    before = await attic.left_of(job_id)
    assert before["events"]
    await attic.retention(events_days=1, deliveries_days=1, idempotency_days=500).remove()
    assert await attic.left_of(job_id) == before


async def test_deliveries_that_ended_go_with_their_attempts(attic: Attic) -> None:
    job_id = await attic.age(await attic.finished(), 31)
    await attic.retention(events_days=60, idempotency_days=60).remove()
    assert "webhook_deliveries" not in await attic.left_of(job_id)
    assert await attic.engine.value("SELECT count(*) FROM webhook_attempts") == 0


async def test_a_delivery_that_is_owed_stays_and_keeps_its_job(attic: Attic) -> None:
    job_id = await attic.age(await attic.finished(delivered=False), 400)
    await attic.delete_files()
    await attic.retention(events_days=1, deliveries_days=1, idempotency_days=1, jobs_days=60).remove()
    left = await attic.left_of(job_id)
    assert (left["jobs"], left["webhook_deliveries"]) == (1, 1)
    await attic.deliver()
    await attic.retention(jobs_days=60).remove()
    assert not await attic.left_of(job_id)


async def test_jobs_are_kept_indefinitely_unless_told_otherwise(attic: Attic) -> None:
    job_id = await attic.age(await attic.finished(), 4000)
    await attic.delete_files()
    await attic.retention().remove()
    assert await attic.left_of(job_id) == {"jobs": 1, "submissions": 1, "assets": 2}


async def test_a_job_goes_with_all_that_is_its(attic: Attic) -> None:
    old, young = await attic.finished(), await attic.finished()
    old = await attic.age(old, 366)
    await attic.delete_files()
    kept = await attic.left_of(young)
    await attic.retention(jobs_days=365).remove()
    assert not await attic.left_of(old)
    assert await attic.left_of(young) == kept


async def test_a_job_whose_file_is_still_there_stays(attic: Attic) -> None:
    job_id = await attic.age(await attic.finished(), 366)
    await attic.retention(jobs_days=365).remove()
    assert (await attic.left_of(job_id))["jobs"] == 1
    await attic.delete_files()
    await attic.retention(jobs_days=365).remove()
    assert not await attic.left_of(job_id)


async def test_a_job_that_is_watched_stays(attic: Attic) -> None:
    job_id = await attic.ordered(webhook=False)
    await attic.engine.pass_time(7200)  # past its deadline: given up, and watched on
    await attic.engine.settle()
    assert (await attic.job(job_id)).state is State.FAILED
    job_id = await attic.age(job_id, 366)
    await attic.retention(jobs_days=365).remove()
    left = await attic.left_of(job_id)
    assert (left["jobs"], left["submissions"], left["watches"]) == (1, 1, 1)


async def test_a_live_job_stays_however_old(attic: Attic) -> None:
    job_id = await attic.age(await attic.ordered(), 400)
    before = await attic.left_of(job_id)
    await attic.retention(jobs_days=365, idempotency_days=365).remove()
    assert await attic.left_of(job_id) == before - Counter({"idempotency_keys": 1})


async def test_a_key_that_is_kept_keeps_its_job(attic: Attic) -> None:
    """However it came about: a repeated request finds the job that it made."""
    job_id = await attic.age(await attic.finished(), 366)
    await attic.delete_files()
    await attic.engine.execute("UPDATE idempotency_keys SET created_at = created_at + interval '300 days'")
    await attic.engine.execute("UPDATE jobs SET created_at = created_at + interval '300 days'")
    await attic.retention(jobs_days=365, idempotency_days=365).remove()
    assert (await attic.left_of(job_id))["idempotency_keys"] == 1
    assert (await attic.left_of(job_id))["jobs"] == 1


async def test_a_look_that_finds_nothing_does_not_read_what_keys_still_keep(attic: Attic) -> None:
    """Keys that are kept as long as jobs keep those of one more day: they are not read again each minute."""
    for _ in range(3):
        await attic.age(await attic.finished(), 30)
    await attic.delete_files()
    await attic.engine.execute("UPDATE idempotency_keys SET created_at = created_at + interval '1 hour'")
    with read_by(attic) as statements:
        await attic.retention(jobs_days=30, idempotency_days=30, batch=1).remove()
    assert sum("FROM jobs WHERE id >" in statement for statement in statements) == 1
    assert await attic.engine.value("SELECT count(*) FROM jobs") == 3


@contextmanager
def read_by(attic: Attic) -> Iterator[list[str]]:
    """What is said to the database meanwhile."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        statements.append(statement)

    engine = attic.engine.resources.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_a_key_that_is_forgotten_while_it_is_asked_for_is_free(attic: Attic) -> None:
    """It was taken when the order came, and gone when its job was looked for: the order is a new one."""
    await attic.age(await attic.finished(), 31)

    async def forget(place: Failpoint) -> None:
        if place is Failpoint.CREATE_COMMITTED:
            failpoints.visit(None)
            await attic.retention().remove()

    failpoints.visit(forget)
    try:
        again = await attic.order_again()
    finally:
        failpoints.visit(None)
    assert not again.replayed
    assert await attic.engine.value("SELECT count(*) FROM idempotency_keys") == 1


async def test_everything_goes_however_small_the_batches(attic: Attic) -> None:
    jobs = [await attic.finished() for _ in range(5)]
    jobs = [await attic.age(job_id, 366) for job_id in jobs]
    await attic.delete_files()
    await attic.retention(jobs_days=365, batch=2).remove()
    assert [await attic.left_of(job_id) for job_id in jobs] == [{}] * 5


async def test_workers_that_remove_at_once_remove_everything_once(attic: Attic) -> None:
    jobs = [await attic.age(await attic.finished(), 366) for _ in range(5)]
    await attic.delete_files()
    live = await attic.age(await attic.ordered(), 366)
    await asyncio.gather(*(attic.retention(jobs_days=365, batch=2).remove() for _ in range(4)))
    assert [await attic.left_of(job_id) for job_id in jobs] == [{}] * 5
    assert (await attic.left_of(live))["jobs"] == 1


async def test_the_doctor_finds_nothing_amiss_afterwards(attic: Attic) -> None:
    for days in (10, 31, 366):
        await attic.age(await attic.finished(), days)
    await attic.ordered()
    await attic.delete_files()
    await attic.retention(jobs_days=365).remove()
    assert await attic.problems() == []


@pytest.mark.parametrize(
    ("groups", "longest"),
    [
        ({"retention": {"jobs_days": 30, "events_days": 31}}, "31, which is retention.events_days"),
        ({"retention": {"jobs_days": 30}, "assets": {"retention_days": 365}}, "365, which is assets.retention_days"),
        ({"retention": {"jobs_days": 30}, "jobs": {"idempotency_days": 40}}, "40, which is jobs.idempotency_days"),
    ],
)
def test_a_job_cannot_be_forgotten_before_what_is_its(
    groups: dict[str, dict[str, Any]], longest: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"retention.jobs_days: must be at least {longest}"):
        gateway_settings(
            postgres_url="postgresql://db", redis_url="redis://r", sandbox_url="http://s", directory=tmp_path, **groups
        )
