"""SQL of the event log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.events.tables import events


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append. ``data`` must be serializable as JSON."""

    id: UUID
    account_id: UUID
    subject_id: UUID
    type: str
    version: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of one subject. ``seq`` is its position in the log."""

    seq: int
    id: UUID
    subject_id: UUID
    type: str
    version: int
    data: Mapping[str, Any]
    created_at: datetime


_COLUMNS = (
    events.c.seq,
    events.c.id,
    events.c.subject_id,
    events.c.type,
    events.c.version,
    events.c.data,
    events.c.created_at,
)


_APPEND = insert(events)


async def append(conn: AsyncConnection, event: NewEvent) -> None:
    """Write an event in the caller's transaction, which must hold the subject's row lock."""
    await conn.execute(_APPEND, {name: getattr(event, name) for name in NewEvent.__slots__})


async def after(conn: AsyncConnection, account_id: UUID, subject_id: UUID, seq: int, limit: int = 100) -> list[Event]:
    """The subject's events after ``seq``, oldest first."""
    rows = await conn.execute(
        select(*_COLUMNS)
        .where(events.c.account_id == account_id, events.c.subject_id == subject_id, events.c.seq > seq)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [Event(**row) for row in rows.mappings()]


async def newest(conn: AsyncConnection, subject_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The position in the log of each subject's newest event."""
    rows = await conn.execute(
        select(events.c.subject_id, func.max(events.c.seq))
        .where(events.c.subject_id.in_(subject_ids))
        .group_by(events.c.subject_id)
    )
    return dict(rows.all())
