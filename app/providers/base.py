"""The port: what Filmgate asks of a provider, and the sequence that every adapter shares.

An adapter translates and never decides. It subclasses :class:`Provider`, fills :class:`Traits`, and writes small pure
functions: a :class:`~app.providers.transport.Call` out of an order, a result out of a
:class:`~app.providers.transport.Reply`. The sequence around them (send, classify, never send twice) lives here, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from app.providers.errors import Failure
from app.providers.transport import Call, Download, NoReply, NotSent, Reply, Transport


@dataclass(frozen=True, slots=True)
class Order:
    """One film to buy, in the provider's terms. ``model`` is the upstream name; sizes are pixels."""

    model: str
    prompt: str
    seconds: int
    width: int
    height: int
    seed: int | None = None
    negative_prompt: str | None = None
    audio: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


# What a paid request can end in ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """Bought: the provider named its record. ``cost_limit`` is the most it may charge, in USD, where it says so."""

    remote_id: str
    cost_limit: Decimal | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused in the provider's own words: nothing was bought."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Unsent:
    """Proven: no byte of the request left this machine."""

    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may or may not have been accepted. Never send it again before this is resolved."""

    detail: str
    raw: Any = field(default=None, repr=False)


SubmitOutcome = Accepted | Rejected | Unsent | Unknown


# What a status request can end in ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pending:
    """Not finished. ``progress`` is 0–100 where the provider tells; ``oddity`` names a status word we do not know."""

    progress: int | None = None
    poll_after: timedelta | None = None
    oddity: str | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """Rendered. ``results`` say how to fetch each file, best first; ``cost`` is the final charge in USD if told."""

    results: tuple[str, ...]
    cost: Decimal | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """A definitive verdict: there will be no film."""

    failure: Failure
    cost: Decimal | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Canceled:
    """The provider says that the job was canceled."""

    cost: Decimal | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Missing:
    """The provider does not know this id (now)."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """No usable answer this time: network, 5xx, 429, or not the provider's own shape. Ask again later."""

    detail: str
    poll_after: timedelta | None = None


PollOutcome = Pending | Finished | Failed | Canceled | Missing | Unreadable


# What else may be asked ------------------------------------------------------------------------------------------


class CancelOutcome(StrEnum):
    """The three things that a cancel can come to."""

    CONFIRMED = "confirmed"  # the provider stopped it
    REQUESTED = "requested"  # the provider took note; polling will tell
    NOT_CANCELLABLE = "not_cancellable"  # it will finish, and it stays billable
    FAILED = "failed"  # no usable answer; ask again


@dataclass(frozen=True, slots=True)
class Found:
    """The provider holds a record that can only be this submission's."""

    remote_id: str


@dataclass(frozen=True, slots=True)
class Absent:
    """The provider, asked by an authoritative method, holds no such record."""


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """Neither is proven."""

    detail: str


FindOutcome = Found | Absent | Inconclusive


@dataclass(frozen=True, slots=True)
class Search:
    """What is known of a submission whose reply was lost.

    ``earliest`` and ``latest`` bound when the provider can have made the record; ``owned`` are remote ids that belong
    to other submissions.
    """

    order: Order
    ref: UUID
    earliest: datetime
    latest: datetime
    owned: frozenset[str]


class Lookup(StrEnum):
    """How the outcome of a lost reply can be found out."""

    LIST = "list"  # the provider lists recent records with enough detail to match
    NONE = "none"


class BillsOn(StrEnum):
    """When the provider charges."""

    ACCEPTANCE = "acceptance"
    SUCCESS = "success"
    NEVER = "never"  # self-hosted


@dataclass(frozen=True, slots=True)
class Traits:
    """What an adapter's provider offers. Facts, with their source in the adapter's docstring."""

    lookup: Lookup
    bills_on: BillsOn
    poll_interval: timedelta
    visibility_delay: timedelta = timedelta(0)  # until a new record must show up in the list
    result_ttl: timedelta | None = None  # how long a result can be fetched
    cancels: bool = False


class Provider(ABC):
    """One connection to one provider."""

    name: ClassVar[str]
    default_base_url: ClassVar[str | None] = None

    def __init__(self, transport: Transport, traits: Traits) -> None:
        self.transport = transport
        self.traits = traits

    # The translation: pure, one pair per request --------------------------------------------------------------------

    @abstractmethod
    def create_call(self, order: Order, ref: UUID) -> Call:
        """The paid request. The same order and ref give the same bytes."""

    @abstractmethod
    def read_created(self, reply: Reply) -> Accepted | Rejected | None:
        """What the provider said, or None when the reply is not in its documented shape."""

    @abstractmethod
    def status_call(self, remote_id: str) -> Call: ...

    @abstractmethod
    def read_status(self, reply: Reply) -> PollOutcome: ...

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

    def list_call(self, search: Search) -> Call | None:
        """The request that lists recent records, or None where there is none to trust."""
        del search
        return None

    def read_list(self, reply: Reply, search: Search) -> FindOutcome:
        del reply, search
        return Inconclusive("this provider cannot be searched")

    # The sequence: shared by all --------------------------------------------------------------------------------------

    async def submit(self, call: Call, timeout: float) -> SubmitOutcome:
        """Send a paid request once, and say what came of it. Never raises but for cancellation.

        ``call`` comes from :meth:`create_call`; ``timeout`` is seconds until the absolute send deadline.
        """
        try:
            reply = await self.transport.send_paid(call, timeout)
        except NotSent as error:
            return Unsent(str(error))
        except NoReply as error:
            return Unknown(str(error))
        return self.read_created(reply) or Unknown(f"HTTP {reply.status}, not in the documented shape", excerpt(reply))

    async def poll(self, remote_id: str) -> PollOutcome:
        """Ask for the state of a remote job. Never raises but for cancellation."""
        try:
            reply = await self.transport.send(self.status_call(remote_id))
        except (NotSent, NoReply) as error:
            return Unreadable(str(error))
        return self.read_status(reply)

    def open_result(self, result: str) -> AbstractAsyncContextManager[Download]:
        """Stream one of :attr:`Finished.results`; the caller looks at the status."""
        return self.transport.stream(self.result_call(result))

    async def cancel(self, remote_id: str) -> CancelOutcome:
        """Ask the provider to stop a remote job. Never raises but for cancellation."""
        call = self.cancel_call(remote_id)
        if call is None:
            return CancelOutcome.NOT_CANCELLABLE
        try:
            return self.read_canceled(await self.transport.send(call))
        except (NotSent, NoReply):
            return CancelOutcome.FAILED

    async def find(self, search: Search) -> FindOutcome:
        """Look for the record of a submission whose reply was lost. Never raises but for cancellation."""
        call = self.list_call(search)
        if call is None:
            return Inconclusive("this provider cannot be searched")
        try:
            return self.read_list(await self.transport.send(call), search)
        except (NotSent, NoReply) as error:
            return Inconclusive(str(error))


def excerpt(reply: Reply) -> str:
    """The beginning of a reply, for operators."""
    return reply.body[:2000].decode(errors="replace")
