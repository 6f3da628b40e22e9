"""SQL of the doctor: stuck jobs, possible and repeated charges, and violated invariants. It only reads.

It may run on a busy database: every statement reads one snapshot, and the comment above it names the indexes that serve
it. Ids are UUIDv7, so "created since" is a range of the primary key.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.jobs.db.tables import LIVE

#: How many jobs of a group are named, the oldest first.
NAMED = 5


@dataclass(frozen=True, slots=True)
class JobGroup:
    """The jobs with a finding. ``oldest`` is in seconds; ``jobs`` are the oldest of them, at most :data:`NAMED`."""

    name: str
    count: int
    oldest: float
    jobs: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Jobs and the estimated cost of their submissions in USD; ``unpriced`` jobs have no estimate."""

    group: JobGroup
    estimated: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True)
class ConnectionLoad:
    """The live and the reconciled submissions of a connection.

    Of the live ones ``slots`` take a slot, and ``without_remote_id`` have no known remote id.
    """

    connection: str
    live: int
    slots: int
    without_remote_id: int
    reconciled: int


@dataclass(frozen=True, slots=True)
class Route:
    """A model on a connection."""

    model: str
    connection: str


def _grouped(rows: str, more: str = "") -> TextClause:
    """A query of groups over a query of rows: name, job, and since when. ``more`` are further aggregates."""
    return text(
        f"""
        SELECT name, count(*), coalesce(extract(epoch FROM statement_timestamp() - min(since)), 0),
            (array_agg(job_id ORDER BY since, job_id))[1:{NAMED}] {more}
        FROM ({rows}) AS found GROUP BY name ORDER BY name
        """  # noqa: S608  # constants
    )


# What is stuck -----------------------------------------------------------------------------------------------------

# ix_schedule_lane_next_at, ix_watches_next_at
OVERDUE = _grouped(
    """
    SELECT lane AS name, job_id, next_at AS since FROM schedule
    WHERE lane IN ('submit', 'confirm', 'poll', 'store')
        AND next_at < statement_timestamp() - make_interval(secs => :seconds)
    UNION ALL
    SELECT 'watch', job_id, next_at FROM watches WHERE next_at < statement_timestamp() - make_interval(secs => :seconds)
    """
)

_ROUTE = """
    SELECT FROM unnest(cast(:models AS text[]), cast(:connections AS text[])) AS route (model, connection)
    WHERE route.model = schedule.queue AND route.connection <> ALL (schedule.avoid)
"""
# A scalar subquery, here and below: with a join or NOT EXISTS the planner may scan the whole table.
_CREATED_AT = "(SELECT created_at FROM jobs WHERE jobs.id = schedule.job_id)"

# ix_schedule_queue, pk_jobs
STALLED = _grouped(
    f"""
    SELECT 'submit' AS name, job_id, coalesce(ready_at, {_CREATED_AT}) AS since FROM schedule
    WHERE queue = ANY(cast(:models AS text[])) AND next_at > statement_timestamp() AND EXISTS ({_ROUTE})
        AND coalesce(ready_at, {_CREATED_AT}) < statement_timestamp() - make_interval(secs => :seconds)
    """  # noqa: S608
)

# ix_schedule_queue, pk_jobs
UNSERVED = _grouped(
    f"""
    SELECT queue AS name, job_id, {_CREATED_AT} AS since FROM schedule
    WHERE queue IS NOT NULL AND NOT EXISTS ({_ROUTE})
    """  # noqa: S608
)

# ix_jobs_live, uq_submissions_live
UNRESOLVED = _grouped(
    """
    SELECT 'unresolved' AS name, job_id, submissions.created_at AS since
    FROM jobs JOIN submissions ON submissions.job_id = jobs.id AND submissions.state = 'unknown'
    WHERE jobs.finished_at IS NULL AND jobs.state = 'submit_unknown'
    """
)

