"""Checks for jobs that make no progress, and for the connections they wait for."""

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
from app.jobs.db import audit, connection_health, schedule, submissions
from app.jobs.db.audit import JobGroup, Route
from app.jobs.db.connection_health import ConnectionHealth
from app.jobs.engine.admission import MINUTE_SECONDS
from app.resources import Resources


async def overdue_jobs(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    del resources
    return [
        problem(
            "job_overdue",
            f"The {group.name} lane has {counted(group.count, 'job', 'jobs')} overdue, the oldest by "
            f"{lasting(group.oldest)}: {named(group)}.",
            START_WORKERS,
            lane=group.name,
            **facts_of(group),
        )
        for group in await audit.overdue(conn, LATE_SECONDS)
    ]


async def jobs_kept_waiting(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    group = await _stalled(resources, conn)
    if group is not None:
        # Workers fill a free slot at their next sweep: only jobs that still wait after that are reported.
        await asyncio.sleep(2 * resources.settings.worker.sweep_interval)
        group = await _stalled(resources, conn)
    if group is None:
        return []
    return [
        problem(
            "job_kept_waiting",
            f"The submit lane has {counted(group.count, 'job', 'jobs')} waiting although a connection has free slots, "
            f"the oldest for {lasting(group.oldest)}: {named(group)}.",
            START_WORKERS,
            lane=group.name,
            **facts_of(group),
        )
    ]


async def _stalled(resources: Resources, conn: AsyncConnection) -> JobGroup | None:
    routes = await _free_routes(resources, conn)
    return await audit.stalled(conn, routes, LATE_SECONDS) if routes else None


async def _free_routes(resources: Resources, conn: AsyncConnection) -> list[Route]:
    """The routes with waiting jobs whose connection would accept a job now."""
    lines = await schedule.lines(conn)
    closed = await connection_health.closed(conn)
    slots = {load.connection: load.slots for load in await audit.connection_loads(conn)}
    routes: list[Route] = []
    for name, configured in resources.registry.connections.items():
        models = lines.intersection(resources.registry.models_of(name))
        if not models or name in closed or slots.get(name, 0) >= configured.max_concurrent:
            continue
        most = configured.requests_per_minute
        if most is None or await submissions.sent_within(conn, name, MINUTE_SECONDS) < most:
            routes += [Route(model, name) for model in models]
    return routes


async def unserved_lines(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    registry = resources.registry
    routes = [Route(model, name) for name in registry.connections for model in registry.models_of(name)]
    return [
        problem(
            "line_unserved",
            f"The line of {group.name} has {counted(group.count, 'job', 'jobs')} that no connection serves, the oldest "
            f"for {lasting(group.oldest)}: {named(group)}.",
            "Configure a connection for this model; otherwise the jobs fail at their deadline.",
            model=group.name,
            **facts_of(group),
        )
        for group in await audit.unserved(conn, routes)
    ]


async def removed_connections(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    return [
        problem(
            "connection_removed",
            f"Connection {load.connection} is no longer configured, but has "
            f"{counted(load.live, 'live submission', 'live submissions')} and {load.reconciled} being reconciled.",
            "Configure it again until they have ended: without it their videos, possibly charged, cannot be fetched.",
            connection=load.connection,
            live=load.live,
            watched=load.reconciled,
        )
        for load in await audit.connection_loads(conn)
        if load.connection not in resources.registry.connections
    ]


async def troubled_connections(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    break_after = resources.settings.jobs.break_after
    return [
        _troubled(health, break_after)
        for health in await connection_health.read_all(conn)
        if health.name in resources.registry.connections and (health.failing or health.closed_for > 0)
    ]


def _troubled(health: ConnectionHealth, break_after: int) -> Finding:
    trouble, pause = one_line(health.trouble), lasting(health.closed_for)
    facts = {
        "connection": health.name,
        "failures": health.failures,
        "trouble": trouble,
        "closed_seconds": round(health.closed_for),
    }
    failed = f"Connection {health.name} failed {counted(health.failures, 'time', 'times')} in a row"
    check = "Check its credentials, its balance and the network"
    if health.closed_for == 0:
        return notice("connection_troubled", f"{failed}: {trouble}.", f"{check}.", **facts)
    if health.failures >= break_after:
        message = f"{failed} and accepts no jobs for another {pause}: {trouble}."
        return problem("connection_closed", message, f"{check}. It is retried automatically.", **facts)
    message = f"Connection {health.name} asked for a pause and accepts no jobs for another {pause}: {trouble}."
    return notice("connection_paused", message, "No action needed. If this is frequent, lower its limits.", **facts)


async def submissions_in_doubt(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    group = await audit.unresolved(conn)
    if group is None:
        return []
    settings = resources.settings.jobs
    decided = settings.submit_timeout + settings.unknown_wait + LATE_SECONDS
    severity, advice = (
        (notice, "No action needed yet: workers are resolving it, and submit these jobs nowhere else until then.")
        if group.oldest < decided
        else (problem, "This should be resolved by now: check that workers run and that the provider responds.")
    )
    return [
        severity(
            "submission_in_doubt",
            f"It is unknown whether the submissions of {counted(group.count, 'job', 'jobs')} were accepted, the oldest "
            f"for {lasting(group.oldest)}: {named(group)}.",
            advice,
            **facts_of(group),
        )
    ]
