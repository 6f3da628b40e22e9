"""Compares the books after every round. What it finds is a broken promise, in words; a run ends well without any."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

from standardwebhooks import Webhook, WebhookVerificationError

from app.ids import Prefix, encode
from app.jobs.states import ALLOWED, EVENTS, FILM_LATE, FINAL_EVENTS, LIVE_SUBMISSIONS, PUBLIC, State
from tests.faults.arena import Arena
from tests.faults.books import Books, Entry, open_books, settled
from tests.faults.traffic import Customer, Order
from tests.support.receiver import Received

#: How long everything may take to come to its end once there are no faults any more.
SETTLE_SECONDS = 120.0
STATES = {event: state for state, event in EVENTS.items()}


@dataclass(slots=True)
class Row:
    """What came of the orders that were made for one kind of fault."""

    accepted: int = 0
    ended: int = 0
    lost: int = 0
    charges: int = 0
    silent: int = 0


@dataclass(slots=True)
class Findings:
    """Rows by kind of fault, and everything that is not as promised."""

    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    broken: list[str] = field(default_factory=list)


class Auditor:
    """Looks at the whole run after every round; at what has not changed since, only at what the books say."""

    def __init__(self, arena: Arena, customer: Customer) -> None:
        self._arena = arena
        self._customer = customer
        self._seen: dict[UUID, int] = {}  # jobs, with the version that was looked at
        self._heard = 0  # webhooks whose signature was looked at

    async def audit(self) -> Findings:
        """All that is not as promised, once everything has come to its end, or should have long ago."""
        await settled(self._arena.postgres.url, SETTLE_SECONDS)
        books = await open_books(self._arena.postgres.url, self._arena.sandbox_url)
        findings = Findings(broken=list(self._arena.broken))
        by_key: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in books.entries:
            by_key[entry.key].append(entry)
        for order in self._customer.orders.values():
            _count(order, by_key[order.key], findings)
        if books.watched:
            findings.broken.append(f"{books.watched} purchases are watched without an end")
        findings.broken += [f"the database does not guard: {name} is not there" for name in books.unguarded]
        for sale in books.strays:
            findings.broken.append(f"the sandbox sold {sale.remote_id} ({sale.prompt}); no submission of ours knows it")
        for entry in books.entries:
            problems = [problem for check in CHECKS for problem in check(entry)]
            if self._seen.get(entry.row["id"]) != entry.row["version"]:
                problems += await asyncio.to_thread(lambda one: list(_film(one, self._arena)), entry)
                problems += await self._answers(entry)
                self._seen[entry.row["id"]] = entry.row["version"]
            if problems:
                findings.broken.append("\n".join([*problems, entry.told()]))
        findings.broken += await self._signatures()
        findings.broken += _webhooks(self._arena.receiver.received, books)
        return findings

    async def _signatures(self) -> list[str]:
        """Every webhook that came in since the last time must be well signed."""
        verifier = Webhook((await self._customer.get("/v1/webhook-secret"))["secret"])
        news = self._arena.receiver.received[self._heard :]
        self._heard += len(news)
        problems = []
        for one in news:
            try:
                verifier.verify(one.body, dict(one.headers))
            except WebhookVerificationError as error:
                problems.append(f"webhook {one.headers['webhook-id']}: {error}")
        return problems

    async def _answers(self, entry: Entry) -> list[str]:
        """What the API says of a job and of its ledger is what is written there."""
        job = await self._customer.get(f"/v1/jobs/{entry.id}")
        ledger = await self._customer.get(f"/v1/jobs/{entry.id}/submissions")
        if job is None or ledger is None:
            return [f"{entry.id}: the API does not know it"]
        said = [tuple(one[name] for name in ("id", "state", "remote_id", "charge_certainty")) for one in ledger]
        written = [
            (encode(Prefix.SUBMISSION, one["id"]), one["state"], one["remote_id"], one["charge_certainty"])
            for one in entry.submissions
        ]
        status = PUBLIC[State(entry.row["state"])][0]
        problems = [] if job["status"] == status else [f"{entry.id}: the API says {job['status']}"]
        return problems if said == written else [*problems, f"{entry.id}: the API says of its ledger: {said}"]


def _count(order: Order, entries: Sequence[Entry], findings: Findings) -> None:
    row = findings.rows[order.kind]
    if len(entries) > 1:
        findings.broken.append(f"one Idempotency-Key made {len(entries)} jobs: {[entry.id for entry in entries]}")
    row.charges += sum(len(entry.sales) for entry in entries)
    row.silent += sum(bool(list(_money(entry))) for entry in entries)
    if order.accepted:
        there = [entry for entry in entries if entry.id == order.job_id]
        ended = bool(there) and there[0].ended
        row.accepted += 1
        row.ended += ended
        row.lost += not ended
        if not there:
            findings.broken.append(f"{order.job_id} was answered with 202, and is not there")


# What must be true of every job -------------------------------------------------------------------------------------


def _money(entry: Entry) -> Iterator[str]:
    """No sale without a word in our ledger, and none twice but with a warning."""
    paid = [(sale, submission) for sale, submission in entry.sales if sale.kept]
    for sale, submission in paid:
        if submission["charge_certainty"] == "none":
            yield f"{entry.id}: the sandbox charged for {sale.remote_id}, and our ledger says that nobody did"
    if len(paid) > 1 and all(one["charge_certainty"] != "possible" for one in entry.submissions):
        yield f"{entry.id}: charged {len(paid)} times, and nothing says that it may have been"


def _state(entry: Entry) -> Iterator[str]:
    row = entry.row
    if not entry.ended:
        yield f"{entry.id}: has not ended"
    if entry.ended == row["scheduled"]:
        yield f"{entry.id}: is {row['state']}, and is {'' if row['scheduled'] else 'not '}on the schedule"
    live = [one for one in entry.submissions if one["state"] in LIVE_SUBMISSIONS]
    if len(live) > (0 if entry.ended else 1):
        yield f"{entry.id}: is {row['state']}, with {len(live)} live submissions"


def _cost(entry: Entry) -> Iterator[str]:
    """The job's figures are the sum of its submissions'."""
    certainties = {one["charge_certainty"] for one in entry.submissions}
    worst = next((word for word in ("possible", "certain") if word in certainties), "none")
    if entry.row["charge_certainty"] != worst:
        yield f"{entry.id}: charge is {entry.row['charge_certainty']}, of its submissions {worst}"
    known = [one["cost"] for one in entry.submissions if one["cost"] is not None]
    total = sum(known, Decimal(0))
    if entry.row["cost"] != total and not (entry.row["cost"] is None and not known):
        yield f"{entry.id}: cost is {entry.row['cost']}, of its submissions {total}"


def _events(entry: Entry) -> Iterator[str]:
    """The log tells a way through the table of states, forwards, with one end."""
    versions = [event["version"] for event in entry.events]
    if versions != sorted(versions):
        yield f"{entry.id}: events out of order: {versions}"
    way = [STATES[event["type"]] for event in entry.events if event["type"] in STATES]
    if not way or way[0] is not State.QUEUED:
        yield f"{entry.id}: its log does not begin with job.queued"
    for one, other in pairwise(way):
        if (one, other) not in ALLOWED:
            yield f"{entry.id}: its log says {one} → {other}, which is no move"
    ends = [event["type"] for event in entry.events if event["type"] in FINAL_EVENTS]
    if entry.ended and ends != [EVENTS[State(entry.row["state"])]]:
        yield f"{entry.id}: is {entry.row['state']}, and its log ends with {ends}"


def _owed(entry: Entry) -> Iterator[str]:
    """A job that wanted a webhook owes exactly its end, and the film that came after it; both delivered."""
    wanted = [event["type"] for event in entry.events if event["type"] in {*FINAL_EVENTS, FILM_LATE}]
    wanted = wanted if entry.row["webhook_url"] else []
    owed = [one["event_type"] for one in entry.deliveries]
    if owed != wanted:
        yield f"{entry.id}: owes the webhooks {owed} instead of {wanted}"
    if any(one["state"] != "delivered" for one in entry.deliveries):
        yield f"{entry.id}: its webhook was not delivered"


CHECKS: tuple[Callable[[Entry], Iterable[str]], ...] = (_money, _state, _cost, _events, _owed)


def _film(entry: Entry, arena: Arena) -> Iterator[str]:
    """A job that succeeded, if late, has its film and its poster, whole, in the store; no other job has any."""
    kinds = sorted(asset["kind"] for asset in entry.assets)
    late = [event for event in entry.events if event["type"] == FILM_LATE]
    if kinds != (["film", "poster"] if entry.row["state"] == State.SUCCEEDED or late else []) or len(late) > 1:
        yield f"{entry.id}: {entry.row['state']} with {kinds}"
    for asset in entry.assets:
        file = arena.store / asset["object_key"]
        content = file.read_bytes() if file.exists() else b""
        if not content or (len(content), hashlib.sha256(content).digest()) != (asset["size_bytes"], asset["sha256"]):
            yield f"{entry.id}: its {asset['kind']} is not in the store as it was recorded"


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
