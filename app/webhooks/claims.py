"""SQL of the delivery lane: claim what is due, write down what came of it. Callers own the transaction."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.webhooks.concurrency import FIRST_SHARE, Shares
from app.webhooks.records import Attempted, Due, State
from app.webhooks.retry import Decision, Delivered, RetryIn

#: The next ones are chosen of so many due deliveries.
WINDOW = 512

# From a window of the most overdue rows, no more of one host than its share, and no more of silent hosts than theirs:
# hosts that hang must not fill every slot. The conditions are repeated where rows are locked, because another worker
# may have claimed them meanwhile. The time is statement_timestamp(), which is the same throughout a statement, so that
# the index on next_at can be used.
_CLAIM = text(
    """
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
    SET fence = delivery.fence + 1, next_at = clock_timestamp() + make_interval(secs => :lease)
    FROM mine WHERE delivery.id = mine.id
    RETURNING delivery.id, delivery.account_id, delivery.event_id, delivery.event_type, delivery.url, delivery.host,
        delivery.body, delivery.attempts, delivery.fence,
        (SELECT sealed FROM webhook_secrets WHERE account_id = delivery.account_id) AS sealed_secret
    """
)

# The fence keeps out whoever lost the lease. An attempt that leads to another one has no state and a pause.
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


# What is due and could be claimed has just been claimed, but for what lay behind the window: so a look at the first due
# ones will do, and what is due later is one step in the index. Looking through all that full hosts are owed would not.
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


async def next_due(connection: AsyncConnection, full: Collection[str]) -> float | None:
    """Seconds until the next attempt is due, by the database's clock; None for none.

    What is due already does not count when its host is ``full``: a slot there has to become free first.
    """
    value = await connection.scalar(_NEXT_DUE, {"full": list(full), "window": WINDOW})
    return None if value is None else float(value)


async def claim(connection: AsyncConnection, limit: int, *, lease: float, shares: Shares) -> list[Due]:
    """Take up to ``limit`` due deliveries for ``lease`` seconds, by the database's clock, within ``shares``."""
    rows = await connection.execute(
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


async def record(connection: AsyncConnection, made: Sequence[Attempted]) -> set[tuple[UUID, int]]:
    """Write down attempts and what follows from them; the keys of those written: the others had lost their lease."""
    rows = await connection.execute(
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
