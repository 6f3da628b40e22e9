"""Stored videos: whose they are, how long they stay, and how they go."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from app.assets.records import Kind, StoredAsset
from app.assets.service import AssetService
from app.assets.tables import assets as table
from app.errors import Gone, NotFound
from app.ids import Prefix, encode, new_id
from app.infra.db import Database
from app.media.errors import StorageUnavailable
from app.media.storage import Storage
from app.settings import AssetSettings
from tests.assets.conftest import NOON, HeldClock, incoming, keep, service_for
from tests.support.database import add_account
from tests.support.sample_videos import video
from tests.support.stores import read_all


def public(asset: StoredAsset) -> str:
    return encode(Prefix.ASSET, asset.id)


async def deleted_at(database: Database) -> list[object]:
    async with database.read() as conn:
        return list(await conn.scalars(select(table.c.deleted_at)))


async def test_what_is_recorded_is_found(assets: AssetService, stored: list[StoredAsset], account_id: UUID) -> None:
    kept, poster = stored
    assert (kept.kind, poster.kind) == (Kind.VIDEO, Kind.POSTER)
    assert await assets.get(account_id, public(kept)) == kept
    assert await assets.get(account_id, public(poster)) == poster
    assert (kept.created_at, kept.expires_at, kept.deleted_at) == (NOON, NOON + timedelta(days=30), None)


async def test_the_bytes_are_handed_out(assets: AssetService, stored: list[StoredAsset]) -> None:
    whole = assets.storage.read(stored[0].object_key, 0, stored[0].size_bytes)
    assert b"".join([chunk async for chunk in whole]) == video()
    part = assets.storage.read(stored[0].object_key, 5, 10)
    assert b"".join([chunk async for chunk in part]) == video()[5:10]


async def test_a_video_that_is_rolled_back_was_never_recorded(
    database: Database, assets: AssetService, account_id: UUID
) -> None:
    taken = await assets.take_in(incoming(video(), account_id=account_id))
    async with database.engine.connect() as conn, conn.begin() as transaction:
        await assets.record(conn, taken)
        await transaction.rollback()
    with pytest.raises(NotFound):
        await assets.get(account_id, encode(Prefix.ASSET, taken.video.id))


async def test_recording_twice_keeps_the_ids_and_the_last_video(
    database: Database, assets: AssetService, account_id: UUID
) -> None:
    first = await assets.take_in(incoming(video(), account_id=account_id))
    again = await assets.take_in(incoming(video(seconds=1), account_id=account_id, job_id=first.video.job_id))
    async with database.begin() as conn:
        before = await assets.record(conn, first)
    async with database.begin() as conn:
        after = await assets.record(conn, again)

    assert [asset.id for asset in after] == [asset.id for asset in before]
    assert (after[0].seconds, after[0].sha256) == (1, again.video.sha256)
    assert (await assets.get(account_id, public(before[0]))).deviations == [
        {"field": "seconds", "requested": 2, "actual": 1.0}
    ]


async def test_a_foreign_asset_and_a_missing_one_are_the_same(
    database: Database, assets: AssetService, stored: list[StoredAsset], account_id: UUID
) -> None:
    async with database.begin() as conn:
        stranger = await add_account(conn)
    answers = set()
    for account, name in [
        (stranger, public(stored[0])),
        (account_id, encode(Prefix.ASSET, new_id())),
        (account_id, encode(Prefix.JOB, stored[0].id)),
        (account_id, str(stored[0].id)),
        (account_id, "ast_"),
    ]:
        with pytest.raises(NotFound) as caught:
            await assets.get(account, name)
        answers.add(caught.value.message)
    assert len(answers) == 1


async def test_an_asset_is_gone_once_its_retention_is_over(
    assets: AssetService, stored: list[StoredAsset], account_id: UUID, clock: HeldClock
) -> None:
    clock.now += timedelta(days=30) - timedelta(seconds=1)
    await assets.get(account_id, public(stored[0]))
    clock.now += timedelta(seconds=1)
    with pytest.raises(Gone):
        await assets.get(account_id, public(stored[0]))


async def test_the_assets_of_jobs_are_found_by_job(
    database: Database, assets: AssetService, stored: list[StoredAsset], account_id: UUID
) -> None:
    others = await keep(database, assets, account_id)
    async with database.read() as conn:
        found = await assets.of_jobs(conn, [stored[0].job_id, others[0].job_id, new_id()])
    assert found == {stored[0].job_id: stored, others[0].job_id: others}


async def test_a_store_that_works_is_ready(assets: AssetService) -> None:
    assets.prepare()
    await assets.check()


# Retention -----------------------------------------------------------------------------------------------------------


async def test_expired_files_are_deleted_and_others_are_not(
    database: Database, assets: AssetService, account_id: UUID, clock: HeldClock, tmp_path: Path
) -> None:
    await keep(database, assets, account_id)
    clock.now += timedelta(days=1)
    young = await keep(database, assets, account_id)
    clock.now = NOON + timedelta(days=30)

    assert await assets.expire(100) == 2
    assert await assets.expire(100) == 0

    assert {path.parent.name for path in (tmp_path / "store").rglob("*.*")} == {str(young[0].job_id)}
    assert sorted(map(str, await deleted_at(database))) == sorted([str(clock.now)] * 2 + ["None"] * 2)
    await assets.get(account_id, public(young[0]))


async def test_no_more_than_asked_for_is_deleted(
    assets: AssetService, stored: list[StoredAsset], clock: HeldClock
) -> None:
    clock.now += timedelta(days=31)
    assert [await assets.expire(1) for _ in stored] == [1, 1]
    assert await assets.expire(1) == 0


async def test_two_sweeps_at_once_delete_each_file_once(
    database: Database,
    assets: AssetService,
    stored: list[StoredAsset],
    in_directory: AssetSettings,
    clock: HeldClock,
) -> None:
    clock.now += timedelta(days=31)
    other_worker = service_for(database, in_directory, clock)
    counts = await asyncio.gather(*(worker.expire(100) for worker in (assets, other_worker) * 3))
    assert sum(counts) == len(stored)
    assert None not in await deleted_at(database)


async def test_a_file_that_cannot_be_deleted_stays_for_the_next_sweep(
    database: Database, assets: AssetService, stored: list[StoredAsset], clock: HeldClock, tmp_path: Path
) -> None:
    clock.now += timedelta(days=31)
    store = tmp_path / "store"
    in_the_way = store / stored[0].object_key
    content = in_the_way.read_bytes()
    in_the_way.unlink()
    (in_the_way / "something").mkdir(parents=True)

    assert await assets.expire(100) == 1  # the poster
    assert (await deleted_at(database)).count(None) == 1

    (in_the_way / "something").rmdir()
    in_the_way.rmdir()
    in_the_way.write_bytes(content)
    assert await assets.expire(100) == 1
    assert not list(store.rglob("*"))


@pytest.mark.xdist_group("s3")
async def test_a_video_in_a_bucket_comes_and_goes_alike(
    database: Database, account_id: UUID, in_bucket: AssetSettings, clock: HeldClock
) -> None:
    assets, storage = service_for(database, in_bucket, clock), Storage.open(in_bucket)
    kept, _ = await keep(database, assets, account_id)
    assert await read_all(storage, kept.object_key, kept.size_bytes) == video()
    clock.now += timedelta(days=31)
    assert await assets.expire(100) == 2
    with pytest.raises(StorageUnavailable):
        await read_all(storage, kept.object_key, 1)
