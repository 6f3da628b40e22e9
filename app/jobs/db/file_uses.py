"""SQL of the files that jobs use."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.jobs.db.tables import file_uses

# By pk_file_uses and pk_jobs.
_USED = text(
    """
    SELECT DISTINCT file_id FROM file_uses JOIN jobs ON jobs.id = file_uses.job_id
    WHERE file_id = ANY(cast(:ids AS uuid[])) AND jobs.finished_at IS NULL
    """
)


async def used(conn: AsyncConnection, file_ids: Collection[UUID]) -> set[UUID]:
    """Those of some files that a job uses that has not ended."""
    return set(await conn.scalars(_USED, {"ids": list(file_ids)}))


async def add(conn: AsyncConnection, job_id: UUID, file_ids: Collection[UUID]) -> None:
    """Record that a job uses files; those that are recorded already stay so."""
    if file_ids:
        rows = [{"file_id": file_id, "job_id": job_id} for file_id in sorted(set(file_ids))]
        await conn.execute(insert(file_uses).values(rows).on_conflict_do_nothing())
