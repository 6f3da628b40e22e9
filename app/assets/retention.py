"""SQL of retention: rows of deleted files, removed together with their job. See docs/decisions/010."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


async def jobs_with_files(conn: AsyncConnection, job_ids: Collection[UUID]) -> set[UUID]:
    """The given jobs that still have a file that is not deleted."""
    statement = text("SELECT job_id FROM assets WHERE job_id = ANY(cast(:jobs AS uuid[])) AND deleted_at IS NULL")
    return set(await conn.scalars(statement, {"jobs": list(job_ids)}))


async def delete_of_jobs(conn: AsyncConnection, job_ids: Collection[UUID]) -> None:
    """Delete the rows of the given jobs, whose files are already deleted."""
    statement = text("DELETE FROM assets WHERE job_id = ANY(cast(:jobs AS uuid[]))")
    await conn.execute(statement, {"jobs": list(job_ids)})
