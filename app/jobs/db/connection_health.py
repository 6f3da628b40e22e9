"""SQL of the connections: their health, and the lock under which their slots are assigned."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.infra.db import NOW, interval
from app.jobs.db.tables import connections

TROUBLE_CHARACTERS = 500

_COLUMNS = (
    connections.c.name,
    connections.c.failures,
    func.greatest(func.coalesce(func.extract("epoch", connections.c.closed_until - NOW), 0), 0).label("closed_for"),
    connections.c.trouble,
    connections.c.changed_at,
)


@dataclass(frozen=True, slots=True)
class ConnectionHealth:
    """The health of a connection. ``closed_for`` are the seconds until it accepts jobs again; 0 if it does now."""

    name: str
    failures: int
    closed_for: float
    trouble: str | None
    changed_at: datetime

    @property
    def failing(self) -> bool:
        return self.failures > 0


async def lock(conn: AsyncConnection, name: str) -> ConnectionHealth | None:
    """Lock a connection: the right to assign its slots until the transaction ends. None if another worker has it.

    Does not wait: other connections must not wait for this one.
    """
    mine = select(*_COLUMNS).where(connections.c.name == name).with_for_update(skip_locked=True)
    row = (await conn.execute(mine)).one_or_none()
    if row is None:
        await conn.execute(insert(connections).values(name=name).on_conflict_do_nothing())
        row = (await conn.execute(mine)).one_or_none()
    return None if row is None else ConnectionHealth(*row)


async def read_all(conn: AsyncConnection) -> list[ConnectionHealth]:
    """Every connection that was ever used."""
    return [ConnectionHealth(*row) for row in await conn.execute(select(*_COLUMNS).order_by(connections.c.name))]


async def closed(conn: AsyncConnection, failures: int = 0) -> set[str]:
    """The connections that accept no jobs now.

    With ``failures`` only those that failed at least as often in a row, not those that asked for a pause.
    """
    now = (connections.c.closed_until > NOW, connections.c.failures >= failures)
    return set(await conn.scalars(select(connections.c.name).where(*now)))


async def next_opening(conn: AsyncConnection, names: Collection[str]) -> float | None:
    """Seconds until the first of these connections accepts jobs again; None if none is closed."""
    value = await conn.scalar(
        select(func.extract("epoch", func.min(connections.c.closed_until) - NOW)).where(
            connections.c.name.in_(names), connections.c.closed_until > NOW
        )
    )
    return None if value is None else float(value)


async def record_success(conn: AsyncConnection, name: str) -> None:
    """Reset the circuit breaker: the connection works and accepts jobs again."""
    await conn.execute(
        update(connections)
        .where(connections.c.name == name, connections.c.failures > 0)
        .values(failures=0, closed_until=None, trouble=None, changed_at=NOW)
    )


async def record_failure(
    conn: AsyncConnection, name: str, trouble: str, *, known: int, break_after: int, pause: float, longest: float
) -> int:
    """Count a failure; from the ``break_after``th on the connection is closed. Returns the failures in a row.

    ``known`` is their number when the request was admitted. Failures of requests admitted before the connection was
    closed do not count after that: only a failed test request lengthens its pause.
    """
    failures: int | None = await conn.scalar(
        text(
            """
            UPDATE connections SET
                failures = failures + 1, trouble = :trouble, changed_at = clock_timestamp(),
                closed_until = CASE WHEN failures + 1 >= :break_after THEN clock_timestamp() + make_interval(
                    secs => least(:longest, :pause * power(2, least(failures + 1 - :break_after, 20)))
                ) ELSE closed_until END
            WHERE name = :name AND (failures < :break_after OR :known >= :break_after) RETURNING failures
            """
        ),
        {
            "name": name,
            "trouble": trouble[:TROUBLE_CHARACTERS],
            "known": known,
            "break_after": break_after,
            "pause": float(pause),
            "longest": float(longest),
        },
    )
    return failures or 0


async def close(conn: AsyncConnection, name: str, seconds: float, trouble: str | None = None) -> None:
    """Admit no jobs for some seconds: the provider asked for a pause, or a test request is in progress."""
    until = NOW + interval(seconds)
    values: dict[str, Any] = {"closed_until": func.greatest(func.coalesce(connections.c.closed_until, until), until)}
    if trouble is not None:
        values["trouble"] = trouble[:TROUBLE_CHARACTERS]
    await conn.execute(update(connections).where(connections.c.name == name).values(**values))
