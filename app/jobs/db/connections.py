"""SQL of what the workers have learned about connections: how healthy each is, and who may hand out its slots."""

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
class Standing:
    """How a connection stands. ``closed_for`` is seconds until it takes jobs again, 0 when it does."""

    name: str
    failures: int
    closed_for: float
    trouble: str | None
    changed_at: datetime

    @property
    def troubled(self) -> bool:
        return self.failures > 0


async def lock(connection: AsyncConnection, name: str) -> Standing | None:
    """The right to hand out a connection's slots, until the transaction ends; None when another worker has it now.

    It is not waited for: other connections must not wait behind this one.
    """
    mine = select(*_COLUMNS).where(connections.c.name == name).with_for_update(skip_locked=True)
    row = (await connection.execute(mine)).one_or_none()
    if row is None:
        await connection.execute(insert(connections).values(name=name).on_conflict_do_nothing())
        row = (await connection.execute(mine)).one_or_none()
    return None if row is None else Standing(*row)


async def standings(connection: AsyncConnection) -> list[Standing]:
    """Every connection that was ever used."""
    return [Standing(*row) for row in await connection.execute(select(*_COLUMNS).order_by(connections.c.name))]


async def closed(connection: AsyncConnection, failures: int = 0) -> set[str]:
    """The connections that take no jobs now, and failed so often in a row: others have only asked for a pause."""
    now = (connections.c.closed_until > NOW, connections.c.failures >= failures)
    return set(await connection.scalars(select(connections.c.name).where(*now)))


async def next_opening(connection: AsyncConnection, names: Collection[str]) -> float | None:
    """Seconds until the first of some closed connections takes jobs again; None when none is closed."""
    value = await connection.scalar(
        select(func.extract("epoch", func.min(connections.c.closed_until) - NOW)).where(
            connections.c.name.in_(names), connections.c.closed_until > NOW
        )
    )
    return None if value is None else float(value)


async def note_success(connection: AsyncConnection, name: str) -> None:
    """It works (again): open to everybody."""
    await connection.execute(
        update(connections)
        .where(connections.c.name == name, connections.c.failures > 0)
        .values(failures=0, closed_until=None, trouble=None, changed_at=NOW)
    )


async def note_failure(
    connection: AsyncConnection, name: str, trouble: str, *, known: int, break_after: int, pause: float, longest: float
) -> int:
    """One failure more; from the ``break_after``th on it is closed. Returns how many there were in a row.

    ``known`` is how many there were when the request was let in. What was let in before it was closed says nothing new
    after that: only who tries a closed one again makes its pause longer.
    """
    failures: int | None = await connection.scalar(
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


async def close(connection: AsyncConnection, name: str, seconds: float, trouble: str | None = None) -> None:
    """Give it no jobs for so many seconds: it asked for that, or somebody is trying whether it works again."""
    until = NOW + interval(seconds)
    values: dict[str, Any] = {"closed_until": func.greatest(func.coalesce(connections.c.closed_until, until), until)}
    if trouble is not None:
        values["trouble"] = trouble[:TROUBLE_CHARACTERS]
    await connection.execute(update(connections).where(connections.c.name == name).values(**values))