# ix_submissions_live_connection; pk_submissions for the watches, which are few
CONNECTION_LOADS = text(
    f"""
    SELECT connection, count(*) FILTER (WHERE live), count(*) FILTER (WHERE live AND rendering),
        count(*) FILTER (WHERE live AND without_remote_id), count(*) FILTER (WHERE NOT live)
    FROM (
        SELECT connection, true AS live, results IS NULL AS rendering, remote_id IS NULL AS without_remote_id
        FROM submissions WHERE {LIVE}
        UNION ALL
        SELECT connection, false, false, false FROM watches JOIN submissions ON submissions.id = submission_id
    ) AS submission
    GROUP BY connection ORDER BY connection
    """  # noqa: S608
)


async def overdue(conn: AsyncConnection, seconds: float) -> list[JobGroup]:
    """By lane: jobs that were due more than ``seconds`` ago.

    In the `submit` lane these are jobs past their deadline, in the `watch` lane jobs with a reconciled submission.
    """
    return await _groups(conn, OVERDUE, seconds=float(seconds))


async def stalled(conn: AsyncConnection, routes: Collection[Route], seconds: float) -> JobGroup | None:
    """Jobs that have waited for more than ``seconds`` although one of these routes would accept them now."""
    return await _group(conn, STALLED, **_columns(routes), seconds=float(seconds))


async def unserved(conn: AsyncConnection, routes: Collection[Route]) -> list[JobGroup]:
    """By line: the jobs that none of these routes, all there are, can serve."""
    return await _groups(conn, UNSERVED, **_columns(routes))


async def unresolved(conn: AsyncConnection) -> JobGroup | None:
    """Jobs whose submission is being resolved: it is unknown whether it was accepted."""
    return await _group(conn, UNRESOLVED)


async def connection_loads(conn: AsyncConnection) -> list[ConnectionLoad]:
    """The load of every connection with submissions, configured or not."""
    return [ConnectionLoad(*row) for row in await conn.execute(CONNECTION_LOADS)]


# Money -------------------------------------------------------------------------------------------------------------

