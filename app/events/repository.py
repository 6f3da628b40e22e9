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
class Fact:
    """What is to be written: an event without its place in the log. ``data`` is ready for JSON."""

    id: UUID
    account_id: UUID
    subject_id: UUID
    type: str
    version: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One fact about one subject. ``seq`` is its place in the log."""

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


async def append(connection: AsyncConnection, fact: Fact) -> None:
    """Write an event in the caller's transaction, which holds its subject's row lock."""
    await connection.execute(_APPEND, {name: getattr(fact, name) for name in Fact.__slots__})


async def after(
    connection: AsyncConnection, account_id: UUID, subject_id: UUID, seq: int, limit: int = 100
) -> list[Event]:
    """The subject's events behind ``seq``, oldest first."""
    rows = await connection.execute(
        select(*_COLUMNS)
        .where(events.c.account_id == account_id, events.c.subject_id == subject_id, events.c.seq > seq)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [Event(**row) for row in rows.mappings()]


async def newest(connection: AsyncConnection, subject_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The place in the log of each subject's newest event."""
    rows = await connection.execute(
        select(events.c.subject_id, func.max(events.c.seq))
        .where(events.c.subject_id.in_(subject_ids))
        .group_by(events.c.subject_id)
    )
    return dict(rows.all())
