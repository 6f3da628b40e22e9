"""Claims: a worker takes due rows of a table for the duration of a lease; every later write carries the fence.

A claimable table has ``next_at``, when a row is due or, while it is claimed, when the lease ends; and ``fence``, which
increases with each claim. All times are the database's. The schedule, the reconciliations and the webhook deliveries
are claimed this way.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

#: The SET clause of a claim; its parameter ``lease`` is in seconds.
TAKE = "fence = fence + 1, next_at = clock_timestamp() + make_interval(secs => :lease)"

#: A row's key, and the fence of the claim on it.
Held = tuple[UUID, int]


class ClaimLost(Exception):
    """The lease ended and another worker has the row, or the row is gone: the worker must stop."""


class ClaimTable:
    """The SQL of one claimable table. Callers own the transaction.

    ``due`` restricts the rows that :meth:`claim` and :meth:`next_due` consider; ``returning`` are further columns of a
    claimed row. Both are SQL constants.
    """

    def __init__(self, name: str, key: str, *, due: str = "true", returning: Sequence[str] = ()) -> None:
        columns = ", ".join(f"{name}.{column}" for column in (key, "fence"))
        held = "unnest(cast(:keys AS uuid[]), cast(:fences AS bigint[])) AS held (key, fence)"
        mine = f"{name}.{key} = held.key AND {name}.fence = held.fence"
        # statement_timestamp() is the same throughout a statement, so the index on next_at can be used.
        self._claim = text(
            f"""
            WITH due AS (
                SELECT {key} FROM {name} WHERE {due} AND next_at <= statement_timestamp()
                ORDER BY next_at, {key} LIMIT :limit FOR UPDATE SKIP LOCKED
            )
            UPDATE {name} SET {TAKE} FROM due WHERE {name}.{key} = due.{key}
            RETURNING {", ".join((columns, *returning))}
            """  # noqa: S608  # names of tables and columns
        )
        self._next_due = text(f"SELECT extract(epoch FROM min(next_at) - clock_timestamp()) FROM {name} WHERE {due}")  # noqa: S608
        self._extend = text(
            f"UPDATE {name} SET next_at = clock_timestamp() + make_interval(secs => :lease) FROM {held} WHERE {mine}"  # noqa: S608
        )
        self._defer = text(
            f"""
            UPDATE {name} SET next_at = clock_timestamp() + make_interval(secs => held.delay)
            FROM unnest(cast(:keys AS uuid[]), cast(:fences AS bigint[]), cast(:delays AS float8[]))
                AS held (key, fence, delay)
            WHERE {mine}
            """  # noqa: S608
        )
        self._end = text(f"DELETE FROM {name} USING {held} WHERE {mine}")  # noqa: S608

    async def claim(
        self, conn: AsyncConnection, limit: int, lease: float, fields: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """Take up to ``limit`` due rows for ``lease`` seconds; ``fields`` are the parameters of ``due``."""
        return (await conn.execute(self._claim, {"limit": limit, "lease": lease, **(fields or {})})).all()

    async def next_due(self, conn: AsyncConnection, fields: Mapping[str, Any] | None = None) -> float | None:
        """Seconds until the next row is due; None if there is none."""
        value = await conn.scalar(self._next_due, fields or {})
        return None if value is None else float(value)

    async def extend(self, conn: AsyncConnection, held: Sequence[Held], lease: float) -> bool:
        """Let leases end ``lease`` seconds from now. False if none of the claims is held any more."""
        return (await conn.execute(self._extend, {**_parameters(held), "lease": lease})).rowcount > 0

    async def defer(self, conn: AsyncConnection, held: Sequence[Held], delays: Sequence[float]) -> int:
        """Release rows, each due again after its delay in seconds. Returns how many were still held."""
        if not held:
            return 0
        return (await conn.execute(self._defer, {**_parameters(held), "delays": list(delays)})).rowcount

    async def end(self, conn: AsyncConnection, held: Held) -> None:
        """Delete a claimed row.

        Raises:
            ClaimLost: the claim is not held any more; the transaction must not commit.
        """
        if (await conn.execute(self._end, _parameters([held]))).rowcount != 1:
            raise ClaimLost


def _parameters(held: Sequence[Held]) -> dict[str, Any]:
    return {"keys": [key for key, _ in held], "fences": [fence for _, fence in held]}