# pk_jobs from :since on, uq_submissions_number
POSSIBLY_CHARGED = _grouped(
    """
    SELECT 'possibly charged' AS name, id AS job_id, finished_at AS since, (
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
CHARGED_AGAIN = _grouped(
    """
    SELECT 'charged again' AS name, job_id, min(created_at) AS since FROM submissions
    WHERE job_id >= :since AND charge_certainty = 'certain' AND cost IS DISTINCT FROM 0
    GROUP BY job_id HAVING count(*) > 1
    """
)

# pk_jobs for the watches, which are few
RECONCILED = _grouped(
    """
    SELECT DISTINCT 'reconciled' AS name, job_id, jobs.finished_at AS since
    FROM watches JOIN jobs ON jobs.id = watches.job_id WHERE jobs.finished_at IS NOT NULL
    """
)

# uq_submissions_number from :since on, pk_jobs, uq_assets_job_id_kind. Only the reconciler stores such a video.
LATE_VIDEOS = _grouped(
    """
    SELECT 'late' AS name, jobs.id AS job_id, jobs.finished_at AS since FROM submissions
    JOIN jobs ON jobs.id = submissions.job_id AND jobs.state IN ('failed', 'canceled')
    JOIN assets ON assets.job_id = jobs.id AND assets.kind = 'video'
    WHERE submissions.job_id >= :since AND submissions.late AND submissions.state = 'done'
        AND submissions.results IS NOT NULL
    """
)


async def possibly_charged(conn: AsyncConnection, since: UUID) -> Cost | None:
    """Jobs created since then that failed because it is unknown whether their submission was accepted."""
    row = (await conn.execute(POSSIBLY_CHARGED, {"since": since})).one_or_none()
    return None if row is None else Cost(_read(row), row[4], row[5])


async def charged_again(conn: AsyncConnection, since: UUID) -> JobGroup | None:
    """Jobs created since then that were charged for more than one submission, by the ledger."""
    return await _group(conn, CHARGED_AGAIN, since=since)


async def reconciled(conn: AsyncConnection) -> JobGroup | None:
    """Ended jobs with a submission that is still being reconciled."""
    return await _group(conn, RECONCILED)


async def late_videos(conn: AsyncConnection, since: UUID) -> JobGroup | None:
    """Jobs created since then whose video arrived after they had ended, and was kept."""
    return await _group(conn, LATE_VIDEOS, since=since)


# Violated invariants -----------------------------------------------------------------------------------------------

# In order: uq_submissions_live; ix_jobs_live, pk_schedule; pk_schedule, pk_jobs; ix_jobs_live and
# uq_submissions_live; uq_submissions_live, pk_jobs; pk_jobs from :since on, uq_assets_job_id_kind.
VIOLATIONS = _grouped(
    f"""
    SELECT 'two_live_submissions' AS name, job_id, min(created_at) AS since FROM submissions
    WHERE {LIVE} GROUP BY job_id HAVING count(*) > 1
    UNION ALL
    SELECT 'live_job_unscheduled', id, created_at FROM jobs
    WHERE finished_at IS NULL AND NOT EXISTS (SELECT FROM schedule WHERE schedule.job_id = jobs.id)
    UNION ALL
    SELECT 'ended_job_scheduled', jobs.id, jobs.finished_at FROM schedule JOIN jobs ON jobs.id = schedule.job_id
    WHERE jobs.finished_at IS NOT NULL
    UNION ALL
    SELECT 'running_job_without_submission', id, created_at FROM jobs
    WHERE finished_at IS NULL AND state NOT IN ('preparing', 'queued')
        AND NOT EXISTS (SELECT FROM submissions WHERE submissions.job_id = jobs.id AND submissions.{LIVE})
    UNION ALL
    SELECT 'live_submission_of_no_running_job', jobs.id, submissions.created_at
    FROM submissions JOIN jobs ON jobs.id = submissions.job_id
    WHERE submissions.{LIVE} AND (jobs.finished_at IS NOT NULL OR jobs.state IN ('preparing', 'queued'))
    UNION ALL
    SELECT 'succeeded_job_without_video', id, finished_at FROM jobs
    WHERE id >= :since AND state = 'succeeded'
        AND (SELECT id FROM assets WHERE assets.job_id = jobs.id AND assets.kind = 'video') IS NULL
    """  # noqa: S608
)


async def violations(conn: AsyncConnection, since: UUID) -> list[JobGroup]:
    """By invariant: the jobs that violate it. Missing videos are checked only for jobs created since then."""
    return await _groups(conn, VIOLATIONS, since=since)


# Remote jobs -------------------------------------------------------------------------------------------------------

# pk_submissions
CONTRADICTED = text(
    """
    SELECT listed.remote_id FROM unnest(cast(:refs AS uuid[]), cast(:remote_ids AS text[])) AS listed (ref, remote_id)
    JOIN submissions ON submissions.id = listed.ref
    WHERE CASE WHEN submissions.remote_id IS NULL THEN submissions.state IN ('absent', 'rejected')
        ELSE submissions.remote_id <> listed.remote_id END
    """
)


async def contradicted(conn: AsyncConnection, references: Mapping[str, UUID]) -> frozenset[str]:
    """The remote ids, of a mapping from remote id to our reference, that contradict the ledger.

    By the ledger the submission was not accepted, or it has another remote id.
    """
    fields = {"refs": list(references.values()), "remote_ids": list(references)}
    return frozenset(await conn.scalars(CONTRADICTED, fields))


def _columns(routes: Collection[Route]) -> dict[str, list[str]]:
    return {"models": [route.model for route in routes], "connections": [route.connection for route in routes]}


async def _groups(conn: AsyncConnection, statement: TextClause, **fields: Any) -> list[JobGroup]:
    return [_read(row) for row in await conn.execute(statement, fields)]


async def _group(conn: AsyncConnection, statement: TextClause, **fields: Any) -> JobGroup | None:
    return next(iter(await _groups(conn, statement, **fields)), None)


def _read(row: Sequence[Any]) -> JobGroup:
    return JobGroup(row[0], row[1], float(row[2]), tuple(row[3]))
