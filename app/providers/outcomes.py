"""The vocabulary of the port: what is ordered, and everything that an upstream request can come to."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from app.providers.errors import Failure


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

    @property
    def hash(self) -> bytes:
        """SHA-256 of everything that decides what the video shows: two orders with one hash are interchangeable.

        Unlike a hash of the request's bytes it is the same for every submission of an order: the bytes also hold our
        reference, a multipart boundary, and a callback URL.
        """
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).digest()


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
    """It may or may not have been accepted. Never send it again before this is resolved.

    ``claimed``: the provider said that it accepted it, and named no record that can be this one: no look-up proves
    absence then.
    """

    detail: str
    raw: Any = field(default=None, repr=False)
    claimed: bool = False


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
    REQUESTED = "requested"  # the provider took note; polling will tell, and Missing then means canceled
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


class Likeness(StrEnum):
    """Whether a listed record may be what was ordered. Only records that are all excluded permit to buy again."""

    EXACT = "exact"  # it shows all that was sent
    DOUBT = "doubt"
    EXCLUDED = "excluded"  # it shows a prompt that cannot be ours


@dataclass(frozen=True, slots=True)
class Listed:
    """One record of a provider's list.

    ``created_at`` is by the provider's clock; ``skew`` is how far that clock seems to be ahead of ours, by the ``Date``
    of the reply: an estimate, since a proxy may have written it. ``shown`` is the record itself. ``reference`` is ours,
    where the provider keeps it. ``usable``: the id can be asked for; a record with another one can only be a doubt.
    """

    remote_id: str
    created_at: datetime | None
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    reference: str | None = None
    skew: timedelta = field(default=timedelta(0), compare=False)
    usable: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a provider's list. ``after`` asks for the next part; None: there is none."""

    records: tuple[Listed, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """A list as far as it was read, each record once.

    ``ended``: nothing comes after it. ``newest_first``: every record has a time, and none is newer than one before it.
    """

    records: tuple[Listed, ...]
    ended: bool
    newest_first: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a provider holds from some time on. ``complete`` False: its list was too long to be read to that time."""

    records: tuple[Listed, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Search:
    """What is known of a submission whose reply was lost. All times are the database's.

    ``earliest`` and ``latest`` bound when the provider can have made the record; ``now`` is when it is looked for.
    """

    order: Order
    ref: UUID
    earliest: datetime
    latest: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Rival:
    """Another submission whose outcome is open, which a listed record may belong to.

    ``interchangeable``: an equal order of the same account, so it does not matter which of the two gets the record.
    """

    order: Order
    interchangeable: bool


@dataclass(frozen=True, slots=True)
class Callback:
    """A provider's word that something happened: a reason to ask it, and nothing more."""

    remote_id: str | None = None


class Ledger(Protocol):
    """What we know about the records of the searched upstream account."""

    async def owned(self, remote_ids: Collection[str]) -> Mapping[str, datetime]:
        """Those of some remote ids that belong to a submission, and since when each is known to exist."""

    async def rivals(self) -> Sequence[Rival]:
        """The other submissions whose outcome is open."""
