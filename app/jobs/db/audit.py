"""SQL of the doctor: what is stuck, what may have been paid for in vain, and what must never be. It only reads.

It may run on a busy database: every statement names the indexes that serve it, and sees one moment. Ids are UUIDv7, so
"ordered since" is a range of the key. Which job has no film can only be asked of jobs and assets at once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.jobs.db.tables import LIVE

#: So many jobs are named of each kind of trouble, the oldest first.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Tally:
    """Jobs that have something in common, called ``name``. ``oldest`` is seconds; ``jobs`` are some of them."""

    name: str
    count: int
    oldest: float
    jobs: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Jobs and what their purchases were estimated at, in USD; ``unpriced`` jobs have no estimate."""

    tally: Tally
    estimated: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True)
class Holding:
    """What a connection has in hand: live submissions, and watched ones.

    Of the live ones so many take a slot, and of ``nameless`` ones the remote id is not known.
    """

    connection: str
    live: int
    slots: int
    nameless: int
    watched: int


@dataclass(frozen=True, slots=True)
class Way:
    """A model on a connection."""

    model: str
    connection: str


def _sum_up(rows: str, more: str = "") -> TextClause:
    """A query of tallies, out of one of rows: name, job, since when, and what ``more`` sums up."""
    return text(
        f"""
        SELECT name, count(*), coalesce(extract(epoch FROM statement_timestamp() - min(since)), 0),
            (array_agg(job_id ORDER BY since, job_id))[1:{NAMED}] {more}
        FROM ({rows}) AS found GROUP BY name ORDER BY name
        """  # noqa: S608  # only our own constants are put in
    )


# What is stuck -----------------------------------------------------------------------------------------------------

# ix_schedule_lane_next_at, ix_watches_next_at
OVERDUE = _sum_up(
    """
    SELECT lane AS name, job_id, next_at AS since FROM schedule
    WHERE lane IN ('submit', 'confirm', 'poll', 'store')
        AND next_at < statement_timestamp() - make_interval(secs => :seconds)
    UNION ALL
    SELECT 'watch', job_id, next_at FROM watches WHERE next_at < statement_timestamp() - make_interval(secs => :seconds)
    """
)

_WAY = """
    SELECT FROM unnest(cast(:models AS text[]), cast(:connections AS text[])) AS way (model, connection)
    WHERE way.model = schedule.queue AND way.connection <> ALL (schedule.avoid)
"""
# Here and below no join, nor NOT EXISTS, where the planner would take it for a reason to read all there ever was.
_ORDERED_AT = "(SELECT created_at FROM jobs WHERE jobs.id = schedule.job_id)"

# ix_schedule_queue, pk_jobs
KEPT_WAITING = _sum_up(
    f"""
    SELECT 'submit' AS name, job_id, coalesce(ready_at, {_ORDERED_AT}) AS since FROM schedule
    WHERE queue = ANY(cast(:models AS text[])) AND next_at > statement_timestamp() AND EXISTS ({_WAY})
        AND coalesce(ready_at, {_ORDERED_AT}) < statement_timestamp() - make_interval(secs => :seconds)
    """  # noqa: S608
)

# ix_schedule_queue, pk_jobs
UNSERVED = _sum_up(
    f"""
    SELECT queue AS name, job_id, {_ORDERED_AT} AS since FROM schedule
    WHERE queue IS NOT NULL AND NOT EXISTS ({_WAY})
    """  # noqa: S608
)

# ix_jobs_live, uq_submissions_live
IN_DOUBT = _sum_up(
    """
    SELECT 'in doubt' AS name, job_id, submissions.created_at AS since
    FROM jobs JOIN submissions ON submissions.job_id = jobs.id AND submissions.state = 'unknown'
    WHERE jobs.finished_at IS NULL AND jobs.state = 'submit_unknown'
    """
)

