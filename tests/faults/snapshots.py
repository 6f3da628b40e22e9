"""Two sets of books: what we have written about jobs, read straight from Postgres, and what the sandbox sold."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Self
from uuid import UUID

import aiohttp
import asyncpg

from app.ids import Prefix, decode, encode

JOBS = """
    select jobs.*, jobs.metadata->>'order' as order_key, jobs.request->>'prompt' as prompt,
        schedule.job_id is not null as scheduled, schedule.lane
    from jobs left join schedule on schedule.job_id = jobs.id order by jobs.id
"""
SUBMISSIONS = "select * from submissions order by job_id, number"
EVENTS = "select subject_id, type, version from events order by seq"
TABLES = "select quote_ident(table_name) from information_schema.tables where table_schema = 'public' order by 1"
#: Rows with one of some secrets anywhere in them, whatever the column; also where bytes are shown as hex.
LEAKS = """
    select left(one::text, 80) from {table} as one
    where exists (
        select from unnest($1::text[]) as secret
        where strpos(one::text, secret) > 0 or strpos(one::text, encode(secret::bytea, 'hex')) > 0
    )
"""
ASSETS = "select * from assets where deleted_at is null"
DELIVERIES = "select * from webhook_deliveries order by id"
WATCHED = "select count(*) from watches"
UNSETTLED = """
    select exists (select from jobs where finished_at is null) or exists (select from watches)
        or exists (select from webhook_deliveries where state = 'pending')
"""
# What the database itself must refuse: unique indexes that hold, and triggers that fire.
GUARDS = """
    select indexrelid::regclass::text from pg_index where indisunique and indisvalid
    union all
    select tgname::text from pg_trigger where tgenabled = 'O' and not tgisinternal
