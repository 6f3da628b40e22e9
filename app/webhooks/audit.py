"""SQL of the doctor: overdue and failed deliveries. Read-only."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Deliveries to one host. ``oldest`` is the age of the oldest one in seconds."""

    host: str
    count: int
    oldest: float


# ix_webhook_deliveries_due
OVERDUE = text(
    """
    SELECT host, count(*), extract(epoch FROM statement_timestamp() - min(next_at)) FROM webhook_deliveries
    WHERE state = 'pending' AND next_at < statement_timestamp() - make_interval(secs => :seconds)
    GROUP BY host ORDER BY count(*) DESC, host
    """
)

# pk_webhook_deliveries from :since on
GIVEN_UP = text(
    """
    SELECT host, count(*), extract(epoch FROM statement_timestamp() - min(ended_at)) FROM webhook_deliveries
    WHERE id >= :since AND state = 'failed' AND ended_at > statement_timestamp() - make_interval(secs => :seconds)
    GROUP BY host ORDER BY count(*) DESC, host
    """
)


async def overdue(conn: AsyncConnection, seconds: float) -> list[Undelivered]:
    """By host, most first: deliveries whose next attempt is overdue by more than ``seconds``."""
    rows = await conn.execute(OVERDUE, {"seconds": float(seconds)})
    return [Undelivered(host, count, float(age)) for host, count, age in rows]


async def given_up(conn: AsyncConnection, seconds: float, since: UUID) -> list[Undelivered]:
    """By host, most first: deliveries created since ``since`` and given up within the last ``seconds``."""
    rows = await conn.execute(GIVEN_UP, {"seconds": float(seconds), "since": since})
    return [Undelivered(host, count, float(age)) for host, count, age in rows]