# ix_submissions_live_connection; pk_submissions for the watches, which are few
IN_HAND = text(
    f"""
    SELECT connection, count(*) FILTER (WHERE live), count(*) FILTER (WHERE live AND rendering),
        count(*) FILTER (WHERE live AND nameless), count(*) FILTER (WHERE NOT live)
    FROM (
        SELECT connection, true AS live, results IS NULL AS rendering, remote_id IS NULL AS nameless
        FROM submissions WHERE {LIVE}
        UNION ALL
        SELECT connection, false, false, false FROM watches JOIN submissions ON submissions.id = submission_id
    ) AS purchase
    GROUP BY connection ORDER BY connection
    """  # noqa: S608
)


async def overdue(connection: AsyncConnection, seconds: float) -> list[Tally]:
    """By lane: jobs that somebody should have looked at more than so many seconds ago.

    In the `submit` lane these are jobs past their deadline, in the `watch` lane jobs with a watched purchase.
    """
    return await _tallies(connection, OVERDUE, seconds=float(seconds))


async def kept_waiting(connection: AsyncConnection, ways: Collection[Way], seconds: float) -> Tally | None:
    """Jobs that have waited for longer than so many seconds, though one of some ways would take them now."""
    return await _tally(connection, KEPT_WAITING, **_columns(ways), seconds=float(seconds))


async def unserved(connection: AsyncConnection, ways: Collection[Way]) -> list[Tally]:
    """By line: the jobs that none of all the ways there are can take."""
    return await _tallies(connection, UNSERVED, **_columns(ways))


async def in_doubt(connection: AsyncConnection) -> Tally | None:
    """Jobs whose purchase may or may not have been accepted, which is being found out."""
    return await _tally(connection, IN_DOUBT)


async def in_hand(connection: AsyncConnection) -> list[Holding]:
    """What every connection has in hand, configured or not."""
    return [Holding(*row) for row in await connection.execute(IN_HAND)]


# Money -------------------------------------------------------------------------------------------------------------

# pk_jobs from :since on, uq_submissions_number
UNSETTLED = _sum_up(
    """
    SELECT 'unsettled' AS name, id AS job_id, finished_at AS since, (
        SELECT sum(estimated_cost) FROM submissions
        WHERE submissions.job_id = jobs.id AND submissions.charge_certainty = 'possible'
    ) AS estimated
    FROM jobs
    WHERE id >= :since AND state = 'failed' AND charge_certainty = 'possible'
        AND error ->> 'code' = 'upstream_outcome_unknown'
    """,
    ", coalesce(sum(estimated), 0), count(*) - count(estimated)",
)

# uq_submissions_number from :since on
CHARGED_AGAIN = _sum_up(
    """
    SELECT 'charged again' AS name, job_id, min(created_at) AS since FROM submissions
    WHERE job_id >= :since AND charge_certainty = 'certain' AND cost IS DISTINCT FROM 0
    GROUP BY job_id HAVING count(*) > 1
    """
)

# pk_jobs for the watches, which are few
WATCHED = _sum_up(
    """
    SELECT DISTINCT 'watched' AS name, job_id, jobs.finished_at AS since
    FROM watches JOIN jobs ON jobs.id = watches.job_id WHERE jobs.finished_at IS NOT NULL
    """
)

# uq_submissions_number from :since on, pk_jobs, uq_assets_job_id_kind. Nothing else gives such a job a film.
CAME_LATE = _sum_up(
    """
    SELECT 'late' AS name, jobs.id AS job_id, jobs.finished_at AS since FROM submissions
    JOIN jobs ON jobs.id = submissions.job_id AND jobs.state IN ('failed', 'canceled')
    JOIN assets ON assets.job_id = jobs.id AND assets.kind = 'film'
    WHERE submissions.job_id >= :since AND submissions.late AND submissions.state = 'done'
        AND submissions.results IS NOT NULL
    """
)


async def unsettled(connection: AsyncConnection, since: UUID) -> Cost | None:
    """Jobs ordered since then that failed because nobody can tell whether they were bought."""
    row = (await connection.execute(UNSETTLED, {"since": since})).one_or_none()
    return None if row is None else Cost(_read(row), row[4], row[5])


async def charged_again(connection: AsyncConnection, since: UUID) -> Tally | None:
    """Jobs ordered since then that were charged for more than one purchase, as the ledger says."""
    return await _tally(connection, CHARGED_AGAIN, since=since)


