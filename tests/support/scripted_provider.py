"""A provider in memory: an adapter that says what a test scripts, and keeps books for an auditor to compare with ours.

It is honest: a record shows up in its look-ups within the delay that its traits promise, a request whose deadline is
over is not sent, and what it says of money is true.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Self
from uuid import UUID

from app.ids import Prefix, decode
from app.providers.base import (
    SUBMISSION_HEADER,
    Absent,
    Accepted,
    Access,
    BillsOn,
    Callback,
    Canceled,
    CancelOutcome,
    Failed,
    FindOutcome,
    Finished,
    Found,
    Inconclusive,
    Ledger,
    Lookup,
    Missing,
    Pending,
    PollOutcome,
    Provider,
    ProviderRequest,
    Rejected,
    Search,
    SubmitOutcome,
    Traits,
    Unknown,
    Unreadable,
    Unsent,
)
from app.providers.download import Download
from app.providers.errors import Billed, Failure, Fault
from app.providers.http_clients import Clients
from app.providers.inputs import InputRole, InputWay
from app.providers.transport import Call, Reply, Transport, json_body
from tests.support.sample_videos import video

PRICE = Decimal("0.10")
NOTHING = Decimal(0)
VISIBLE_AFTER = 60

BUSY = Rejected(Failure(Fault.CAPACITY, retryable=True, billed=Billed.NO))
REFUSED = Rejected(Failure(Fault.INPUT, retryable=False, billed=Billed.NO))
#: What may become of a paid request: its name, whether it is accepted, and what the sender learns.
ACCEPTED, LOST, DROPPED, BUSY_NOW, REFUSED_FOR_GOOD, UNREACHABLE = (
    "accepted",
    "accepted, and the reply lost",
    "lost on its way",
    "turned away for now",
    "refused for good",
    "not sent",
)
FATES = (ACCEPTED, LOST, DROPPED, BUSY_NOW, REFUSED_FOR_GOOD, UNREACHABLE)


class Phase(StrEnum):
    """Where a render is. The last three end it without a video."""

    RENDERING = "rendering"
    FINISHED = "finished"
    FREE = "failed for free"
    BILLED = "failed, and is billed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class Sent:
    """An input as a provider got it: ``bytes`` is what was in the body, if anything was."""

    role: InputRole
    url: str | None
    bytes: bytes | None


@dataclass(slots=True)
class Record:
    """One accepted purchase. ``forgotten``: the provider does not know it any more; it was charged all the same."""

    remote_id: str
    ref: UUID
    made_at: float
    phase: Phase = Phase.RENDERING
    forgotten: bool = False
    inputs: tuple[Sent, ...] = ()


@dataclass(slots=True)
class Books:
    """What one provider knows. ``clock`` is seconds that a test let pass.

    ``fates`` are of the next paid requests, then all are accepted. ``answers`` False: nothing it says can be read.
    """

    name: str
    traits: Traits
    clock: float = 0
    answers: bool = True
    video_is_there: bool = True
    cancel_answer: CancelOutcome = CancelOutcome.CONFIRMED
    fates: deque[str] = field(default_factory=deque)
    records: dict[str, Record] = field(default_factory=dict)
    written_at: dict[UUID, float] = field(default_factory=dict)
    inputs: dict[UUID, tuple[Sent, ...]] = field(default_factory=dict)  # by our reference

    def forget(self) -> None:
        """Begin anew."""
        self.clock, self.answers, self.video_is_there = 0, True, True
        self.cancel_answer = CancelOutcome.CONFIRMED
        for kept in (self.fates, self.records, self.written_at, self.inputs):
            kept.clear()

    def accept(self, ref: UUID) -> Record:
        """Take a purchase in; one that is known by its key is the same one."""
        known = [record for record in self.records.values() if record.ref == ref]
        if known and self.traits.lookup is Lookup.REPLAY:
            return known[0]
        record = Record(f"{self.name}-{len(self.records) + 1}", ref, self.clock, inputs=self.inputs.get(ref, ()))
        self.records[record.remote_id] = record
        return record

    def charged(self, record: Record) -> Decimal:
        """The truth."""
        if record.phase is Phase.FREE or self.traits.bills_on is BillsOn.NEVER:
            return NOTHING
        on_acceptance = self.traits.bills_on is BillsOn.ACCEPTANCE
        return PRICE if on_acceptance or record.phase in {Phase.FINISHED, Phase.BILLED} else NOTHING

    def at_most(self, record: Record) -> Decimal:
        """What it may come to cost from here on."""
        under_way = record.phase is Phase.RENDERING and self.traits.bills_on is not BillsOn.NEVER
        return PRICE if under_way else self.charged(record)

    def read(self, remote_id: str) -> PollOutcome:
        """A status."""
        record = self.records.get(remote_id)
        if not self.answers:
            return Unreadable("nobody answers")
        if record is None or record.forgotten:
            return Missing()
        cost = self.charged(record)
        match record.phase:
            case Phase.RENDERING:
                return Pending()
            case Phase.FINISHED:
                return Finished((remote_id,), cost)
            case Phase.CANCELED:
                return Canceled(cost)
        billed = Billed.YES if cost else Billed.NO
        return Failed(Failure(Fault.PROVIDER, retryable=True, billed=billed), cost)

    def visible(self, ref: UUID) -> list[Record]:
        """What a look-up by our reference shows."""
        due = self.clock - self.traits.visibility_delay.total_seconds()
        return [record for record in self.records.values() if record.ref == ref and record.made_at <= due]


def traits_of(lookup: Lookup, bills_on: BillsOn, *, cancels: bool, way: InputWay = InputWay.BYTES) -> Traits:
    return Traits(
        lookup=lookup,
        bills_on=bills_on,
        poll_interval=timedelta(seconds=10),
        lookup_proves_absence=True,
        visibility_delay=timedelta(seconds=VISIBLE_AFTER),
        cancels=cancels,
        callbacks=True,
        input_ways=(way,),
        max_inline_bytes=1_000_000,
    )


#: The kinds of providers there are, by the profile of their connection.
KINDS: Mapping[str, Traits] = {
    "reference": traits_of(Lookup.REFERENCE, BillsOn.SUCCESS, cancels=True, way=InputWay.PUBLIC_URL),
    "replay": traits_of(Lookup.REPLAY, BillsOn.ACCEPTANCE, cancels=True),
    "none": traits_of(Lookup.NONE, BillsOn.ACCEPTANCE, cancels=False),
    "free": traits_of(Lookup.REFERENCE, BillsOn.NEVER, cancels=True),
}


class ScriptedProvider(Provider):
    """The adapter: every request is answered out of the books of its profile."""

    name: ClassVar[str] = "books"
    shelf: ClassVar[dict[str, Books]] = {}

    def __init__(self, transport: Transport, books: Books) -> None:
        super().__init__(transport, books.traits)
        self._books = books

    @classmethod
    def open(cls, access: Access, clients: Clients) -> Self:
        assert access.profile is not None
        books = cls.shelf.setdefault(access.profile, Books(access.profile, KINDS[access.profile]))
        return cls(access.transport(clients, "http://127.0.0.1:9", {}), books)

    # What is asked ----------------------------------------------------------------------------------------------------

    def order_call(self, order: ProviderRequest, ref: UUID, callback_url: str | None = None) -> Call:
        self._books.written_at[ref] = self._books.clock
        self._books.inputs[ref] = tuple(Sent(one.role, one.url, one.data) for one in order.inputs)
        said = {"prompt": order.prompt, "callback_url": callback_url, "inputs": [one.url for one in order.inputs]}
        return Call("POST", "/", body=json_body(said))

    async def submit(self, call: Call, deadline: float) -> SubmitOutcome:
        ref = decode(Prefix.SUBMISSION, call.headers[SUBMISSION_HEADER])
        assert ref is not None
        passed = self._books.clock - self._books.written_at[ref]
        if asyncio.get_running_loop().time() + passed >= deadline:
            return Unsent("the deadline passed before it was sent")
        fate = self._books.fates.popleft() if self._books.fates else ACCEPTED
        if fate in {ACCEPTED, LOST}:
            record = self._books.accept(ref)
            return Accepted(record.remote_id) if fate == ACCEPTED else Unknown("the reply was lost")
        refusals: Mapping[str, SubmitOutcome] = {
            DROPPED: Unknown("nobody answered"),
            BUSY_NOW: BUSY,
            REFUSED_FOR_GOOD: REFUSED,
            UNREACHABLE: Unsent("no connection"),
        }
        return refusals[fate]

    async def poll(self, remote_id: str, *, fresh: bool = False) -> PollOutcome:
        del fresh
        return self._books.read(remote_id)

    async def cancel(self, remote_id: str) -> CancelOutcome:
        record = self._books.records[remote_id]
        if not self.traits.cancels:
            return CancelOutcome.NOT_CANCELLABLE
        if not self._books.answers:
            return CancelOutcome.FAILED
        answer = self._books.cancel_answer
        if answer in {CancelOutcome.CONFIRMED, CancelOutcome.REQUESTED} and record.phase is Phase.RENDERING:
            record.phase = Phase.CANCELED
        return answer

    async def find(self, search: Search, ledger: Ledger) -> FindOutcome:
        del ledger
        if self.traits.lookup is not Lookup.REFERENCE or not self._books.answers:
            return Inconclusive("it cannot be looked up")
        found = self._books.visible(search.ref)
        return Found(found[0].remote_id) if found else Absent()

    @asynccontextmanager
    async def open_result(self, result: str, *, fresh: bool = False) -> AsyncIterator[Download]:
        del fresh
        there = self._books.video_is_there and not self._books.records[result].forgotten
        yield Download(200 if there else 404, {}, _copy())

    def read_callback(self, headers: Mapping[str, str], body: bytes) -> Callback | None:
        del headers
        named = json.loads(body)["id"]
        return Callback(named)

    # What is never translated -----------------------------------------------------------------------------------------

    def read_created(self, reply: Reply) -> Accepted | Rejected | None:
        raise NotImplementedError

    def status_call(self, remote_id: str) -> Call:
        raise NotImplementedError

    def read_status(self, remote_id: str, reply: Reply) -> PollOutcome:
        raise NotImplementedError

    def result_call(self, result: str) -> Call:
        raise NotImplementedError


async def _copy() -> AsyncIterator[bytes]:
    """A video out of memory."""
    yield video(seconds=1, width=128, height=96)


def as_connections() -> dict[str, Any]:
    """Settings: a connection of each kind, that serves a model of its own."""
    connection = {"provider": ScriptedProvider.name, "max_concurrent": 100}
    return {kind: {**connection, "profile": kind, "models": [f"books/{kind}"]} for kind in KINDS}


def as_models() -> dict[str, Any]:
    """Settings: those models."""
    model = {
        "provider": ScriptedProvider.name,
        "upstream": "video",
        "seconds": [1],
        "default_seconds": 1,
        "sizes": ["128x96"],
        "default_size": "128x96",
        "usd_per_second": str(PRICE),
        "inputs": {
            "first_frame": {"same_size": True},
            "last_frame": {"needs": ["first_frame"]},
            "reference_image": {"most": 2, "excludes": ["first_frame"], "narrowest": 0.5, "widest": 2},
        },
    }
    return {f"books/{kind}": model for kind in KINDS}
