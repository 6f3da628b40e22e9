"""Checks for unresolved or repeated charges, late videos and violated invariants."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.doctor.findings import Finding, counted, facts_of, jobs, named, notice, problem
from app.jobs.db import audit, repository
from app.resources import Resources

DAYS = 7
WEEK = f"the last {DAYS} days"

#: The jobs that violate an invariant, by the code of its finding.
INVARIANTS = {
    "two_live_submissions": "with more than one live submission",
    "live_job_unscheduled": "live but not in the schedule",
    "ended_job_scheduled": "ended but still in the schedule",
    "running_job_without_submission": "running without a live submission",
    "live_submission_of_no_running_job": "not running but with a live submission",
    "succeeded_job_without_video": "succeeded without a video",
}


async def charges_possible(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    del resources
    cost = await audit.possibly_charged(conn, await _week(conn))
    if cost is None:
        return []
    unpriced = f", not counting {cost.unpriced} without a price" if cost.unpriced else ""
    return [
        problem(
            "charge_possible",
            f"{counted(cost.group.count, 'job', 'jobs')} of {WEEK} ended with an unknown result and may have been "
            f"charged, an estimated {cost.estimated:.2f} USD{unpriced}: {named(cost.group)}.",
            "Compare with the provider's bill.",
            estimated_usd=f"{cost.estimated:.2f}",
            unpriced=cost.unpriced,
            **facts_of(cost.group),
        )
    ]


async def jobs_charged_again(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    del resources
    group = await audit.charged_again(conn, await _week(conn))
    if group is None:
        return []
    return [
        notice(
            "job_charged_again",
            f"{counted(group.count, 'job was', 'jobs were')} charged for more than one submission in {WEEK}: "
            f"{named(group)}.",
            "GET /v1/jobs/{id}/submissions shows why each was submitted again; compare with the provider's bill.",
            **facts_of(group),
        )
    ]


async def unreconciled_submissions(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    del resources
    group = await audit.reconciled(conn)
    if group is None:
        return []
    return [
        notice(
            "submission_unreconciled",
            f"{counted(group.count, 'job has', 'jobs have')} ended with a submission that is still being reconciled: "
            f"{named(group)}.",
            "No action needed: workers record the final result and cost, and keep a late video.",
            **facts_of(group),
        )
    ]


async def late_videos(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    del resources
    group = await audit.late_videos(conn, await _week(conn))
    if group is None:
        return []
    return [
        notice(
            "video_late",
            f"{counted(group.count, 'video', 'videos')} of {WEEK} arrived after the job had ended: {named(group)}.",
            "If this is frequent, give such jobs longer deadlines. The videos were charged and are kept.",
            **facts_of(group),
        )
    ]


async def broken_invariants(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    del resources
    return [
        problem(
            group.name,
            f"Invariant violated: {counted(group.count, 'job', 'jobs')} {INVARIANTS[group.name]}: {named(group)}.",
            "Leave the rows as they are and report it: the cause is a bug in Filmgate or a manual change.",
            count=group.count,
            jobs=jobs(group.jobs),
        )
        for group in await audit.violations(conn, await _week(conn))
    ]


async def _week(conn: AsyncConnection) -> UUID:
    return await repository.first_id_since(conn, timedelta(days=DAYS))
