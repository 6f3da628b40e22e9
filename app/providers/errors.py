"""Why a purchase or a render failed, in one taxonomy for every provider."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """Whose fault a failure is."""

    PROMPT = "prompt"  # the prompt was refused
    INPUT = "input"  # a parameter or an input file was refused
    OUTPUT_MODERATION = "output_moderation"  # rendered, then withheld
    CAPACITY = "capacity"  # the provider has no room now
    QUOTA = "quota"  # our account's quota is used up
    ACCOUNT = "account"  # our credential or our account
    PROVIDER = "provider"  # the provider broke
    NETWORK = "network"  # between the provider and us


class Billed(StrEnum):
    """Whether the provider charges for the failure."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


#: The public words for each fault: a stable code and a sentence that is safe to show.
PUBLIC = {
    Fault.PROMPT: ("prompt_refused", "The provider refused the prompt under its content policy."),
    Fault.INPUT: ("input_refused", "The provider refused a parameter or an input of the request."),
    Fault.OUTPUT_MODERATION: (
        "output_moderated",
        "The film was rendered and then withheld by the provider's output check.",
    ),
    Fault.CAPACITY: ("provider_at_capacity", "The provider had no capacity for this job."),
    Fault.QUOTA: ("provider_quota_exceeded", "The quota of the upstream account is used up."),
    Fault.ACCOUNT: ("provider_account_problem", "The provider refused the gateway's upstream account."),
    Fault.PROVIDER: ("provider_error", "The provider failed to render the film."),
    Fault.NETWORK: ("provider_unreachable", "The provider could not be reached."),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A definitive "no" from a provider.

    ``detail`` is the provider's own text: kept in the ledger for operators, never shown to a client raw.
    ``retryable``: the same request, sent again, may succeed.
    """

    fault: Fault
    retryable: bool
    billed: Billed = Billed.UNKNOWN
    upstream_code: str | None = None
    detail: str = ""
    retry_after: timedelta | None = None
    raw: Any = field(default=None, repr=False)

    @property
    def code(self) -> str:
        return PUBLIC[self.fault][0]

    @property
    def message(self) -> str:
        return PUBLIC[self.fault][1]
