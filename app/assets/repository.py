"""SQL of assets."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Select, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets.records import Kind, NewAsset, StoredAsset
from app.assets.tables import assets


async def put(
    conn: AsyncConnection, new: Sequence[NewAsset], *, created_at: datetime, expires_at: datetime
) -> list[StoredAsset]:
    """Upsert the rows. A row of the same job and kind keeps its id; everything else is replaced."""
    times = {"created_at": created_at, "expires_at": expires_at, "deleted_at": None}
    statement = insert(assets).values([asdict(asset) | times for asset in new])
    replaced = {column.name: column for column in statement.excluded if column.name != "id"}
    rows = await conn.execute(
        statement.on_conflict_do_update(index_elements=["job_id", "kind"], set_=replaced).returning(*assets.c)
    )
    return [_asset(row) for row in rows.mappings()]


async def get(conn: AsyncConnection, asset_id: UUID) -> StoredAsset | None:
    """One row, of any account."""
    rows = await _read(conn, select(assets).where(assets.c.id == asset_id))
    return rows[0] if rows else None


async def of_jobs(conn: AsyncConnection, job_ids: Collection[UUID]) -> list[StoredAsset]:
    """The rows of the given jobs: the video of each, then its poster."""
    return await _read(
        conn,
        select(assets)
        .where(assets.c.job_id.in_(job_ids))
        .order_by(assets.c.job_id, assets.c.kind == Kind.POSTER.value),
    )


async def expired(conn: AsyncConnection, now: datetime, limit: int) -> list[StoredAsset]:
    """Expired rows whose file is not deleted yet, oldest first."""
    return await _read(
        conn,
        select(assets)
        .where(assets.c.expires_at <= now, assets.c.deleted_at.is_(None))
        .order_by(assets.c.expires_at)
        .limit(limit),
    )


async def mark_deleted(conn: AsyncConnection, asset_id: UUID, now: datetime) -> bool:
    """Record that the file is deleted; False if another process already has."""
    result = await conn.execute(
        update(assets).where(assets.c.id == asset_id, assets.c.deleted_at.is_(None)).values(deleted_at=now)
    )
    return result.rowcount == 1


async def _read(conn: AsyncConnection, query: Select[Any]) -> list[StoredAsset]:
    rows = await conn.execute(query)
    return [_asset(row) for row in rows.mappings()]


def _asset(row: RowMapping) -> StoredAsset:
    return StoredAsset(**{**row, "kind": Kind(row["kind"])})
