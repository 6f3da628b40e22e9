"""Rows of ``assets``."""

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
    connection: AsyncConnection, new: Sequence[NewAsset], *, created_at: datetime, expires_at: datetime
) -> list[StoredAsset]:
    """Insert the rows. A row of the same job and kind keeps its id and takes everything else."""
    times = {"created_at": created_at, "expires_at": expires_at, "deleted_at": None}
    statement = insert(assets).values([asdict(asset) | times for asset in new])
    replaced = {column.name: column for column in statement.excluded if column.name != "id"}
    rows = await connection.execute(
        statement.on_conflict_do_update(index_elements=["job_id", "kind"], set_=replaced).returning(*assets.c)
    )
    return [_asset(row) for row in rows.mappings()]


async def get(connection: AsyncConnection, asset_id: UUID) -> StoredAsset | None:
    """One row, whoever owns it."""
    rows = await _read(connection, select(assets).where(assets.c.id == asset_id))
    return rows[0] if rows else None


async def of_jobs(connection: AsyncConnection, job_ids: Collection[UUID]) -> list[StoredAsset]:
    """The rows of these jobs: of each the film, then the poster."""
    return await _read(
        connection, select(assets).where(assets.c.job_id.in_(job_ids)).order_by(assets.c.job_id, assets.c.kind)
    )


async def expired(connection: AsyncConnection, now: datetime, limit: int) -> list[StoredAsset]:
    """Rows whose time is over and whose file was not deleted yet, oldest first."""
    return await _read(
        connection,
        select(assets)
        .where(assets.c.expires_at <= now, assets.c.deleted_at.is_(None))
        .order_by(assets.c.expires_at)
        .limit(limit),
    )


async def mark_deleted(connection: AsyncConnection, asset_id: UUID, now: datetime) -> bool:
    """Note that the file is gone; False when somebody else did."""
    result = await connection.execute(
        update(assets).where(assets.c.id == asset_id, assets.c.deleted_at.is_(None)).values(deleted_at=now)
    )
    return result.rowcount == 1


async def _read(connection: AsyncConnection, query: Select[Any]) -> list[StoredAsset]:
    rows = await connection.execute(query)
    return [_asset(row) for row in rows.mappings()]


def _asset(row: RowMapping) -> StoredAsset:
    return StoredAsset(**{**row, "kind": Kind(row["kind"])})
