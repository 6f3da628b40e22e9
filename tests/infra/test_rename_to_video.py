"""The two migrations that call a video 'video': processes of 0.1 and new ones serve meanwhile, and no row is lost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest
from sqlalchemy import text

from app.assets import repository
from app.assets.records import Kind, NewAsset
from app.database_settings import DatabaseSettings
from app.embedded.servers import Postgres
from app.ids import new_id
from app.infra import migrate
from app.infra.db import Database
from tests.support.database import add_account

BEFORE, BOTH_WORDS = "202611281100", "202611281500"
NAMES = count()
NOW = datetime(2026, 11, 28, tzinfo=UTC)
#: What a process of 0.1 runs to store a video; it reads 'film' and 'poster' only.
OLD_INSERT = """
    INSERT INTO assets (id, account_id, job_id, kind, object_key, content_type, size_bytes, sha256, width, height,
        codec, expires_at)
    VALUES (:id, :account, :job, 'film', 'k', 'video/mp4', :size, '', 1, 1, 'h264', now())
    ON CONFLICT (job_id, kind) DO UPDATE SET size_bytes = excluded.size_bytes, kind = excluded.kind
"""

OLD_ROWS = """
    INSERT INTO assets (id, account_id, job_id, kind, object_key, content_type, size_bytes, sha256, width, height,
        codec, expires_at)
    SELECT gen_random_uuid(), :account, gen_random_uuid(), 'film', 'k', 'video/mp4', 1, '', 1, 1, 'h264', now()
    FROM generate_series(1, :jobs)
"""
#: Several batches of the rewrite.
MANY = 12_000


class Gateway:
    """A database on its way from 0.1, and what old and new processes do in it."""

    def __init__(self, url: str, database: Database, account: UUID) -> None:
        self.url = url
        self.database = database
        self.account = account

    async def store_as_before(self, job: UUID, size: int = 1) -> None:
        async with self.database.begin() as conn:
            values = {"id": new_id(), "account": self.account, "job": job, "size": size}
            await conn.execute(text(OLD_INSERT), values)

    async def store_many_as_before(self, jobs: int) -> None:
        async with self.database.begin() as conn:
            await conn.execute(text(OLD_ROWS), {"account": self.account, "jobs": jobs})

    async def store(self, job: UUID, size: int = 1) -> None:
        asset = NewAsset(
            id=new_id(),
            account_id=self.account,
            job_id=job,
            kind=Kind.VIDEO,
            object_key="k",
            content_type="video/mp4",
            size_bytes=size,
            sha256=b"",
            width=1,
            height=1,
            codec="h264",
        )
        poster = replace(asset, id=new_id(), kind=Kind.POSTER)
        async with self.database.begin() as conn:
            await repository.put(conn, [asset, poster], created_at=NOW, expires_at=NOW + timedelta(days=1))

    async def words(self) -> set[str]:
        async with self.database.read() as conn:
            return set(await conn.scalars(text("SELECT DISTINCT kind FROM assets")))

    async def videos(self, jobs: list[UUID]) -> dict[UUID, int]:
        """As a new process reads them: by job, the size of its only video."""
        async with self.database.read() as conn:
            found = [one for one in await repository.of_jobs(conn, jobs) if one.kind is Kind.VIDEO]
        assert len({one.job_id for one in found}) == len(found)
        return {one.job_id: one.size_bytes for one in found}


@pytest.fixture
async def gateway(postgres: Postgres) -> AsyncIterator[Gateway]:
    url = await postgres.create_database(f"renamed_{next(NAMES)}")
    await migrate.upgrade(url, BEFORE)
    database = Database.open(DatabaseSettings.model_validate({"url": url}), application="tests")
    async with database.begin() as conn:
        account = await add_account(conn)
    yield Gateway(url, database, account)
    await database.close()


async def test_after_the_first_step_old_and_new_processes_read_what_either_stores(gateway: Gateway) -> None:
    earlier, old, new = new_id(), new_id(), new_id()
    await gateway.store_as_before(earlier)
    await migrate.upgrade(gateway.url, BOTH_WORDS)
    await gateway.store_as_before(old)
    await gateway.store(new)
    # What a process of 0.1 cannot read would be a video lost to its callers.
    assert await gateway.words() == {"film", "poster"}
    assert await gateway.videos([earlier, old, new]) == {earlier: 1, old: 1, new: 1}
    await gateway.store(old, size=2)
    await gateway.store_as_before(new, size=3)
    assert await gateway.videos([old, new]) == {old: 2, new: 3}


async def test_second_step_rewrites_every_row_while_both_kinds_of_processes_store(
    gateway: Gateway,
) -> None:
    await migrate.upgrade(gateway.url, BOTH_WORDS)
    jobs = [new_id() for _ in range(300)]
    for job in jobs:
        await gateway.store_as_before(job)
    await gateway.store_many_as_before(MANY)
    stored = dict.fromkeys(jobs, 1)
    done = asyncio.Event()

    async def keep_storing(seed: int) -> None:
        store = gateway.store if seed % 2 else gateway.store_as_before
        for number in count(seed, 4):
            # Now and then a job stores its video once more, as after a crash.
            job = jobs[number % len(jobs)] if number % 3 else new_id()
            await store(job, size=number)
            stored[job] = number
            if done.is_set():
                return

    writers = [asyncio.create_task(keep_storing(seed)) for seed in range(2, 6)]
    await migrate.upgrade(gateway.url)
    done.set()
    await asyncio.gather(*writers)
    assert await gateway.words() == {"video", "poster"}
    found = await gateway.videos(list(stored))
    assert found.keys() == stored.keys()
    await gateway.store_as_before(jobs[0], size=9)
    assert await gateway.videos(jobs[:1]) == {jobs[0]: 9}
    assert await gateway.words() == {"video", "poster"}
    assert await migrate.check(gateway.url) == []