async def watched(connection: AsyncConnection) -> Tally | None:
    """Jobs that have ended, with a purchase whose truth may still come."""
    return await _tally(connection, WATCHED)


async def came_late(connection: AsyncConnection, since: UUID) -> Tally | None:
    """Jobs ordered since then whose film came out after their end, and was kept."""
    return await _tally(connection, CAME_LATE, since=since)


# What must never be ------------------------------------------------------------------------------------------------

# One after the other: uq_submissions_live; ix_jobs_live, pk_schedule; pk_schedule, pk_jobs; ix_jobs_live and
# uq_submissions_live; uq_submissions_live, pk_jobs; pk_jobs from :since on, uq_assets_job_id_kind.
BROKEN = _sum_up(
    f"""
    SELECT 'two_live_purchases' AS name, job_id, min(created_at) AS since FROM submissions
    WHERE {LIVE} GROUP BY job_id HAVING count(*) > 1
    UNION ALL
    SELECT 'live_job_unscheduled', id, created_at FROM jobs
    WHERE finished_at IS NULL AND NOT EXISTS (SELECT FROM schedule WHERE schedule.job_id = jobs.id)
    UNION ALL
    SELECT 'ended_job_scheduled', jobs.id, jobs.finished_at FROM schedule JOIN jobs ON jobs.id = schedule.job_id
    WHERE jobs.finished_at IS NOT NULL
    UNION ALL
    SELECT 'running_job_without_purchase', id, created_at FROM jobs
    WHERE finished_at IS NULL AND state <> 'queued'
        AND NOT EXISTS (SELECT FROM submissions WHERE submissions.job_id = jobs.id AND submissions.{LIVE})
    UNION ALL
    SELECT 'live_purchase_of_no_running_job', jobs.id, submissions.created_at
    FROM submissions JOIN jobs ON jobs.id = submissions.job_id
    WHERE submissions.{LIVE} AND (jobs.finished_at IS NOT NULL OR jobs.state = 'queued')
    UNION ALL
    SELECT 'succeeded_job_without_film', id, finished_at FROM jobs
    WHERE id >= :since AND state = 'succeeded'
        AND (SELECT id FROM assets WHERE assets.job_id = jobs.id AND assets.kind = 'film') IS NULL
    """  # noqa: S608
)


async def broken(connection: AsyncConnection, since: UUID) -> list[Tally]:
    """By invariant: the jobs that break it. Films are looked for of jobs ordered since then."""
    return await _tallies(connection, BROKEN, since=since)


# What a provider holds ---------------------------------------------------------------------------------------------

# pk_submissions
DENIED = text(
    """
    SELECT listed.remote_id FROM unnest(cast(:refs AS uuid[]), cast(:remote_ids AS text[])) AS listed (ref, remote_id)
    JOIN submissions ON submissions.id = listed.ref
    WHERE CASE WHEN submissions.remote_id IS NULL THEN submissions.state IN ('absent', 'rejected')
        ELSE submissions.remote_id <> listed.remote_id END
    """
)


async def denied(connection: AsyncConnection, records: Mapping[str, UUID]) -> frozenset[str]:
    """Those of a provider's records, by remote id and reference, that the ledger denies.

    It says that the submission of that id was never accepted, or that it is another record.
    """
    fields = {"refs": list(records.values()), "remote_ids": list(records)}
    return frozenset(await connection.scalars(DENIED, fields))


def _columns(ways: Collection[Way]) -> dict[str, list[str]]:
    return {"models": [way.model for way in ways], "connections": [way.connection for way in ways]}


async def _tallies(connection: AsyncConnection, statement: TextClause, **fields: Any) -> list[Tally]:
    return [_read(row) for row in await connection.execute(statement, fields)]


async def _tally(connection: AsyncConnection, statement: TextClause, **fields: Any) -> Tally | None:
    return next(iter(await _tallies(connection, statement, **fields)), None)


def _read(row: Sequence[Any]) -> Tally:
    return Tally(row[0], row[1], float(row[2]), tuple(row[3]))
