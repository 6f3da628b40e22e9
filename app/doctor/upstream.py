"""Compares the providers' lists of remote jobs with the ledger, to find remote jobs that belong to no submission."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import utc_now
from app.doctor.findings import Finding, counted, notice, one_line, problem, some
from app.ids import Prefix, decode
from app.jobs.db import audit, submissions
from app.providers.base import Holdings, Lookup, RemoteJobSummary, Unlisted
from app.providers.registry import Connection, Registry
from app.resources import Resources

#: How far back lists are read: further where a remote job carries our reference, which identifies its submission.
BY_REFERENCE = timedelta(days=7)
BY_OWNER = timedelta(hours=24)


async def examine(resources: Resources) -> tuple[list[Finding], tuple[str, ...]]:
    """Compare the list of every provider that has one. Returns findings, and the connections without a list."""
    connections = resources.registry.connections.values()
    listing = [one for one in connections if one.provider.list_call(None) is not None]
    now = utc_now()
    lists = await asyncio.gather(*(_list(one, now) for one in listing))
    findings: list[Finding] = []
    # The ledger is read after the lists: an intent is committed before it is sent, so each listed job has one by now.
    for connection, records in zip(listing, lists, strict=True):
        if isinstance(records, Unlisted):
            findings.append(_not_listed(connection.name, records))
            continue
        if not records.complete:
            findings.append(_cut_short(connection.name, records))
        async with resources.database.read() as conn:
            if _keeps_references(connection):
                findings += await _by_reference(conn, connection.name, records.records)
            else:
                findings += await _by_owner(conn, resources.registry, connection, records.records)
    return findings, tuple(one.name for one in connections if one not in listing)


async def _list(connection: Connection, now: datetime) -> Holdings | Unlisted:
    window = BY_REFERENCE if _keeps_references(connection) else BY_OWNER
    try:
        return await connection.provider.records(now - window, now)
    except Unlisted as error:
        return error


def _keeps_references(connection: Connection) -> bool:
    return connection.provider.traits.lookup is Lookup.REFERENCE


async def _by_reference(conn: AsyncConnection, name: str, records: Sequence[RemoteJobSummary]) -> list[Finding]:
    """Remote jobs whose reference is missing, or is not the id of a submission, are not ours."""
    read = ((record.remote_id, decode(Prefix.SUBMISSION, record.reference or "")) for record in records)
    ours = {remote_id: reference for remote_id, reference in read if reference is not None}
    known = await submissions.known_references(conn, set(ours.values()))
    orphans = [remote_id for remote_id, reference in ours.items() if reference not in known]
    contradicted = await audit.contradicted(conn, {one: ours[one] for one in ours if one not in orphans})
    return [*_orphaned(name, orphans), *_denied(name, sorted(contradicted))]


async def _by_owner(
    conn: AsyncConnection, registry: Registry, connection: Connection, records: Sequence[RemoteJobSummary]
) -> list[Finding]:
    """Counts the submissions of all connections to this provider: several of them may share one account."""
    names = [one.name for one in registry.connections.values() if one.provider.name == connection.provider.name]
    remote_ids = [record.remote_id for record in records]
    owned = await submissions.owned_of(conn, names, remote_ids)
    strangers = [remote_id for remote_id in remote_ids if remote_id not in owned]
    # Submissions whose reply is outstanding or was lost have no remote id; each may account for one of them.
    without_remote_id = sum(
        one.without_remote_id for one in await audit.connection_loads(conn) if one.connection in names
    )
    return _unowned(connection.name, strangers, len(strangers) - without_remote_id)


def _orphaned(name: str, remote_ids: Sequence[str]) -> list[Finding]:
    if not remote_ids:
        return []
    return [
        problem(
            "remote_job_orphaned",
            f"Connection {name} holds {counted(len(remote_ids), 'job', 'jobs')} with a reference of ours that is "
            f"not in the database: {_some(remote_ids)}.",
            "Determine where they come from (another gateway on this account, or this one before its database was "
            "restored): no job waits for them, and they may be charged.",
            connection=name,
            count=len(remote_ids),
            remote_ids=list(remote_ids),
        )
    ]


def _denied(name: str, remote_ids: Sequence[str]) -> list[Finding]:
    if not remote_ids:
        return []
    return [
        problem(
            "remote_job_denied",
            f"Connection {name} holds {counted(len(remote_ids), 'job', 'jobs')} with a reference of ours that, "
            f"according to the ledger, was never accepted or is another remote job: {_some(remote_ids)}.",
            "Compare with the provider's bill, and report it: no job waits for them.",
            connection=name,
            count=len(remote_ids),
            remote_ids=list(remote_ids),
        )
    ]


def _unowned(name: str, remote_ids: Sequence[str], count: int) -> list[Finding]:
    if count <= 0:
        return []
    return [
        notice(
            "remote_job_unowned",
            f"Connection {name} lists {counted(count, 'job', 'jobs')} of the last 24 h that may belong to no "
            f"submission of ours, among: {_some(remote_ids)}.",
            "If only this gateway uses the account, compare with the provider's bill; otherwise no action is needed.",
            connection=name,
            count=count,
            remote_ids=list(remote_ids),
        )
    ]


def _cut_short(name: str, holdings: Holdings) -> Finding:
    oldest = min((record.created_at for record in holdings.records if record.created_at), default=None)
    reach = f"only jobs since {oldest:%Y-%m-%d %H:%M} UTC were read" if oldest else "only a part of it was read"
    return notice(
        "provider_list_cut_short",
        f"Connection {name} has a long list: {reach}.",
        "Run this check more often: older remote jobs were not compared.",
        connection=name,
        count=len(holdings.records),
    )


def _not_listed(name: str, error: Unlisted) -> Finding:
    reason = one_line(str(error))
    return problem(
        "provider_not_listed",
        f"Connection {name} did not return its list: {reason}.",
        "Check its credentials and the network, then run this check again.",
        connection=name,
        reason=reason,
    )


def _some(remote_ids: Sequence[str]) -> str:
    return some(remote_ids[: audit.NAMED], len(remote_ids))
