"""SQL of retention: rows of files that are gone, when their job goes too. See decision 010."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


async def holding(connection: AsyncConnection, job_ids: Collection[UUID]) -> set[UUID]:
    """Those of some jobs that have a file which was not deleted yet."""
    statement = text("SELECT job_id FROM assets WHERE job_id = ANY(cast(:jobs AS uuid[])) AND deleted_at IS NULL")
    return set(await connection.scalars(statement, {"jobs": list(job_ids)}))


async def forget_jobs(connection: AsyncConnection, job_ids: Collection[UUID]) -> None:
    """Remove the rows of some jobs, whose files are gone."""
    statement = text("DELETE FROM assets WHERE job_id = ANY(cast(:jobs AS uuid[]))")
    await connection.execute(statement, {"jobs": list(job_ids)})
