"""Compares the books after every round. What it finds is a broken promise, in words; a run ends well without any."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from uuid import UUID

from standardwebhooks import Webhook, WebhookVerificationError

from app.ids import Prefix, encode
from app.jobs.states import PUBLIC, State
from tests.faults.checks import CHECKS, is_silently_charged, stored
from tests.faults.clients import Customer, Order
from tests.faults.environment import Arena
from tests.faults.findings import Findings
from tests.faults.snapshots import Books, Entry, open_books, settled
from tests.faults.videos import Videos
from tests.support.receiver import Received

#: How long everything may take to come to its end once there are no faults any more.
SETTLE_SECONDS = 120.0


class Auditor:
    """Looks at the whole run after every round; at what has not changed since, only at what the books say."""

    def __init__(self, arena: Arena, customer: Customer) -> None:
        self._arena = arena
        self._customer = customer
        self._videos = Videos(arena.store)
        self._seen: dict[UUID, int] = {}  # jobs, with the version that was looked at
        self._heard = 0  # webhooks whose signature was looked at

    async def audit(self) -> Findings:
        """All that is not as promised, once everything has come to its end, or should have long ago."""
        await settled(self._arena.postgres.url, SETTLE_SECONDS)
        books = await open_books(self._arena.postgres.url, self._arena.sandbox_url, self._arena.secrets)
        await asyncio.to_thread(self._videos.read, books.entries)
        wrong = self._videos.wrong(books)
        findings = Findings(broken=[*self._arena.broken, *_of_all(books)])
        by_key: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in books.entries:
            by_key[entry.key].append(entry)
        for order in self._customer.orders.values():
            _count(order, by_key[order.key], wrong, findings)
        for entry in books.entries:
            problems = [problem for check in CHECKS for problem in check(entry)] + wrong.get(entry.row["id"], [])
            if self._seen.get(entry.row["id"]) != entry.row["version"]:
                problems += await asyncio.to_thread(lambda one: list(stored(one, self._arena.store)), entry)
                problems += await self._answers(entry)
                self._seen[entry.row["id"]] = entry.row["version"]
            if problems:
                findings.broken.append("\n".join([*problems, entry.told()]))
        findings.broken += await self._signatures(books)
        findings.broken += _webhooks(self._arena.receiver.received, books)
        return findings

    async def _signatures(self, books: Books) -> list[str]:
        """Every webhook that came in since the last time must be signed with the secret of its job's account."""
        accounts = {
            encode(Prefix.EVENT, one["event_id"]): self._account(entry)
            for entry in books.entries
            for one in entry.deliveries
        }
        verifiers = [
            Webhook((await self._customer.get("/v1/webhook-secret", account))["secret"])
            for account in range(len(self._arena.keys))
        ]
        news = self._arena.receiver.received[self._heard :]
        self._heard += len(news)
        problems = []
        for one in news:
            name = one.headers["webhook-id"]
            try:
                verifiers[accounts.get(name, 0)].verify(one.body, dict(one.headers))
            except WebhookVerificationError as error:
                problems.append(f"webhook {name}: {error}")
        return problems

    def _account(self, entry: Entry) -> int:
        return self._customer.orders[entry.key].account

    async def _answers(self, entry: Entry) -> list[str]:
        """What the API says of a job and of its ledger is what is written there."""
        account = self._account(entry)
        job = await self._customer.get(f"/v1/jobs/{entry.id}", account)
        ledger = await self._customer.get(f"/v1/jobs/{entry.id}/submissions", account)
        if job is None or ledger is None:
            return [f"{entry.id}: the API does not know it"]
        said = [tuple(one[name] for name in ("id", "state", "remote_id", "certainty")) for one in ledger]
        written = [
            (encode(Prefix.SUBMISSION, one["id"]), one["state"], one["remote_id"], one["charge_certainty"])
            for one in entry.submissions
        ]
        status = PUBLIC[State(entry.row["state"])][0]
        problems = [] if job["status"] == status else [f"{entry.id}: the API says {job['status']}"]
        return problems if said == written else [*problems, f"{entry.id}: the API says of its ledger: {said}"]


def _of_all(books: Books) -> Iterator[str]:
    """What is not as promised of the books as a whole."""
    if books.watched:
        yield f"{books.watched} purchases are watched without an end"
    yield from (f"the database does not guard: {name} is not there" for name in books.unguarded)
    yield from (f"a secret is in the database, in {row}" for row in books.leaks)
    for sale in books.strays:
        yield f"the sandbox sold {sale.remote_id} ({sale.prompt}); no submission of ours knows it"


def _count(order: Order, entries: Sequence[Entry], wrong: Mapping[UUID, object], findings: Findings) -> None:
    row = findings.rows[order.kind]
    if len(entries) > 1:
        findings.broken.append(f"one Idempotency-Key made {len(entries)} jobs: {[entry.id for entry in entries]}")
    row.charges += sum(len(entry.sales) for entry in entries)
    row.silent += sum(is_silently_charged(entry) for entry in entries)
    row.wrong += sum(entry.row["id"] in wrong for entry in entries)
    if order.accepted:
        there = [entry for entry in entries if entry.id == order.job_id]
        ended = bool(there) and there[0].ended
        row.accepted += 1
        row.ended += ended
        row.lost += not ended
        if not there:
            findings.broken.append(f"{order.job_id} was answered with 202, and is not there")


# What the receiver has seen -----------------------------------------------------------------------------------------


def _webhooks(received: Iterable[Received], books: Books) -> Iterator[str]:
    """Every delivered event came in, under one id always as the same bytes, and nothing else came in."""
    bodies: defaultdict[str, set[bytes]] = defaultdict(set)
    for one in received:
        bodies[one.headers["webhook-id"]].add(one.body)
    yield from (f"webhook {name} came with {len(seen)} bodies" for name, seen in bodies.items() if len(seen) > 1)
    for entry in books.entries:
        for one in entry.deliveries:
            name = encode(Prefix.EVENT, one["event_id"])
            if one["state"] == "delivered" and name not in bodies:
                yield f"{entry.id}: {name} counts as delivered, and never came in"
    owed = {encode(Prefix.EVENT, one["event_id"]) for entry in books.entries for one in entry.deliveries}
    yield from (f"webhook {name} came in, and no delivery of ours knows it" for name in bodies.keys() - owed)
