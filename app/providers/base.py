"""The port: what Filmgate asks of a provider, and the sequence that every adapter shares.

An adapter translates and never decides. It subclasses :class:`Provider`, fills :class:`Traits`, and writes small pure
functions: a :class:`~app.providers.transport.Call` out of an order, a result out of a
:class:`~app.providers.transport.Reply`. The sequence around them (send, classify, never send twice, search) lives
here, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Self
from uuid import UUID

from app import ids
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
    Listed,
    Missing,
    Order,
    Owned,
    Page,
    Pending,
    PollOutcome,
    Rejected,
    Search,
    SubmitOutcome,
    Unknown,
    Unreadable,
    Unsent,
)
from app.providers.reading import text
from app.providers.search import reaches_back, verdict
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
    "Listed",
    "Lookup",
    "Missing",
    "Order",
    "Owned",
    "Page",
    "Pending",
    "PollOutcome",
    "Provider",
    "Rejected",
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
MAX_LIST_PAGES = 10


class Lookup(StrEnum):
    """How the outcome of a lost reply can be found out."""

    REPLAY = "replay"  # the same bytes, sent again, give the same record: the provider knows them by a key
    REFERENCE = "reference"  # the provider keeps our reference and finds the record by it
    LIST = "list"  # the provider lists recent records with enough detail to match
    NONE = "none"


class BillsOn(StrEnum):
    """When the provider charges."""

    ACCEPTANCE = "acceptance"
    SUCCESS = "success"
    NEVER = "never"  # self-hosted


@dataclass(frozen=True, slots=True)
class Traits:
    """What an adapter's provider offers. Facts, with their source in the adapter's docstring.

    ``callbacks``: an order can name a URL that the provider calls when the render changes.
    ``switches_audio``: an order can say whether it wants sound. ``reserved_options``: request fields that are ours, or
    unsafe, so never a caller's ``provider_options``.
    """

    lookup: Lookup
    bills_on: BillsOn
    poll_interval: timedelta
    visibility_delay: timedelta = timedelta(0)  # until a new record must show up in the list
    result_ttl: timedelta | None = None  # how long a result can be fetched
    cancels: bool = False
    callbacks: bool = False
    switches_audio: bool = False
    reserved_options: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Access:
    """Where a connection leads and what opens it, as the operator set it. ``timeout`` is seconds.

    ``callback_secret`` is what the provider signs its callbacks with. ``private_results``: films may come from private
    addresses other than ``base_url``, such as an own object store.
    """

    base_url: str | None = None
    credential: str | None = field(default=None, repr=False)
    profile: str | None = None
    timeout: float = 30
    private_results: bool = False
    callback_secret: str | None = field(default=None, repr=False)

    def transport(self, clients: Clients, base_url: str, headers: Mapping[str, str]) -> Transport:
        """The way there. ``headers`` go along with every authorised request."""
        return Transport(clients, base_url, headers, timeout=self.timeout, private_results=self.private_results)


class BadAccess(Exception):
    """A connection cannot be opened like this. ``key`` is the setting at fault."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


class Unlisted(Exception):
    """A provider's list of records cannot be had (now). The text is for operators."""


class Provider(ABC):
    """One connection to one provider."""

    name: ClassVar[str]

    def __init__(self, transport: Transport, traits: Traits) -> None:
        self.transport = transport
        self.traits = traits

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

        Only 2xx and 4xx other than 408 and 409 get here: all others prove nothing.
        """

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

    def read_canceled(self, reply: Reply) -> CancelOutcome:
        del reply
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

    def read_page(self, reply: Reply, order: Order | None) -> Page | None:
        """The list in a reply, or None when the reply is not one. ``order`` is what is looked for, if anything is."""
        del reply, order
        return None

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
        outcome = self.read_created(reply) if proves_something(reply.status) else None
        return outcome or Unknown(f"HTTP {reply.status}, which does not tell whether it was accepted", excerpt(reply))

    async def poll(self, remote_id: str) -> PollOutcome:
        """Ask for the state of a remote job. Never raises but for cancellation."""
        try:
            reply = await self.transport.send(self.status_call(remote_id))
        except (NotSent, NoReply) as error:
            return Unreadable(str(error))
        return self.read_status(remote_id, reply)

    def open_result(self, result: str) -> AbstractAsyncContextManager[Download]:
        """Stream one of :attr:`Finished.results`; the caller looks at the status."""
        return self.transport.stream(self.result_call(result))

    async def cancel(self, remote_id: str) -> CancelOutcome:
        """Ask the provider to stop a remote job. Never raises but for cancellation.

        Poll right before: where a cancel is a deletion, a film that was just finished, and its price, go with it.
        """
        call = self.cancel_call(remote_id)
        if call is None:
            return CancelOutcome.NOT_CANCELLABLE
        try:
            return self.read_canceled(await self.transport.send(call))
        except (NotSent, NoReply):
            return CancelOutcome.FAILED

    async def find(self, search: Search, owned: Owned) -> FindOutcome:
        """Look for the record of a submission whose reply was lost. Raises nothing but what ``owned`` raises."""
        if self.traits.lookup is Lookup.REFERENCE:
            return await self._look_up(search.ref)
        try:
            records, complete = await self._list(search.order, search.earliest)
        except Unlisted as error:
            return Inconclusive(str(error))
        candidates = [record for record in records if record.same is not False]
        taken = await owned([record.remote_id for record in candidates]) if candidates else frozenset()
        free = [record for record in candidates if record.remote_id not in taken]
        return verdict(free, search, complete=complete)

    async def records(self, since: datetime) -> Holdings:
        """What the provider holds from ``since`` on, as far as its list reaches: for an audit.

        Raises:
            Unlisted: it has no list, or did not hand it out.
        """
        records, complete = await self._list(None, since)
        recent = (record for record in records if record.created_at is None or record.created_at >= since)
        return Holdings(tuple(recent), complete)

    async def _look_up(self, ref: UUID) -> FindOutcome:
        call = self.reference_call(ref)
        if call is None:
            return Inconclusive("this provider keeps no reference")
        try:
            return self.read_reference(await self.transport.send(call), ref)
        except (NotSent, NoReply) as error:
            return Inconclusive(str(error))

    async def _list(self, order: Order | None, since: datetime) -> tuple[list[Listed], bool]:
        """The records from ``since`` on, and whether these are all."""
        records: list[Listed] = []
        after: str | None = None
        for _ in range(MAX_LIST_PAGES):
            call = self.list_call(after)
            if call is None:
                raise Unlisted("this provider cannot be searched")
            try:
                reply = await self.transport.send(call)
            except (NotSent, NoReply) as error:
                raise Unlisted(str(error)) from error
            page = self.read_page(reply, order)
            if page is None:
                raise Unlisted(f"HTTP {reply.status}, which is not a list")
            records += page.records
            after = page.after
            if after is None or reaches_back(page, since):
                return records, True
        return records, False


def proves_something(status: int) -> bool:
    """Whether a reply to a paid request may be read at all: DESIGN §5, "What a paid POST can end in"."""
    return 200 <= status < 300 or (400 <= status < 500 and status not in (408, 409))


def excerpt(reply: Reply) -> str:
    """The beginning of a reply, for operators."""
    return text(reply.body[:2000].decode(errors="replace"))
