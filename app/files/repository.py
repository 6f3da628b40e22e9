"""SQL of files. Every query of a caller carries the account."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    RowMapping,
    Uuid,
    any_,
    cast,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.files.records import NewFile, StoredFile
from app.files.tables import file_totals, files
from app.media.info import FileFormat

#: Those of some files that are in use.
Used = Callable[[AsyncConnection, Collection[UUID]], Awaitable[set[UUID]]]
#: How long an expired file is kept at a time while a job uses it.
LONGER = timedelta(hours=1)
_COLUMNS = [column for column in files.c if column.name != "stored_at"]


async def begin(conn: AsyncConnection, new: NewFile, *, quota: int, expires_at: datetime) -> bool:
    """Reserve the room of a file whose object is not written yet; False if the account's quota does not allow it."""
    await _lock(conn, new.account_id)  # two files that fit alone may not fit together
    used = await conn.scalar(select(file_totals.c.bytes).where(file_totals.c.account_id == new.account_id))
    if int(used or 0) + new.size_bytes > quota:
        return False
    await conn.execute(insert(files).values(**asdict(new), expires_at=expires_at))
    return True


async def finish(conn: AsyncConnection, new: NewFile, *, now: datetime, expires_at: datetime) -> StoredFile | None:
    """Record that the object is written; None if the account has a file with these bytes by now."""
    same = select(files.c.id).where(
        files.c.account_id == new.account_id, files.c.sha256 == new.sha256, files.c.stored_at.is_not(None)
    )
    await _lock(conn, new.account_id)
    return await _one(
        conn,
        update(files)
        .where(files.c.id == new.id, ~same.exists())
        .values(stored_at=now, expires_at=expires_at)
        .returning(*_COLUMNS),
    )


async def renew(
    conn: AsyncConnection, account_id: UUID, sha256: bytes, *, derived: bool, now: datetime, expires_at: datetime
) -> StoredFile | None:
    """The account's file with these bytes, kept until ``expires_at``; None if it has none.

    A file that a caller uploads is listed from then on, even if it was ``derived`` before.
    """
    own = {} if derived else {"derived_from": None}
    return await _one(
        conn,
        update(files)
        .where(files.c.sha256 == sha256, *_visible(account_id, now))
        .values(expires_at=func.greatest(files.c.expires_at, expires_at), **own)
        .returning(*_COLUMNS),
    )


async def get(conn: AsyncConnection, account_id: UUID, file_id: UUID, now: datetime) -> StoredFile | None:
    return await _one(conn, select(*_COLUMNS).where(files.c.id == file_id, *_visible(account_id, now)))


async def page(
    conn: AsyncConnection, account_id: UUID, now: datetime, *, after: UUID | None, limit: int
) -> list[StoredFile]:
    """The account's files, newest first, from the one after ``after`` on; without derived ones."""
    query = select(*_COLUMNS).where(*_visible(account_id, now), files.c.derived_from.is_(None))
    if after is not None:
        query = query.where(files.c.id < after)
    rows = await conn.execute(query.order_by(files.c.id.desc()).limit(limit))
    return [_file(row) for row in rows.mappings()]


async def of_ids(conn: AsyncConnection, file_ids: Collection[UUID]) -> list[StoredFile]:
    """Files of any account, with those that have expired and whose object is not deleted yet."""
    asked = files.c.id == any_(cast(list(file_ids), ARRAY(Uuid)))
    rows = await conn.execute(select(*_COLUMNS).where(asked, files.c.stored_at.is_not(None)))
    return [_file(row) for row in rows.mappings()]


async def expired(conn: AsyncConnection, now: datetime, limit: int, used: Used) -> Sequence[StoredFile]:
    """Files of all accounts that are to be deleted, with those whose upload was never finished.

    They are not seen any more, and the same bytes may be given anew. Those that are ``used`` are kept for another hour.
    """
    due = select(files.c.id).where(files.c.expires_at <= now).order_by(files.c.expires_at).limit(limit)
    ids = list(await conn.scalars(due.with_for_update(skip_locked=True)))
    kept = await used(conn, ids) if ids else set()
    if kept:
        await conn.execute(update(files).where(files.c.id.in_(kept)).values(expires_at=now + LONGER))
    rows = await conn.execute(
        update(files).where(files.c.id.in_(set(ids) - kept)).values(stored_at=None).returning(*_COLUMNS)
    )
    return [_file(row) for row in rows.mappings()]


async def end(conn: AsyncConnection, account_id: UUID, file_id: UUID, now: datetime) -> StoredFile | None:
    """Let the file expire now, and those derived from it; None if the account has no such file."""
    ended = await _one(
        conn,
        update(files)
        .where(files.c.id == file_id, *_visible(account_id, now))
        .values(expires_at=now, stored_at=None)
        .returning(*_COLUMNS),
    )
    if ended is not None:
        derived = (files.c.derived_from == file_id, files.c.account_id == account_id)
        # One that another job uses, of a picture with the same bytes, is kept for it: see `expired`.
        await conn.execute(update(files).where(*derived).values(expires_at=now))
    return ended


async def remove(conn: AsyncConnection, file_id: UUID) -> bool:
    """Delete the row of a file that :func:`expired` returned and whose object is deleted."""
    result = await conn.execute(delete(files).where(files.c.id == file_id, files.c.stored_at.is_(None)))
    return result.rowcount == 1


async def _lock(conn: AsyncConnection, account_id: UUID) -> None:
    """Until the end of the transaction: what is stored for an account is decided one file at a time."""
    await conn.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"files of {account_id}"}
    )


async def _one(conn: AsyncConnection, statement: Executable) -> StoredFile | None:
    row = (await conn.execute(statement)).mappings().one_or_none()
    return None if row is None else _file(row)


def _visible(account_id: UUID, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return files.c.account_id == account_id, files.c.stored_at.is_not(None), files.c.expires_at > now


def _file(row: RowMapping) -> StoredFile:
    values: dict[str, Any] = {**row, "format": FileFormat(row["format"])}
    return StoredFile(**values)
