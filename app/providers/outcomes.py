"""The types of the provider port: the request, and the possible results of every upstream call."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from app.providers.errors import Failure
from app.providers.inputs import InputWay, ProviderInput


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One video to submit, in the provider's terms. ``model`` is the upstream name; sizes are pixels."""

    model: str
    prompt: str
    seconds: int
    width: int
    height: int
    seed: int | None = None
    negative_prompt: str | None = None
    audio: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[ProviderInput, ...] = ()

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def unloaded(self) -> bool:
        """Whether an input goes into the body of the create and is not read yet."""
        return any(one.way is not InputWay.PUBLIC_URL and one.data is None for one in self.inputs)

    @property
    def hash(self) -> bytes:
        """SHA-256 of everything that determines the video: two requests with one hash are interchangeable.

        Unlike a hash of the request's bytes, it is the same for every submission of a request: the bytes also contain
        our reference, a multipart boundary and a callback URL.
        """
        video: dict[str, Any] = asdict(replace(self, inputs=()))
        del video["inputs"]
        if self.inputs:
            video["inputs"] = [[one.role, one.file.sha256] for one in self.inputs]
        return hashlib.sha256(json.dumps(video, sort_keys=True, separators=(",", ":")).encode()).digest()


# Results of a paid request -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """The create was accepted under ``remote_id``. ``cost_limit`` is the highest charge in USD, if known."""

    remote_id: str
    cost_limit: Decimal | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider refused the create; nothing was accepted."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Unsent:
    """It is proven that no byte of the request was sent."""

    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The create may have been accepted. Never send it again before this is resolved.

    ``claimed``: the provider confirmed acceptance but named no remote job that can be this one; then no look-up proves
    absence.
    """

    detail: str
    raw: Any = field(default=None, repr=False)
    claimed: bool = False


SubmitOutcome = Accepted | Rejected | Unsent | Unknown


# Results of a status request -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pending:
    """Not finished. ``progress`` is 0–100 if the provider tells; ``oddity`` is an unknown status word."""

    progress: int | None = None
    poll_after: timedelta | None = None
    oddity: str | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """Rendered. ``results`` locate the files, best first; ``cost`` is the final charge in USD if the provider tells."""

    results: tuple[str, ...]
    cost: Decimal | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The render failed definitively: there will be no video."""

    failure: Failure
    cost: Decimal | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Canceled:
    """The provider reports the remote job as canceled."""

    cost: Decimal | None = None
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Missing:
    """The provider does not know this id, at least for now."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """No usable reply: network error, 5xx, 429, or not the provider's shape. Poll again later."""

    detail: str
    poll_after: timedelta | None = None


PollOutcome = Pending | Finished | Failed | Canceled | Missing | Unreadable


# Results of other requests ---------------------------------------------------------------------------------------


class CancelOutcome(StrEnum):
    """The result of a cancel."""

    CONFIRMED = "confirmed"  # the provider stopped the remote job
    REQUESTED = "requested"  # the provider accepted the cancel; poll for the result, Missing then means canceled
    NOT_CANCELLABLE = "not_cancellable"  # the render will finish and stays billable
    FAILED = "failed"  # no usable reply; try again


@dataclass(frozen=True, slots=True)
class Found:
    """The provider has a remote job that can only belong to this submission."""

    remote_id: str


@dataclass(frozen=True, slots=True)
class Absent:
    """By an authoritative look-up, the provider has no such remote job."""


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """Neither presence nor absence is proven."""

    detail: str


FindOutcome = Found | Absent | Inconclusive


class Likeness(StrEnum):
    """How well a listed remote job matches a request. Only if all are EXCLUDED is a second submission allowed."""

    EXACT = "exact"  # it shows everything that was sent
    DOUBT = "doubt"  # a possible match
    EXCLUDED = "excluded"  # it shows a prompt that cannot be the submitted one


@dataclass(frozen=True, slots=True)
class RemoteJobSummary:
    """One remote job in a provider's list.

    ``created_at`` follows the provider's clock; ``skew`` estimates how far that clock is ahead of ours, by the ``Date``
    header, which a proxy may have written. ``shown`` is the listed object. ``reference`` is our reference, if the
    provider stores it. ``usable``: the id can be polled; a remote job with an unusable id can only be a possible match.
    """

    remote_id: str
    created_at: datetime | None
    shown: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    reference: str | None = None
    skew: timedelta = field(default=timedelta(0), compare=False)
    usable: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a provider's list. ``after`` is the cursor of the next page; None on the last one."""

    records: tuple[RemoteJobSummary, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The part of a list that was read, each remote job once.

    ``ended``: the list was read to its end. ``newest_first``: every entry has a time, and none is newer than one before
    it.
    """

    records: tuple[RemoteJobSummary, ...]
    ended: bool
    newest_first: bool


@dataclass(frozen=True, slots=True)
class Holdings:
    """A provider's remote jobs since some time. ``complete``: the list was read back to that time."""

    records: tuple[RemoteJobSummary, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Search:
    """A submission whose reply was lost. All times are from the database's clock.

    The provider can have created the remote job between ``earliest`` and ``latest``; ``now`` is the time of the search.
    """

    order: ProviderRequest
    ref: UUID
    earliest: datetime
    latest: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Rival:
    """Another unresolved submission that a listed remote job may belong to.

    ``interchangeable``: an equal request on the same account, so either submission may take the remote job.
    """

    order: ProviderRequest
    interchangeable: bool


@dataclass(frozen=True, slots=True)
class Callback:
    """A provider's callback: a reason to poll, not evidence."""

    remote_id: str | None = None


class Ledger(Protocol):
    """What the database knows about the remote jobs of the searched account."""

    async def owned(self, remote_ids: Collection[str]) -> Mapping[str, datetime]:
        """Which of these remote ids belong to a submission, with the time since which each is known to exist."""

    async def rivals(self) -> Sequence[Rival]:
        """The other unresolved submissions."""