"""
REFUSALS = frozenset(
    {"uq_submissions_live", "uq_submissions_remote", "jobs_end_is_final"}
    | {"jobs_scheduled_when_made", "jobs_not_scheduled_at_the_end", "schedule_is_of_live_jobs"}
)
LOOK_AGAIN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sale:
    """One create that the sandbox accepted. ``kept``: it keeps money for it, or may; ``free``: it never bills."""

    reference: UUID | None
    remote_id: str
    prompt: str
    state: str
    kept: bool
    free: bool = False
    pictures: tuple[str, ...] = ()  # SHA-256 of each picture that came with it

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        cost, free = entry["final_cost"], Decimal(entry["charged_usd"]) == 0
        return cls(
            reference=decode(Prefix.SUBMISSION, entry["reference"] or ""),
            remote_id=entry["remote_id"],
            prompt=entry["prompt"],
            state=entry["state"],
            kept=not free and (cost is None or Decimal(cost) > 0),
            free=free,
            pictures=tuple(one["sha256"] for one in entry["inputs"]),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One job of ours with all that hangs on it."""

    row: asyncpg.Record
    submissions: list[asyncpg.Record] = field(default_factory=list)
    events: list[asyncpg.Record] = field(default_factory=list)
    assets: list[asyncpg.Record] = field(default_factory=list)
    deliveries: list[asyncpg.Record] = field(default_factory=list)
    sales: list[tuple[Sale, asyncpg.Record]] = field(default_factory=list)  # each with the submission behind it

    @property
    def id(self) -> str:
        return encode(Prefix.JOB, self.row["id"])

    @property
    def key(self) -> str:
        key: str = self.row["order_key"]
        return key

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The inputs of the job, as they are stored with it."""
        inputs: list[dict[str, Any]] = json.loads(self.row["request"]).get("inputs", [])
        return inputs

    @property
    def ended(self) -> bool:
        return self.row["finished_at"] is not None

    def told(self) -> str:
        """All that somebody needs to know who looks for the fault."""
        lines = [f"{self.id}: {self.row['state']}, in lane {self.row['lane']}, notice: {self.row['notice']}"]
        for one in self.submissions:
            name = encode(Prefix.SUBMISSION, one["id"])
            facts = f"{one['state']}, charge {one['charge_certainty']}, cost {one['cost']}"
            lines.append(f"  {name} at {one['connection']} as {one['remote_id']}: {facts}: {one['detail']}")
        lines += (f"  sold {sale.remote_id} for {_name(sale.reference)}: {sale.state}" for sale, _ in self.sales)
        lines += (f"  webhook {one['event_type']}: {one['state']}" for one in self.deliveries)
        lines.append(f"  events: {' '.join(event['type'] for event in self.events)}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Books:
    """Both, at one moment. ``strays`` are sales that none of our submissions can explain.

    ``watched``: how many purchases are still looked at after their job has ended. ``unguarded``: guards of the database
    that are not there. ``leaks``: rows that hold a secret.
    """

    entries: list[Entry]
    sales: list[Sale]
    strays: list[Sale]
    watched: int
    unguarded: list[str]
    leaks: list[str]


async def settled(postgres_url: str, longest: float) -> None:
    """Return once every job has ended, every webhook is delivered and nothing is watched; or after so many seconds."""
    connection = await asyncpg.connect(postgres_url)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(longest):
                while await connection.fetchval(UNSETTLED):  # noqa: ASYNC110  # nobody but the books knows
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
    finally:
        await connection.close()


async def open_books(postgres_url: str, sandbox_url: str, secrets: Sequence[str]) -> Books:
    """Read both; the sandbox's first: what it has sold by then must have been written down before.

    ``secrets`` are looked for in every row of the database.
    """
    async with aiohttp.ClientSession() as session, session.get(f"{sandbox_url}/ledger") as reply:
        sales = [Sale.read(entry) for entry in (await reply.json())["entries"]]
    connection = await asyncpg.connect(postgres_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            entries = {row["id"]: Entry(row) for row in await connection.fetch(JOBS)}
            submissions = await connection.fetch(SUBMISSIONS)
            for row in submissions:
                entries[row["job_id"]].submissions.append(row)
            for row in await connection.fetch(EVENTS):
                entries[row["subject_id"]].events.append(row)
            for row in await connection.fetch(ASSETS):
                entries[row["job_id"]].assets.append(row)
            for row in await connection.fetch(DELIVERIES):
                entries[row["subject_id"]].deliveries.append(row)
            watched: int = await connection.fetchval(WATCHED)
            guards = {row[0] for row in await connection.fetch(GUARDS)}
            leaks = await _leaks(connection, secrets)
    finally:
        await connection.close()
    strays = _attribute(sales, submissions, entries)
    return Books(list(entries.values()), sales, strays, watched, sorted(REFUSALS - guards), leaks)


async def _leaks(connection: asyncpg.Connection, secrets: Sequence[str]) -> list[str]:
    leaks = []
    for (table,) in await connection.fetch(TABLES):
        leaks += [f"{table}: {row[0]}" for row in await connection.fetch(LEAKS.format(table=table), secrets)]
    return leaks


def _attribute(
    sales: Sequence[Sale], submissions: Sequence[asyncpg.Record], entries: Mapping[UUID, Entry]
) -> list[Sale]:
    """Give each sale to the job that it was made for; those of no job are returned.

    Orders with equal prompts cannot be told apart in a provider's list: each may have taken the other's record. So a
    sale belongs to the submission that holds its record, where the prompt is the same; else to the one that sent the
    request, or, when that holds the record of an equal prompt, to the one that sent that, and so on.
    """
    holders = {row["remote_id"]: row for row in submissions if row["remote_id"] is not None}
    senders = {row["id"]: row for row in submissions}
    sent = {sale.remote_id: senders.get(sale.reference) for sale in sales if sale.reference is not None}
    prompts = {sale.remote_id: sale.prompt for sale in sales}
    strays = []
    for sale in sales:
        found, seen = holders.get(sale.remote_id), {sale.remote_id}
        if found is None or entries[found["job_id"]].row["prompt"] != sale.prompt:
            found = sent.get(sale.remote_id)
            while (
                found is not None and prompts.get(found["remote_id"]) == sale.prompt and found["remote_id"] not in seen
            ):
                seen.add(found["remote_id"])
                found = sent.get(found["remote_id"])
        if found is None:
            strays.append(sale)
        else:
            entries[found["job_id"]].sales.append((sale, found))
    return strays


def _name(reference: UUID | None) -> str:
    return encode(Prefix.SUBMISSION, reference) if reference else "nobody"
