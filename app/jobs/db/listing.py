"""SQL of lists: an account's jobs, filtered and paged."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ids import earliest
from app.jobs.db.repository import job_of
from app.jobs.db.tables import jobs
from app.jobs.records import Job
from app.jobs.states import FINAL, State

FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)  # below and above every id
CLOCK_TOLERANCE = 3600.0  # seconds: the id comes from a process's clock, created_at from the database's


async def page(
    conn: AsyncConnection,
    account_id: UUID,
    *,
    limit: int,
    before: UUID | None,
    states: Collection[State],
    models: Collection[str],
    metadata: Mapping[str, Sequence[str]],
    created_after: datetime | None,
    created_before: datetime | None,
    parent_id: UUID | None,
) -> list[Job]:
    """An account's jobs, newest first. Ids are UUIDv7, so their order is the order of creation."""
    first, last = FIRST_ID, before or LAST_ID
    conditions = _in_states(states)
    if parent_id is not None:
        conditions.append(jobs.c.parent_id == parent_id)
    if models:
        conditions.append(jobs.c.model.in_(models))
    # In one condition where possible: the index finds the jobs that have all of it.
    if single := {name: values[0] for name, values in metadata.items() if len(values) == 1}:
        conditions.append(jobs.c.metadata.contains(single))
    conditions += [
        or_(*(jobs.c.metadata.contains({name: value}) for value in values))
        for name, values in metadata.items()
        if len(values) > 1
    ]
    if created_after is not None:
        first = max(first, earliest(created_after, -CLOCK_TOLERANCE))
        conditions.append(jobs.c.created_at >= created_after)
    if created_before is not None:
        last = min(last, earliest(created_before, CLOCK_TOLERANCE))
        conditions.append(jobs.c.created_at < created_before)
    # A range of pairs, which only the index on both columns serves: a scan by id would read the jobs of all accounts.
    begin, end = (tuple_(literal(account_id, Uuid), literal(job_id, Uuid)) for job_id in (first, last))
    conditions += [tuple_(jobs.c.account_id, jobs.c.id) >= begin, tuple_(jobs.c.account_id, jobs.c.id) < end]
    statement = select(jobs).where(*conditions).order_by(jobs.c.account_id.desc(), jobs.c.id.desc()).limit(limit)
    return [job_of(row) for row in (await conn.execute(statement)).mappings()]


def _in_states(states: Collection[State]) -> list[Any]:
    """The condition on the state, with the predicate of the partial index that serves it, if there is one."""
    wanted = set(states)
    if not wanted:
        return []
    conditions: list[Any] = [jobs.c.state.in_([state.value for state in states])]
    if wanted.isdisjoint(FINAL):
        conditions.append(jobs.c.finished_at.is_(None))
    if wanted == {State.FAILED}:
        conditions.append(jobs.c.error.is_not(None))
    if wanted == {State.CANCELED}:
        conditions.append(jobs.c.cancel_requested_at.is_not(None))
    return conditions
