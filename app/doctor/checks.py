"""The whole examination: every check there is, one after the other."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.doctor import dependencies, spending, stuck_jobs, upstream, webhooks
from app.doctor.findings import Finding, problem
from app.resources import Resources

Check = Callable[[Resources, AsyncConnection], Awaitable[list[Finding]]]

#: What the database is asked, in this order.
CHECKS: tuple[Check, ...] = (
    spending.broken_invariants,
    stuck_jobs.overdue_jobs,
    stuck_jobs.jobs_kept_waiting,
    stuck_jobs.unserved_lines,
    stuck_jobs.removed_connections,
    stuck_jobs.troubled_connections,
    stuck_jobs.purchases_in_doubt,
    spending.charges_possible,
    spending.jobs_charged_again,
    spending.watched_purchases,
    spending.late_films,
    webhooks.overdue_webhooks,
    webhooks.webhooks_given_up,
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. ``without_list`` are the connections that cannot be asked what they hold."""

    findings: tuple[Finding, ...]
    without_list: tuple[str, ...] = ()


async def examine(resources: Resources, *, ask_providers: bool = False) -> Report:
    """Look everywhere. Nothing is changed, but for the empty object that proves the storage.

    What breaks off does not keep the rest from being looked at, and is a finding itself.
    """
    findings, database_usable = await dependencies.examine(resources)
    if not database_usable:
        return Report(tuple(findings))
    broken_off = []
    for check in CHECKS:
        try:
            async with resources.database.read() as connection:
                findings += await check(resources, connection)
        except (SQLAlchemyError, OSError) as error:
            log.warning("check broke off", check=check.__name__, error=repr(error))
            broken_off.append(check.__name__.replace("_", " "))
    without_list: tuple[str, ...] = ()
    if ask_providers:
        try:
            found, without_list = await upstream.examine(resources)
            findings += found
        except (SQLAlchemyError, OSError) as error:
            log.warning("providers not asked", error=repr(error))
            broken_off.append("purchases that the database does not know")
    if broken_off:
        findings.append(_not_checked(broken_off))
    return Report(tuple(findings), without_list)


def _not_checked(what: Sequence[str]) -> Finding:
    return problem(
        "not_checked",
        f"The database broke off the look for {', '.join(what)}.",
        "The lines on standard error say why; one statement gets database.command_timeout seconds.",
        checks=list(what),
    )
