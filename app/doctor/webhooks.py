"""Checks for webhooks that are overdue, were given up, or cannot be signed."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from app.doctor.findings import LATE_SECONDS, START_WORKERS, Finding, counted, lasting, notice, problem, some
from app.ids import Prefix, encode
from app.jobs.db import audit, repository
from app.resources import Resources
from app.webhooks import audit as webhooks

DAY_SECONDS = 86_400


async def overdue_webhooks(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    del resources
    hosts = await webhooks.overdue(conn, LATE_SECONDS)
    if not hosts:
        return []
    count, oldest = sum(host.count for host in hosts), max(host.oldest for host in hosts)
    return [
        problem(
            "webhook_overdue",
            f"{counted(count, 'webhook is', 'webhooks are')} overdue, the oldest by {lasting(oldest)}: "
            f"{_hosts(hosts)}.",
            f"{START_WORKERS} A receiver that hangs delays only its own webhooks.",
            count=count,
            oldest_seconds=round(oldest),
            hosts={host.host: host.count for host in hosts},
        )
    ]


async def webhooks_given_up(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    # The longest time from publication to the last attempt, except for receivers that asked for longer delays.
    lifetime = 1.2 * sum(resources.settings.webhooks.delays) + 2 * DAY_SECONDS
    since = await repository.first_id_since(conn, timedelta(seconds=lifetime))
    hosts = await webhooks.given_up(conn, DAY_SECONDS, since)
    if not hosts:
        return []
    count = sum(host.count for host in hosts)
    return [
        notice(
            "webhook_given_up",
            f"{counted(count, 'webhook was', 'webhooks were')} given up in the last 24 h: {_hosts(hosts)}.",
            "Tell the owners of these receivers; GET /v1/jobs/{id}/deliveries shows every attempt.",
            count=count,
            hosts={host.host: host.count for host in hosts},
        )
    ]


async def secrets_of_another_key(resources: Resources, conn: AsyncConnection) -> list[Finding]:
    accounts = await resources.webhooks.undecryptable(conn)
    if not accounts:
        return []
    names = [encode(Prefix.ACCOUNT, account_id) for account_id in accounts[: audit.NAMED]]
    return [
        problem(
            "secret_not_decryptable",
            f"{counted(len(accounts), 'webhook secret was', 'webhook secrets were')} encrypted with another key: "
            f"{some(names, len(accounts))}. The webhooks of these accounts cannot be signed.",
            "Add that key to FILMGATE_OLD_SECRET_KEYS, restart API and workers, and run: filmgate rotate",
            count=len(accounts),
            accounts=names,
        )
    ]


def _hosts(hosts: Sequence[webhooks.Undelivered]) -> str:
    return some([f"{host.host} ({host.count})" for host in hosts[: audit.NAMED]], len(hosts))
