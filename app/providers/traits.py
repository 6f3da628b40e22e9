"""What a provider offers, as facts that the engine decides by."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


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

    ``lookup_proves_absence``: a look-up that finds nothing, after ``visibility_delay``, proves that nothing was
    accepted; only that permits a second purchase. ``callbacks``: an order can name a URL that the provider calls when
    the render changes. ``switches_audio``: an order can say whether it wants sound. ``reserved_options``: request
    fields that are ours, or unsafe, so never a caller's ``provider_options``.
    """

    lookup: Lookup
    bills_on: BillsOn
    poll_interval: timedelta
    lookup_proves_absence: bool = False
    visibility_delay: timedelta = timedelta(0)  # until a new record must show up in a look-up
    result_ttl: timedelta | None = None  # how long a result can be fetched
    cancels: bool = False
    callbacks: bool = False
    switches_audio: bool = False
    reserved_options: frozenset[str] = frozenset()
