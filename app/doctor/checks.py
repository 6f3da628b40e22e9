"""Runs all checks in order and collects their findings."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.doctor import dependencies, spending, stuck_jobs, upstream, webhooks
from app.doctor.findings import Finding, problem
from app.resources import Resources

Check = Callable[[Resources, AsyncConnection], Awaitable[list[Finding]]]

#: The checks of the database, in this order.
CHECKS: tuple[Check, ...] = (
    spending.broken_invariants,
    stuck_jobs.overdue_jobs,
    stuck_jobs.jobs_kept_waiting,
    stuck_jobs.unserved_lines,
    stuck_jobs.removed_connections,
    stuck_jobs.troubled_connections,
    stuck_jobs.submissions_in_doubt,
    spending.charges_possible,
    spending.jobs_charged_again,
    spending.unreconciled_submissions,
    spending.late_videos,
    webhooks.overdue_webhooks,
    webhooks.webhooks_given_up,
    webhooks.secrets_of_another_key,
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Report:
    """The findings. ``without_list`` names the connections whose provider has no list of remote jobs."""

    findings: tuple[Finding, ...]
    without_list: tuple[str, ...] = ()


async def examine(resources: Resources, *, ask_providers: bool = False) -> Report:
    """Run all checks. Nothing is changed, except for the empty object that proves that the storage is writable.

    A check that fails does not prevent the others, and is reported as a finding itself.
    """
    findings, database_usable = await dependencies.examine(resources)
    if not database_usable:
        return Report(tuple(findings))
    failed = []
    for check in CHECKS:
        try:
            async with resources.database.read() as conn:
                findings += await check(resources, conn)
        except (SQLAlchemyError, OSError) as error:
            log.warning("check failed", check=check.__name__, error=repr(error))
            failed.append(check.__name__.replace("_", " "))
    without_list: tuple[str, ...] = ()
    if ask_providers:
        try:
            found, without_list = await upstream.examine(resources)
            findings += found
        except (SQLAlchemyError, OSError) as error:
            log.warning("provider lists not compared", error=repr(error))
            failed.append("unknown remote jobs")
    if failed:
        findings.append(_not_checked(failed))
    return Report(tuple(findings), without_list)


def _not_checked(names: Sequence[str]) -> Finding:
    return problem(
        "not_checked",
        f"These checks failed with a database error: {', '.join(names)}.",
        "See the errors on standard error. Each statement may take database.command_timeout seconds.",
        checks=list(names),
    )
