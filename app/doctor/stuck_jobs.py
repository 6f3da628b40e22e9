"""Work that nobody does: what waits, where, and what it waits for."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncConnection

from app.doctor.findings import (
    LATE_SECONDS,
    START_WORKERS,
    Finding,
    counted,
    facts_of,
    lasting,
    named,
    notice,
    one_line,
    problem,
)
from app.jobs.db import audit, connections, schedule, submissions
from app.jobs.db.audit import Tally, Way
from app.jobs.db.connections import Standing
from app.jobs.engine.admission import MINUTE_SECONDS
from app.resources import Resources


async def overdue_jobs(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    del resources
    return [
        problem(
            "job_overdue",
            f"The {tally.name} lane has {counted(tally.count, 'job', 'jobs')} overdue, the oldest by "
            f"{lasting(tally.oldest)}: {named(tally)}.",
            START_WORKERS,
            lane=tally.name,
            **facts_of(tally),
        )
        for tally in await audit.overdue(connection, LATE_SECONDS)
    ]


async def jobs_kept_waiting(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    tally = await _kept_waiting(resources, connection)
    if tally is not None:
        # A slot that has just become free is given away at a worker's next look: what is left after that counts.
        await asyncio.sleep(2 * resources.settings.worker.sweep_interval)
        tally = await _kept_waiting(resources, connection)
    if tally is None:
        return []
    return [
        problem(
            "job_kept_waiting",
            f"The submit lane has {counted(tally.count, 'job', 'jobs')} waiting though a connection has free slots, "
            f"the oldest for {lasting(tally.oldest)}: {named(tally)}.",
            START_WORKERS,
            lane=tally.name,
            **facts_of(tally),
        )
    ]


async def _kept_waiting(resources: Resources, connection: AsyncConnection) -> Tally | None:
    ways = await _free_ways(resources, connection)
    return await audit.kept_waiting(connection, ways, LATE_SECONDS) if ways else None


async def _free_ways(resources: Resources, connection: AsyncConnection) -> list[Way]:
    """The models that somebody waits for, on connections that would take a job now."""
    lines = await schedule.lines(connection)
    closed = await connections.closed(connection)
    slots = {holding.connection: holding.slots for holding in await audit.in_hand(connection)}
    ways: list[Way] = []
    for name, configured in resources.registry.connections.items():
        models = lines.intersection(resources.registry.models_of(name))
        if not models or name in closed or slots.get(name, 0) >= configured.max_concurrent:
            continue
        most = configured.requests_per_minute
        if most is None or await submissions.sent_within(connection, name, MINUTE_SECONDS) < most:
            ways += [Way(model, name) for model in models]
    return ways


async def unserved_lines(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    registry = resources.registry
    ways = [Way(model, name) for name in registry.connections for model in registry.models_of(name)]
    return [
        problem(
            "line_unserved",
            f"The line of {tally.name} has {counted(tally.count, 'job', 'jobs')} that no connection takes, the oldest "
            f"for {lasting(tally.oldest)}: {named(tally)}.",
            "Configure a connection for this model, or cancel them: they fail at their deadline.",
            model=tally.name,
            **facts_of(tally),
        )
        for tally in await audit.unserved(connection, ways)
    ]


async def removed_connections(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    return [
        problem(
            "connection_removed",
            f"Connection {holding.connection} is not configured any more, and has "
            f"{counted(holding.live, 'live purchase', 'live purchases')} and {holding.watched} watched.",
            "Configure it again until they have ended: nobody can fetch their films, which may be charged.",
            connection=holding.connection,
            live=holding.live,
            watched=holding.watched,
        )
        for holding in await audit.in_hand(connection)
        if holding.connection not in resources.registry.connections
    ]


async def troubled_connections(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    break_after = resources.settings.jobs.break_after
    return [
        _troubled(standing, break_after)
        for standing in await connections.standings(connection)
        if standing.name in resources.registry.connections and (standing.troubled or standing.closed_for > 0)
    ]


def _troubled(standing: Standing, break_after: int) -> Finding:
    trouble, pause = one_line(standing.trouble), lasting(standing.closed_for)
    facts = {
        "connection": standing.name,
        "failures": standing.failures,
        "trouble": trouble,
        "closed_seconds": round(standing.closed_for),
    }
    failed = f"Connection {standing.name} failed {counted(standing.failures, 'time', 'times')} in a row"
    check = "Check its credential, its balance and the network"
    if standing.closed_for == 0:
        return notice("connection_troubled", f"{failed}: {trouble}.", f"{check}.", **facts)
    if standing.failures >= break_after:
        message = f"{failed} and takes no jobs for another {pause}: {trouble}."
        return problem("connection_closed", message, f"{check}; it is tried again by itself.", **facts)
    message = f"Connection {standing.name} asked to be left alone, for another {pause}: {trouble}."
    return notice("connection_paused", message, "Nothing, unless it does so often: lower its limits.", **facts)


async def purchases_in_doubt(resources: Resources, connection: AsyncConnection) -> list[Finding]:
    tally = await audit.in_doubt(connection)
    if tally is None:
        return []
    settings = resources.settings.jobs
    decided = settings.submit_timeout + settings.unknown_wait + LATE_SECONDS
    severity, advice = (
        (notice, "Nothing yet: the workers are finding out, and buy nothing for these jobs meanwhile.")
        if tally.oldest < decided
        else (problem, "It should be known by now: check that workers run and that the provider answers.")
    )
    return [
        severity(
            "purchase_in_doubt",
            f"Whether the purchases of {counted(tally.count, 'job', 'jobs')} were accepted is not known, the oldest "
            f"for {lasting(tally.oldest)}: {named(tally)}.",
            advice,
            **facts_of(tally),
        )
    ]
