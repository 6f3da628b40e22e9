"""Money that may have been spent in vain, and what must never be."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.doctor.findings import Finding, counted, facts_of, jobs, named, notice, problem
from app.jobs.db import audit, repository
from app.resources import Resources

DAYS = 7
WEEK = f"the last {DAYS} days"

#: What must never be, by the name that the audit gives it.
BROKEN = {
    "two_live_purchases": "with more than one live purchase",
    "live_job_unscheduled": "live and not on the schedule",
    "ended_job_scheduled": "ended and still on the schedule",
    "running_job_without_purchase": "under way without a live purchase",
    "live_purchase_of_no_running_job": "not under way and with a live purchase",
    "succeeded_job_without_film": "succeeded without a film",
}


async def charges_possible(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    del resources
    cost = await audit.unsettled(connection, await _week(connection))
    if cost is None:
        return []
    unpriced = f" and {cost.unpriced} without a price" if cost.unpriced else ""
    return [
        problem(
            "charge_possible",
            f"{counted(cost.tally.count, 'job', 'jobs')} of {WEEK} ended without anybody knowing whether the provider "
            f"charges, at an estimated {cost.estimated:.2f} USD{unpriced}: {named(cost.tally)}.",
            "Compare with the provider's bill.",
            estimated_usd=f"{cost.estimated:.2f}",
            unpriced=cost.unpriced,
            **facts_of(cost.tally),
        )
    ]


async def jobs_charged_again(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    del resources
    tally = await audit.charged_again(connection, await _week(connection))
    if tally is None:
        return []
    return [
        notice(
            "job_charged_again",
            f"{counted(tally.count, 'job', 'jobs')} of {WEEK} cost more than one purchase: {named(tally)}.",
            "The ledger of each (GET /v1/jobs/{id}/submissions) says why it was bought again; compare with the bill.",
            **facts_of(tally),
        )
    ]


async def watched_purchases(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    del resources
    tally = await audit.watched(connection)
    if tally is None:
        return []
    return [
        notice(
            "purchase_watched",
            f"{counted(tally.count, 'job has', 'jobs have')} ended with a purchase that is still watched: "
            f"{named(tally)}.",
            "Nothing: what the provider says yet goes into the ledger, and a late film is kept.",
            **facts_of(tally),
        )
    ]


async def late_films(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    del resources
    tally = await audit.came_late(connection, await _week(connection))
    if tally is None:
        return []
    return [
        notice(
            "film_late",
            f"{counted(tally.count, 'film', 'films')} of {WEEK} came out after the job had ended: {named(tally)}.",
            "Give such jobs longer deadlines if there are many: the films were paid for, and are kept.",
            **facts_of(tally),
        )
    ]


async def broken_invariants(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    del resources
    return [
        problem(
            tally.name,
            f"This must never be: {counted(tally.count, 'job', 'jobs')} {BROKEN[tally.name]}: {named(tally)}.",
            "Leave the rows as they are and report it: it is a mistake of Filmgate, or of a change made by hand.",
            count=tally.count,
            jobs=jobs(tally.jobs),
        )
        for tally in await audit.broken(connection, await _week(connection))
    ]


async def _week(connection: AsyncConnection) -> UUID:
    return await repository.first_id_since(connection, timedelta(days=DAYS))
