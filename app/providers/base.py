"""The port: what Filmgate asks of a provider, and the sequence that every adapter shares.

An adapter translates and never decides. It subclasses :class:`Provider`, fills :class:`Traits`, and writes small pure
functions: a :class:`~app.providers.transport.Call` out of an order, a result out of a
:class:`~app.providers.transport.Reply`. The sequence around them (send, classify, never send twice, search) lives
here, once.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, Self
from uuid import UUID

from app import ids
from app.providers.access import Access, BadAccess
from app.providers.outcomes import (
    Absent,
    Accepted,
    Callback,
    Canceled,
    CancelOutcome,
    Failed,
    FindOutcome,
    Finished,
    Found,
    Holdings,
    Inconclusive,
    Ledger,
    Likeness,
    Listed,
    Listing,
    Missing,
    Order,
    Page,
    Pending,
    PollOutcome,
    Rejected,
    Rival,
    Search,
    SubmitOutcome,
    Unknown,
    Unreadable,
    Unsent,
)
from app.providers.paging import Enough, Unlisted, read_list, skew
from app.providers.reading import obj, text
from app.providers.search import older_than_search, reaches_back, verdict
from app.providers.traits import BillsOn, Lookup, Traits
from app.providers.transport import Call, Clients, Download, NoReply, NotSent, Reply, Transport

# The port is one import: its vocabulary comes along.
__all__ = [
    "Absent",
    "Accepted",
    "Access",
    "BadAccess",
    "BillsOn",
    "Callback",
    "CancelOutcome",
    "Canceled",
    "Failed",
    "FindOutcome",
    "Finished",
    "Found",
    "Holdings",
    "Inconclusive",
    "Ledger",
    "Likeness",
    "Listed",
    "Lookup",
    "Missing",
    "Order",
    "Page",
    "Pending",
    "PollOutcome",
    "Provider",
    "Rejected",
    "Rival",
    "Search",
    "SubmitOutcome",
    "Traits",
    "Unknown",
    "Unlisted",
    "Unreadable",
    "Unsent",
]

#: Names our submission in every paid request: providers ignore it, operators and the sandbox match by it.
SUBMISSION_HEADER = "X-Filmgate-Submission"
EXCERPT_CHARACTERS = 10_000
#: Statuses of a 4xx that a proxy may have written, or that leave open what became of the request.
UNTELLING = frozenset({408, 409, 421, 423, 424, 425, 499})
#: Statuses of a 2xx that say by themselves that something was accepted.
TAKEN_IN = frozenset({201, 202})
#: Words of a proxy between us and the renderer, or of an earlier acceptance: the request may have been accepted.
_NO_REFUSAL = re.compile(
    r"time[\s_-]?(?:d[\s_-]?)?out|\bgateway\b|\bupstream|deadline[\s_-]exceeded|\beof\b|context cancell?ed|broken pipe"
    r"|econn|socket hang up|disconnected|connection (?:reset|closed|aborted)|read_response|server_error|internal_error"
    r"|already (?:created|exists|submitted|accepted)|duplicate|request_in_progress|was queued|could not be saved",
    re.IGNORECASE,
)


class Provider(ABC):
    """One connection to one provider. ``exclusive``: only this gateway orders on its account."""

    name: ClassVar[str]
    #: Whether the cursor of a list is the id of a record.
    pages_by_id: ClassVar[bool] = True

    def __init__(self, transport: Transport, traits: Traits, *, exclusive: bool = False) -> None:
        self.transport = transport
        self.traits = traits
        self.exclusive = exclusive

    @classmethod
    @abstractmethod
    def open(cls, access: Access, clients: Clients) -> Self:
        """Connects lazily: nothing is sent before the first request.

        Raises:
            BadAccess: something is missing or unknown.
        """

    # The translation: pure and total, one pair per request ------------------------------------------------------------

    @abstractmethod
    def order_call(self, order: Order, ref: UUID, callback_url: str | None = None) -> Call:
        """The paid request. The same arguments give the same bytes.

        ``callback_url`` comes only where :attr:`Traits.callbacks` is true, and then only if we can be reached.
        """

    @abstractmethod
    def read_created(self, reply: Reply) -> Accepted | Rejected | None:
        """What the provider said, or None when the reply is not in its documented shape.

        Only what :meth:`proves_something` gets here.
        """

    def proves_something(self, reply: Reply) -> bool:
        """Whether a reply to a paid request may be read at all: DESIGN §5, "What a paid POST can end in"."""
        return 200 <= reply.status < 300 or (400 <= reply.status < 500 and reply.status not in UNTELLING)

    @abstractmethod
    def status_call(self, remote_id: str) -> Call: ...

    @abstractmethod
    def read_status(self, remote_id: str, reply: Reply) -> PollOutcome: ...

    @abstractmethod
    def result_call(self, result: str) -> Call:
        """The request that fetches one of :attr:`Finished.results`."""

    def cancel_call(self, remote_id: str) -> Call | None:
        """The request that cancels, or None where the provider has none."""
        del remote_id
        return None

    def read_canceled(self, remote_id: str, reply: Reply) -> CancelOutcome:
        del remote_id, reply
        return CancelOutcome.NOT_CANCELLABLE

    def reference_call(self, ref: UUID) -> Call | None:
        """The request that looks a record up by our reference; None where there is none to trust."""
        del ref
        return None

    def read_reference(self, reply: Reply, ref: UUID) -> FindOutcome:
        """What a look-up by our reference came to."""
        del reply, ref
        return Inconclusive("this provider keeps no reference")

    def list_call(self, after: str | None) -> Call | None:
        """The request that lists recent records, newest first, from ``after`` on; None where there is none to trust."""
        del after
        return None

    def read_page(self, reply: Reply) -> Page | None:
        """The list in a reply, or None when the reply is not one."""
        del reply
        return None

    def likeness(self, shown: Mapping[str, Any], order: Order) -> Likeness:
        """Whether a listed record may be what was ordered."""
        del shown, order
        return Likeness.DOUBT

    def read_callback(self, headers: Mapping[str, str], body: bytes) -> Callback | None:
        """What a callback hints at; None when it is forged or not in the provider's shape.

        ``headers`` have lower-case names. The URL's token has been checked already: this looks at the provider's own
        signature, where the connection has a secret for it. Whatever a callback says, the provider is asked again.
        """
        del headers, body
        return None

    # The sequence: shared by all --------------------------------------------------------------------------------------

    def create_call(self, order: Order, ref: UUID, callback_url: str | None = None) -> Call:
        """The paid request, with our reference. The same arguments give the same bytes."""
        call = self.order_call(order, ref, callback_url)
        return replace(call, headers={**call.headers, SUBMISSION_HEADER: ids.encode(ids.Prefix.SUBMISSION, ref)})

    async def submit(self, call: Call, deadline: float) -> SubmitOutcome:
        """Send a paid request once, and say what came of it. Never raises but for cancellation.

        ``call`` comes from :meth:`create_call`; ``deadline`` is event-loop time.
        """
        try:
            reply = await self.transport.send_paid(call, deadline)
        except NotSent as error:
            return Unsent(str(error))
        except NoReply as error:
            return Unknown(str(error))
        outcome = self.read_created(reply) if self.proves_something(reply) else None
        if isinstance(outcome, Accepted) or (isinstance(outcome, Rejected) and _is_refusal(outcome)):
            return outcome
        # An HTML page with status 200 is somebody else's; JSON, or a word for "taken in", is the provider's.
        claimed = 200 <= reply.status < 300 and (reply.status in TAKEN_IN or isinstance(reply.json(), dict))
        what = "accepted without an id that can be used" if claimed else "which proves nothing"
        return Unknown(f"HTTP {reply.status}, {what}", excerpt(reply), claimed)

    async def poll(self, remote_id: str, *, fresh: bool = False) -> PollOutcome:
        """Ask for the state of a remote job. Never raises but for cancellation.

        ``fresh``: over a new connection, since a kept one may always end at the same of several replicas.
        """
        try:
            reply = await self.transport.send(self.status_call(remote_id), fresh=fresh)
        except (NotSent, NoReply) as error:
            return Unreadable(str(error))
        return self.read_status(remote_id, reply)

    def open_result(self, result: str, *, fresh: bool = False) -> AbstractAsyncContextManager[Download]:
        """Stream one of :attr:`Finished.results`; the caller looks at the status. ``fresh`` as in :meth:`poll`."""
        return self.transport.stream(self.result_call(result), fresh=fresh)

    async def cancel(self, remote_id: str) -> CancelOutcome:
        """Ask the provider to stop a remote job. Never raises but for cancellation.

        Poll right before: where a cancel is a deletion, a film that was just finished, and its price, go with it.
        """
        call = self.cancel_call(remote_id)
        if call is None:
            return CancelOutcome.NOT_CANCELLABLE
        try:
            return self.read_canceled(remote_id, await self.transport.send(call))
        except (NotSent, NoReply):
            return CancelOutcome.FAILED

    async def find(self, search: Search, ledger: Ledger) -> FindOutcome:
        """Look for the record of a submission whose reply was lost. Raises nothing but what ``ledger`` raises."""
        if self.traits.lookup is Lookup.REFERENCE:
            return await self._look_up(search.ref)

        async def enough(listing: Listing) -> bool:
            owned = await ledger.owned([record.remote_id for record in listing.records])
            return listing.newest_first and older_than_search(listing.records, search, owned) is not None

        try:
            listing = await self._list(enough, search.now)
        except Unlisted as error:
            return Inconclusive(str(error))
        proves = self.traits.lookup_proves_absence
        return await verdict(listing, search, ledger, self.likeness, exclusive=self.exclusive, proves_absence=proves)

    async def records(self, since: datetime, now: datetime) -> Holdings:
        """What the provider holds from ``since`` on, as far as its list reaches: for an audit.

        Raises:
            Unlisted: it has no list, or did not hand it out.
        """

        async def enough(listing: Listing) -> bool:
            return reaches_back(listing, since)

        listing = await self._list(enough, now)
        recent = (one for one in listing.records if one.created_at is None or one.created_at - one.skew >= since)
        return Holdings(tuple(recent), listing.ended or reaches_back(listing, since))

    async def _look_up(self, ref: UUID) -> FindOutcome:
        call = self.reference_call(ref)
        if call is None:
            return Inconclusive("this provider keeps no reference")
        try:
            outcome = self.read_reference(await self.transport.send(call), ref)
        except (NotSent, NoReply) as error:
            return Inconclusive(str(error))
        if isinstance(outcome, Absent) and not self.traits.lookup_proves_absence:
            return Inconclusive("it is not found by our reference, which proves nothing at this provider")
        return outcome

    async def _list(self, enough: Enough, now: datetime) -> Listing:
        async def read(after: str | None) -> Page:
            call = self.list_call(after)
            if call is None:
                raise Unlisted("this provider cannot be searched")
            try:
                reply = await self.transport.send(call)
            except (NotSent, NoReply) as error:
                raise Unlisted(str(error)) from error
            page = self.read_page(reply)
            if page is None:
                raise Unlisted(f"HTTP {reply.status}, which is not a list")
            ahead = skew(reply, now)
            return replace(page, records=tuple(replace(record, skew=ahead) for record in page.records))

        async def alive(after: str) -> bool:
            return not self.pages_by_id or not isinstance(await self.poll(after), Missing | Unreadable)

        return await read_list(read, enough, alive)


def _is_refusal(rejected: Rejected) -> bool:
    """Whether a reply in the shape of a refusal is one: it names no job, and says nothing of one that was accepted."""
    failure = rejected.failure
    said = obj(failure.raw)
    names_a_job = any(isinstance(one.get("id"), str) and "status" in one for one in (said, obj(said.get("data"))))
    return not names_a_job and _NO_REFUSAL.search(f"{failure.upstream_code} {failure.detail}") is None


def excerpt(reply: Reply) -> str:
    """The beginning of a reply, for operators."""
    return text(reply.text[:EXCERPT_CHARACTERS], longest=EXCERPT_CHARACTERS)
