"""Properties of a provider on which the engine bases its decisions."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from app.providers.inputs import InputWay


class Lookup(StrEnum):
    """How a lost reply can be resolved."""

    REPLAY = "replay"  # resending the same bytes returns the same remote job: the provider honours an idempotency key
    REFERENCE = "reference"  # the provider stores our reference and can be queried by it
    LIST = "list"  # the provider lists recent remote jobs with enough detail to match
    NONE = "none"


class BillsOn(StrEnum):
    """When the provider charges."""

    ACCEPTANCE = "acceptance"
    SUCCESS = "success"
    NEVER = "never"  # self-hosted


@dataclass(frozen=True, slots=True)
class Traits:
    """The properties of one provider. The adapter's docstring names the sources.

    ``lookup_proves_absence``: a look-up that finds nothing, after ``visibility_delay``, proves that nothing was
    accepted; only then is a second submission allowed. ``callbacks``: a create can name a URL that the provider calls
    on status changes. ``switches_audio``: a create can turn sound on or off. ``reserved_options``: request fields that
    the gateway sets, or that are unsafe; callers cannot set them in ``provider_options``. ``input_ways``: how it takes
    inputs, best first; ``max_inline_bytes`` is the limit for one in the body of a create, before any encoding.
    """

    lookup: Lookup
    bills_on: BillsOn
    poll_interval: timedelta
    lookup_proves_absence: bool = False
    visibility_delay: timedelta = timedelta(0)  # by then a look-up shows a new remote job
    result_ttl: timedelta | None = None  # how long a result can be downloaded
    cancels: bool = False
    callbacks: bool = False
    switches_audio: bool = False
    reserved_options: frozenset[str] = frozenset()
    input_ways: tuple[InputWay, ...] = ()
    max_inline_bytes: int = 0

    def most_input_bytes(self, *, fetchable: bool) -> int | None:
        """The largest input that the provider can be given; None without a limit, 0 if it can be given none.

        ``fetchable``: providers can fetch files from this gateway.
        """
        if fetchable and InputWay.PUBLIC_URL in self.input_ways:
            return None
        return self.max_inline_bytes if set(self.input_ways) - {InputWay.PUBLIC_URL} else 0
