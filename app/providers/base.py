"""The provider port: the interface of an adapter, and the request sequence that all adapters share.

An adapter translates and makes no decisions. It subclasses :class:`Provider`, fills in :class:`Traits`, and implements
small pure functions: from a request to a :class:`~app.providers.transport.Call`, and from a
:class:`~app.providers.transport.Reply` to a result. The sequence around them (send, classify, never send twice, search)
is implemented here once.
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
from app.providers.download import Download
from app.providers.http_clients import Clients
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
    Listing,
    Missing,
    Page,
    Pending,
    PollOutcome,
    ProviderRequest,
    Rejected,
    RemoteJobSummary,
    Rival,
    Search,
    SubmitOutcome,
    Unknown,
    Unreadable,
    Unsent,
)
from app.providers.paging import Enough, Unlisted, read_list, skew
from app.providers.reading import obj, text
from app.providers.search import evaluate_listing, older_than_search, reaches_back
from app.providers.traits import BillsOn, Lookup, Traits
from app.providers.transport import Call, NoReply, NotSent, Reply, Transport

# Re-exported, so that an adapter needs one import.
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
    "Lookup",
    "Missing",
    "Page",
    "Pending",
    "PollOutcome",
    "Provider",
    "ProviderRequest",
    "Rejected",
    "RemoteJobSummary",
    "Rival",
    "Search",
    "SubmitOutcome",
    "Traits",
    "Unknown",
    "Unlisted",
    "Unreadable",
    "Unsent",
]

#: Carries the submission id in every paid request. Providers ignore it; operators and the sandbox match by it.
SUBMISSION_HEADER = "X-Filmgate-Submission"
EXCERPT_CHARACTERS = 10_000
#: 4xx statuses that a proxy may have written, or that leave open whether the request was executed.
INCONCLUSIVE_STATUSES = frozenset({408, 409, 421, 423, 424, 425, 499})
#: 2xx statuses that by themselves mean that the create was accepted.
ACCEPTED_STATUSES = frozenset({201, 202})
#: Error words of an intermediate proxy, or of an earlier acceptance: the request may have been accepted.
_NOT_A_REFUSAL = re.compile(
    r"time[\s_-]?(?:d[\s_-]?)?out|\bgateway\b|\bupstream|deadline[\s_-]exceeded|\beof\b|context cancell?ed|broken pipe"
    r"|econn|socket hang up|disconnected|connection (?:reset|closed|aborted)|read_response|server_error|internal_error"
    r"|already (?:created|exists|submitted|accepted)|duplicate|request_in_progress|was queued|could not be saved",
    re.IGNORECASE,
)


class Provider(ABC):
    """One connection to one provider. ``exclusive``: only this gateway submits to its account."""

    name: ClassVar[str]
    #: Whether the cursor of a list is the id of a remote job.
    pages_by_id: ClassVar[bool] = True

    def __init__(self, transport: Transport, traits: Traits, *, exclusive: bool = False) -> None:
        self.transport = transport
        self.traits = traits
        self.exclusive = exclusive

    @classmethod
    @abstractmethod
    def open(cls, access: Access, clients: Clients) -> Self:
        """Create the adapter. Nothing is sent before the first request.

        Raises:
            BadAccess: a setting is missing or invalid.
        """

    # Translation: pure and total, one pair of functions per request ---------------------------------------------------

    @abstractmethod
    def order_call(self, order: ProviderRequest, ref: UUID, callback_url: str | None = None) -> Call:
        """The create request. The same arguments give the same bytes.

        ``callback_url`` is passed only if :attr:`Traits.callbacks` is true and the gateway has a public URL.
        """

    @abstractmethod
    def read_created(self, reply: Reply) -> Accepted | Rejected | None:
        """The result of a create, or None if the reply does not have the documented shape.

        Called only for replies that :meth:`is_conclusive` accepts.
        """

    def is_conclusive(self, reply: Reply) -> bool:
        """Whether the status of a reply to a paid request can prove acceptance or refusal."""
        return 200 <= reply.status < 300 or (400 <= reply.status < 500 and reply.status not in INCONCLUSIVE_STATUSES)

    @abstractmethod
    def status_call(self, remote_id: str) -> Call: ...

    @abstractmethod
    def read_status(self, remote_id: str, reply: Reply) -> PollOutcome: ...

    @abstractmethod
    def result_call(self, result: str) -> Call:
        """The request that downloads one of :attr:`Finished.results`."""

    def cancel_call(self, remote_id: str) -> Call | None:
        """The cancel request; None if the provider has none."""
        del remote_id
        return None

    def read_canceled(self, remote_id: str, reply: Reply) -> CancelOutcome:
        del remote_id, reply
        return CancelOutcome.NOT_CANCELLABLE

    def reference_call(self, ref: UUID) -> Call | None:
        """The look-up of a remote job by our reference; None if the provider has no reliable one."""
        del ref
        return None

    def read_reference(self, reply: Reply, ref: UUID) -> FindOutcome:
        """The result of a look-up by our reference."""
        del reply, ref
        return Inconclusive("this provider stores no reference")

    def list_call(self, after: str | None) -> Call | None:
        """The request that lists remote jobs, newest first, after a cursor; None if there is no reliable list."""
        del after
        return None

    def read_page(self, reply: Reply) -> Page | None:
        """The page in a reply; None if the reply is not a list."""
        del reply
        return None

    def likeness(self, shown: Mapping[str, Any], order: ProviderRequest) -> Likeness:
        """How well a listed remote job matches a request."""
        del shown, order
        return Likeness.DOUBT

    def read_callback(self, headers: Mapping[str, str], body: bytes) -> Callback | None:
        """Parse a callback; None if it is forged or does not have the provider's shape.

        ``headers`` have lower-case names. The URL's token is already checked; this verifies the provider's signature if
        the connection has a secret for it. The content is not trusted: a callback only triggers a poll.
        """
        del headers, body
        return None

    # The request sequence, shared by all adapters ---------------------------------------------------------------------

    def create_call(self, order: ProviderRequest, ref: UUID, callback_url: str | None = None) -> Call:
        """The create request with the submission header. The same arguments give the same bytes."""
        call = self.order_call(order, ref, callback_url)
        return replace(call, headers={**call.headers, SUBMISSION_HEADER: ids.encode(ids.Prefix.SUBMISSION, ref)})

    async def submit(self, call: Call, deadline: float) -> SubmitOutcome:
        """Send a paid request once and classify the result. Raises nothing but cancellation.

        ``call`` comes from :meth:`create_call`; ``deadline`` is event-loop time.
        """
        try:
            reply = await self.transport.send_paid(call, deadline)
        except NotSent as error:
            return Unsent(str(error))
        except NoReply as error:
            return Unknown(str(error))
        outcome = self.read_created(reply) if self.is_conclusive(reply) else None
        if isinstance(outcome, Accepted) or (isinstance(outcome, Rejected) and _is_refusal(outcome)):
            return outcome
        # An HTML page with status 200 comes from a proxy; JSON, or a status for "accepted", comes from the provider.
        claimed = 200 <= reply.status < 300 and (reply.status in ACCEPTED_STATUSES or isinstance(reply.json(), dict))
        what = "accepted without a usable id" if claimed else "neither an acceptance nor a refusal"
        return Unknown(f"HTTP {reply.status}, {what}", excerpt(reply), claimed)

    async def poll(self, remote_id: str, *, fresh: bool = False) -> PollOutcome:
        """Read the status of a remote job. Raises nothing but cancellation.

        ``fresh`` uses a new connection: a kept-alive one may always reach the same replica.
        """
        try:
            reply = await self.transport.send(self.status_call(remote_id), fresh=fresh)
        except (NotSent, NoReply) as error:
            return Unreadable(str(error))
        return self.read_status(remote_id, reply)

    def open_result(self, result: str, *, fresh: bool = False) -> AbstractAsyncContextManager[Download]:
        """Stream one of :attr:`Finished.results`; the caller checks the status. ``fresh`` as in :meth:`poll`."""
        return self.transport.stream(self.result_call(result), fresh=fresh)

    async def cancel(self, remote_id: str) -> CancelOutcome:
        """Ask the provider to stop a remote job. Raises nothing but cancellation.

        Poll right before: if cancel is a deletion, it also deletes a video that has just finished, and its cost.
        """
        call = self.cancel_call(remote_id)
        if call is None:
            return CancelOutcome.NOT_CANCELLABLE
        try:
            return self.read_canceled(remote_id, await self.transport.send(call))
        except (NotSent, NoReply):
            return CancelOutcome.FAILED

    async def find(self, search: Search, ledger: Ledger) -> FindOutcome:
        """Search for the remote job of a submission whose reply was lost. Raises only what ``ledger`` raises."""
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
        return await evaluate_listing(
            listing, search, ledger, self.likeness, exclusive=self.exclusive, proves_absence=proves
        )

    async def records(self, since: datetime, now: datetime) -> Holdings:
        """The remote jobs since a time, as far back as the provider's list reaches. For audits.

        Raises:
            Unlisted: the provider has no list, or it cannot be read.
        """

        async def enough(listing: Listing) -> bool:
            return reaches_back(listing, since)

        listing = await self._list(enough, now)
        recent = (one for one in listing.records if one.created_at is None or one.created_at - one.skew >= since)
        return Holdings(tuple(recent), listing.ended or reaches_back(listing, since))

    async def _look_up(self, ref: UUID) -> FindOutcome:
        call = self.reference_call(ref)
        if call is None:
            return Inconclusive("this provider stores no reference")
        try:
            outcome = self.read_reference(await self.transport.send(call), ref)
        except (NotSent, NoReply) as error:
            return Inconclusive(str(error))
        if isinstance(outcome, Absent) and not self.traits.lookup_proves_absence:
            return Inconclusive("it is not found by our reference, which does not prove absence at this provider")
        return outcome

    async def _list(self, enough: Enough, now: datetime) -> Listing:
        async def read(after: str | None) -> Page:
            call = self.list_call(after)
            if call is None:
                raise Unlisted("this provider has no list")
            try:
                reply = await self.transport.send(call)
            except (NotSent, NoReply) as error:
                raise Unlisted(str(error)) from error
            page = self.read_page(reply)
            if page is None:
                raise Unlisted(f"HTTP {reply.status}: not a list")
            ahead = skew(reply, now)
            return replace(page, records=tuple(replace(record, skew=ahead) for record in page.records))

        async def alive(after: str) -> bool:
            return not self.pages_by_id or not isinstance(await self.poll(after), Missing | Unreadable)

        return await read_list(read, enough, alive)


def _is_refusal(rejected: Rejected) -> bool:
    """Whether a reply in the shape of a refusal is one: it names no remote job and suggests no acceptance."""
    failure = rejected.failure
    said = obj(failure.raw)
    names_a_job = any(isinstance(one.get("id"), str) and "status" in one for one in (said, obj(said.get("data"))))
    return not names_a_job and _NOT_A_REFUSAL.search(f"{failure.upstream_code} {failure.detail}") is None


def excerpt(reply: Reply) -> str:
    """The beginning of a reply's text, for operators."""
    return text(reply.text[:EXCERPT_CHARACTERS], longest=EXCERPT_CHARACTERS)
