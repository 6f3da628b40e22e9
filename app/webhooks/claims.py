"""SQL of the delivery lane: claims due deliveries and records attempts. Callers own the transaction."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.claims import TAKE
from app.webhooks.concurrency import FIRST_SHARE, Shares
from app.webhooks.records import Attempted, Due, State
from app.webhooks.retry import Decision, Delivered, RetryIn

#: The number of most overdue deliveries among which a claim chooses.
WINDOW = 512

# Chooses from a window of the most overdue rows: no more of one host than its share, and no more of silent hosts than
# theirs, so that hosts that hang cannot take every slot. The conditions are repeated where rows are locked, because
# another worker may have claimed them meanwhile. statement_timestamp() is the same throughout a statement, so the index
# on next_at can be used.
_CLAIM = text(
    f"""
    WITH known AS (
        SELECT * FROM unnest(cast(:hosts AS text[]), cast(:free AS integer[]), cast(:silent AS boolean[]))
            AS known (host, free, silent)
    ), due AS (
        SELECT id, next_at, host FROM webhook_deliveries
        WHERE state = 'pending' AND next_at <= statement_timestamp() AND host <> ALL (cast(:full AS text[]))
        ORDER BY next_at LIMIT :window
    ), ranked AS (
        SELECT id, next_at, coalesce(free, :first) AS free, coalesce(silent, false) AS silent,
            row_number() OVER (PARTITION BY host ORDER BY next_at, id) AS place
        FROM due LEFT JOIN known USING (host)
    ), fair AS (
        SELECT id, silent, row_number() OVER (PARTITION BY silent ORDER BY next_at, id) AS turn
        FROM ranked WHERE place <= free
    ), mine AS (
        SELECT delivery.id
        FROM webhook_deliveries AS delivery JOIN fair ON fair.id = delivery.id
        WHERE (turn <= :silent_free OR NOT silent) AND state = 'pending' AND next_at <= statement_timestamp()
        ORDER BY delivery.next_at, delivery.id LIMIT :limit
        FOR UPDATE OF delivery SKIP LOCKED
    )
    UPDATE webhook_deliveries AS delivery
    SET {TAKE}
    FROM mine WHERE delivery.id = mine.id
    RETURNING delivery.id, delivery.account_id, delivery.event_id, delivery.event_type, delivery.url, delivery.host,
        delivery.body, delivery.attempts, delivery.fence,
        (SELECT sealed FROM webhook_secrets WHERE account_id = delivery.account_id) AS encrypted_secret
    """  # noqa: S608  # a constant
)

# The fence excludes attempts whose lease was lost. A pause means that another attempt follows.
_RECORD = text(
    """
    WITH made AS (
        SELECT * FROM unnest(
            cast(:ids AS uuid[]), cast(:fences AS bigint[]), cast(:numbers AS integer[]), cast(:states AS text[]),
            cast(:pauses AS double precision[]), cast(:started AS timestamptz[]), cast(:milliseconds AS integer[]),
            cast(:statuses AS integer[]), cast(:errors AS text[]), cast(:replies AS text[])
        ) AS made (id, fence, number, state, pause, started_at, duration_ms, status_code, error, reply)
    ), held AS (
        UPDATE webhook_deliveries AS delivery
        SET attempts = made.number, state = made.state,
            next_at = coalesce(clock_timestamp() + make_interval(secs => made.pause), delivery.next_at),
            ended_at = CASE WHEN made.state <> 'pending' THEN clock_timestamp() END
        FROM made WHERE delivery.id = made.id AND delivery.fence = made.fence AND delivery.state = 'pending'
        RETURNING delivery.id, delivery.fence
    ), written AS (
        INSERT INTO webhook_attempts (delivery_id, number, started_at, duration_ms, status_code, error, reply)
        SELECT id, number, started_at, duration_ms, status_code, error, reply FROM made JOIN held USING (id, fence)
    )
    SELECT id, fence FROM held
    """
)


# Due deliveries that could be claimed have just been claimed, except those beyond the window: reading the window again
# is enough, and the next due time is one index step. Scanning all deliveries of full hosts would be slow.
_NEXT_DUE = text(
    """
    SELECT CASE
        WHEN EXISTS (
            SELECT FROM (
                SELECT host FROM webhook_deliveries
                WHERE state = 'pending' AND next_at <= statement_timestamp() ORDER BY next_at LIMIT :window
            ) AS first WHERE host <> ALL (cast(:full AS text[]))
        ) THEN 0
        ELSE (
            SELECT extract(epoch FROM min(next_at) - statement_timestamp()) FROM webhook_deliveries
            WHERE state = 'pending' AND next_at > statement_timestamp()
        )
    END
    """
)


async def next_due(conn: AsyncConnection, full: Collection[str]) -> float | None:
    """Seconds until the next attempt is due, by the database's clock; None if there is none.

    Due deliveries to hosts in ``full`` do not count: a slot must become free first.
    """
    value = await conn.scalar(_NEXT_DUE, {"full": list(full), "window": WINDOW})
    return None if value is None else float(value)


async def claim(conn: AsyncConnection, limit: int, *, lease: float, shares: Shares) -> list[Due]:
    """Take up to ``limit`` due deliveries for ``lease`` seconds, by the database's clock, within ``shares``."""
    rows = await conn.execute(
        _CLAIM,
        {
            "limit": limit,
            "window": WINDOW,
            "lease": lease,
            "hosts": [share.host for share in shares.hosts],
            "free": [share.free for share in shares.hosts],
            "silent": [share.silent for share in shares.hosts],
            "full": shares.full,
            "first": FIRST_SHARE,
            "silent_free": shares.silent,
        },
    )
    return [Due(**row) for row in rows.mappings()]


async def record(conn: AsyncConnection, made: Sequence[Attempted]) -> set[tuple[UUID, int]]:
    """Record attempts and their decisions. Returns the keys of those recorded: the others had lost their lease."""
    rows = await conn.execute(
        _RECORD,
        {
            "ids": [one.due.id for one in made],
            "fences": [one.due.fence for one in made],
            "numbers": [one.attempt.number for one in made],
            "states": [_state(one.decision) for one in made],
            "pauses": [one.decision.seconds if isinstance(one.decision, RetryIn) else None for one in made],
            "started": [one.attempt.started_at for one in made],
            "milliseconds": [one.attempt.duration_ms for one in made],
            "statuses": [one.attempt.status_code for one in made],
            "errors": [one.attempt.error for one in made],
            "replies": [one.attempt.reply for one in made],
        },
    )
    return {(row.id, row.fence) for row in rows}


def _state(decision: Decision) -> State:
    if isinstance(decision, RetryIn):
        return "pending"
    return "delivered" if isinstance(decision, Delivered) else "failed"
