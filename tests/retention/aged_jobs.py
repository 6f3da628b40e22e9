"""Jobs with all that belongs to them, of any age."""

from collections import Counter
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app.doctor.checks import CHECKS
from app.doctor.findings import Finding
from app.jobs.api.requests import JobRequest
from app.jobs.api.service import Created
from app.jobs.records import Job
from app.retention import Retention
from app.settings import RetentionSettings
from tests.support.engine_fixture import EngineDriver
from tests.support.lane_driver import inner
from tests.support.scripted_provider import Phase

#: What belongs to a job, and how it is found by the job's id.
BELONGINGS = {
    "jobs": "id",
    "submissions": "job_id",
    "events": "subject_id",
    "webhook_deliveries": "subject_id",
    "assets": "job_id",
    "idempotency_keys": "job_id",
    "watches": "job_id",
    "schedule": "job_id",
}
DAY_MILLISECONDS = 86_400_000

# Ids are dates too: those that are read as such get older, and all that leads to them follows.
_OLDER = """
    (lpad(to_hex(
        ('x' || translate(left({0}::text, 13), '-', ''))::bit(48)::bigint - cast(:days AS bigint) * 86400000
    ), 12, '0') || right(translate({0}::text, '-', ''), 20))::uuid
"""
_AGE = "{0} = {0} - make_interval(days => cast(:days AS int))"
_AGING = (
    f"""
    UPDATE webhook_attempts SET delivery_id = {_OLDER.format("delivery_id")}
    WHERE delivery_id IN (SELECT id FROM webhook_deliveries WHERE subject_id = :job)
    """,
    f"UPDATE webhook_deliveries SET id = {_OLDER.format('id')}, subject_id = :older WHERE subject_id = :job",
    f"UPDATE events SET subject_id = :older, {_AGE.format('created_at')} WHERE subject_id = :job",
    f"UPDATE assets SET job_id = :older, {_AGE.format('expires_at')} WHERE job_id = :job",
    f"UPDATE idempotency_keys SET job_id = :older, {_AGE.format('created_at')} WHERE job_id = :job",
    "UPDATE submissions SET job_id = :older WHERE job_id = :job",
    "UPDATE watches SET job_id = :older WHERE job_id = :job",
    "UPDATE schedule SET job_id = :older WHERE job_id = :job",
    f"UPDATE jobs SET id = :older, {_AGE.format('created_at')}, {_AGE.format('finished_at')} WHERE id = :job",
)


class Attic:
    """A workshop whose jobs can be made older."""

    def __init__(self, engine: EngineDriver) -> None:
        self.engine = engine
        self._keys = 0

    def retention(self, *, batch: int = 1000, idempotency_days: int = 30, **days: int) -> Retention:
        """What a worker has, with settings of its own."""
        settings = self.engine.resources.settings
        jobs = settings.jobs.model_copy(update={"idempotency_days": idempotency_days})
        changed = settings.model_copy(update={"jobs": jobs, "retention": RetentionSettings(**days)})
        return Retention(self.engine.resources.database, changed, batch)

    async def ordered(self, *, webhook: bool = True) -> UUID:
        """A live job with a key, and with a purchase under way."""
        self._keys += 1
        created = await self.order_again(webhook=webhook)
        await self.engine.settle()
        return inner(created.job.id)

    async def order_again(self, *, webhook: bool = True) -> Created:
        """The latest order, under the same key."""
        fields: dict[str, Any] = {"webhook_url": "https://shop.example/videos"} if webhook else {}
        new = JobRequest.model_validate({"prompt": "a video", "model": "books/reference", **fields})
        return await self.engine.resources.jobs.create(self.engine.account_id, new, f"order-{self._keys}")

    async def finished(self, *, delivered: bool = True) -> UUID:
        """A job that has its video, and whose webhook has arrived."""
        job_id = await self.ordered()
        for books in self.engine.books.values():
            for made in books.records.values():
                made.phase = Phase.FINISHED
        await self.engine.pass_time(60)
        await self.engine.settle()
        if delivered:
            await self.deliver()
        return job_id

    async def deliver(self) -> None:
        """Let every webhook that is owed arrive."""
        await self.engine.execute(
            """
            WITH arrived AS (
                UPDATE webhook_deliveries SET state = 'delivered', attempts = 1, ended_at = clock_timestamp()
                WHERE state = 'pending' RETURNING id
            )
            INSERT INTO webhook_attempts (delivery_id, number, started_at, duration_ms, status_code)
            SELECT id, 1, clock_timestamp(), 20, 200 FROM arrived
            """
        )

    async def age(self, job_id: UUID, days: int) -> UUID:
        """Make a job and all that belongs to it so many days older; its id from now on."""
        older = UUID(int=job_id.int - (days * DAY_MILLISECONDS << 80))
        fields = {"job": job_id, "older": older, "days": days}
        async with self.engine.resources.database.begin() as conn:
            # Neither triggers nor references: a date is not a thing that changes.
            await conn.exec_driver_sql("SET LOCAL session_replication_role = replica")
            for statement in _AGING:
                bound = {name: value for name, value in fields.items() if f":{name}" in statement}
                await conn.execute(text(statement), bound)
        return older

    async def delete_files(self) -> None:
        """What the retention of assets does when their time is over."""
        await self.engine.resources.assets.expire(100)

    async def left_of(self, job_id: UUID) -> Counter[str]:
        """How many rows of each kind a job has."""
        counts = [
            (table, await self.engine.value(f"SELECT count(*) FROM {table} WHERE {column} = :id", id=job_id))
            for table, column in BELONGINGS.items()
        ]
        return Counter({table: count for table, count in counts if count})

    async def job(self, job_id: UUID) -> Job:
        return await self.engine.job(job_id)

    async def problems(self) -> list[Finding]:
        """What the doctor finds in the database."""
        findings: list[Finding] = []
        async with self.engine.resources.database.read() as conn:
            for check in CHECKS:
                findings += await check(self.engine.resources, conn)
        return findings
