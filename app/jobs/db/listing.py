"""SQL of lists: an account's jobs, by what their owner wants to see."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ids import earliest
from app.jobs.db.repository import job_of
from app.jobs.db.tables import jobs
from app.jobs.records import Job
from app.jobs.states import FINAL, State

FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)  # less and more than every id
CLOCKS_APART = 3600.0  # seconds: an id is made by a clock of ours, a date by the database's


async def page(
    connection: AsyncConnection,
    account_id: UUID,
    *,
    limit: int,
    before: UUID | None,
    states: Collection[State],
    model: str | None,
    metadata: Mapping[str, str],
    created_after: datetime | None,
    created_before: datetime | None,
) -> list[Job]:
    """An account's jobs, newest first. Ids are UUIDv7, so their order is the order of creation."""
    first, last = FIRST_ID, before or LAST_ID
    conditions = _in_states(states)
    if model is not None:
        conditions.append(jobs.c.model == model)
    if metadata:
        conditions.append(jobs.c.metadata.contains(dict(metadata)))
    if created_after is not None:
        first = max(first, earliest(created_after, -CLOCKS_APART))
        conditions.append(jobs.c.created_at >= created_after)
    if created_before is not None:
        last = min(last, earliest(created_before, CLOCKS_APART))
        conditions.append(jobs.c.created_at < created_before)
    # A range of pairs, for which only their index is of use: in the order of ids, the few jobs of an account would be
    # looked for among all there are.
    begin, end = (tuple_(literal(account_id, Uuid), literal(job_id, Uuid)) for job_id in (first, last))
    conditions += [tuple_(jobs.c.account_id, jobs.c.id) >= begin, tuple_(jobs.c.account_id, jobs.c.id) < end]
    statement = select(jobs).where(*conditions).order_by(jobs.c.account_id.desc(), jobs.c.id.desc()).limit(limit)
    return [job_of(row) for row in (await connection.execute(statement)).mappings()]


def _in_states(states: Collection[State]) -> list[Any]:
    """With what a partial index holds in its own words, where there is one for them."""
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
