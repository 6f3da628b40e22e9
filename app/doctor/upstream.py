"""What the providers hold, compared with the ledger: purchases that nobody waits for."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from app.clock import utc_now
from app.doctor.findings import Finding, counted, notice, one_line, problem, some
from app.ids import Prefix, decode
from app.jobs.db import audit, submissions
from app.providers.base import Holdings, Listed, Lookup, Unlisted
from app.providers.registry import Connection, Registry
from app.resources import Resources

#: How far back a provider is asked: further where a record says by our reference whose it is.
BY_REFERENCE = timedelta(days=7)
BY_OWNER = timedelta(hours=24)


async def examine(resources: Resources) -> tuple[list[Finding], tuple[str, ...]]:
    """Ask every provider that can list what it holds; and the connections of those that cannot."""
    connections = resources.registry.connections.values()
    listing = [one for one in connections if one.provider.list_call(None) is not None]
    now = utc_now()
    lists = await asyncio.gather(*(_list(one, now) for one in listing))
    findings: list[Finding] = []
    # Only after that: every purchase in a list has its intent in the database, committed before it was sent.
    for upstream, records in zip(listing, lists, strict=True):
        if isinstance(records, Unlisted):
            findings.append(_not_listed(upstream.name, records))
            continue
        if not records.complete:
            findings.append(_cut_short(upstream.name, records))
        async with resources.database.read() as connection:
            if _keeps_references(upstream):
                findings += await _by_reference(connection, upstream.name, records.records)
            else:
                findings += await _by_owner(connection, resources.registry, upstream, records.records)
    return findings, tuple(one.name for one in connections if one not in listing)


async def _list(upstream: Connection, now: datetime) -> Holdings | Unlisted:
    window = BY_REFERENCE if _keeps_references(upstream) else BY_OWNER
    try:
        return await upstream.provider.records(now - window, now)
    except Unlisted as error:
        return error


def _keeps_references(upstream: Connection) -> bool:
    return upstream.provider.traits.lookup is Lookup.REFERENCE


async def _by_reference(connection: AsyncConnection, name: str, records: Sequence[Listed]) -> list[Finding]:
    """Records without a reference, or with one that is no submission's id, were ordered by somebody else."""
    read = ((record.remote_id, decode(Prefix.SUBMISSION, record.reference or "")) for record in records)
    ours = {remote_id: reference for remote_id, reference in read if reference is not None}
    known = await submissions.known_references(connection, set(ours.values()))
    orphans = [remote_id for remote_id, reference in ours.items() if reference not in known]
    denied = await audit.denied(connection, {one: ours[one] for one in ours if one not in orphans})
    return [*_orphaned(name, orphans), *_denied(name, sorted(denied))]


async def _by_owner(
    connection: AsyncConnection, registry: Registry, upstream: Connection, records: Sequence[Listed]
) -> list[Finding]:
    """Several connections may lead to one account."""
    names = [one.name for one in registry.connections.values() if one.provider.name == upstream.provider.name]
    remote_ids = [record.remote_id for record in records]
    owned = await submissions.owned_of(connection, names, remote_ids)
    strangers = [remote_id for remote_id in remote_ids if remote_id not in owned]
    # Purchases whose reply is still to come, or was lost, may be as many of them.
    nameless = sum(one.nameless for one in await audit.in_hand(connection) if one.connection in names)
    return _unowned(upstream.name, strangers, len(strangers) - nameless)


def _orphaned(name: str, remote_ids: Sequence[str]) -> list[Finding]:
    if not remote_ids:
        return []
    return [
        problem(
            "remote_job_orphaned",
            f"Connection {name} holds {counted(len(remote_ids), 'job', 'jobs')} with a reference of ours that the "
            f"database does not know: {_some(remote_ids)}.",
            "Find out who ordered them (another gateway on this account, or this one before its database was "
            "restored): nobody waits for them, and they may be charged.",
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
            f"Connection {name} holds {counted(len(remote_ids), 'job', 'jobs')} with a reference of ours that, by the "
            f"ledger, was never accepted or is another job's: {_some(remote_ids)}.",
            "Compare with the provider's bill, and report it: nobody waits for them.",
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
            f"Connection {name} lists {counted(count, 'job', 'jobs')} of the last 24 h that may belong to no purchase "
            f"of ours, out of: {_some(remote_ids)}.",
            "Nothing, where others use the account too; where nobody does, compare with the provider's bill.",
            connection=name,
            count=count,
            remote_ids=list(remote_ids),
        )
    ]


def _cut_short(name: str, holdings: Holdings) -> Finding:
    oldest = min((record.created_at for record in holdings.records if record.created_at), default=None)
    reach = f"it was read back to {oldest:%Y-%m-%d %H:%M} UTC only" if oldest else "only a part of it was read"
    return notice(
        "provider_list_cut_short",
        f"Connection {name} has a long list: {reach}.",
        "Ask more often; what is older was not compared.",
        connection=name,
        count=len(holdings.records),
    )


def _not_listed(name: str, error: Unlisted) -> Finding:
    reason = one_line(str(error))
    return problem(
        "provider_not_listed",
        f"Connection {name} did not hand out its list: {reason}.",
        "Check its credential and the network, then ask again.",
        connection=name,
        reason=reason,
    )


def _some(remote_ids: Sequence[str]) -> str:
    return some(remote_ids[: audit.NAMED], len(remote_ids))
