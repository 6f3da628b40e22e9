"""Why a submission or a render failed: one taxonomy for all providers."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """The party or cause responsible for a failure."""

    PROMPT = "prompt"  # the prompt was refused
    INPUT = "input"  # a parameter or an input file was refused
    OUTPUT_MODERATION = "output_moderation"  # rendered, then withheld
    CAPACITY = "capacity"  # the provider has no free capacity
    QUOTA = "quota"  # the account's quota is used up
    ACCOUNT = "account"  # the credential or the account is invalid or blocked
    PROVIDER = "provider"  # an internal error of the provider
    NETWORK = "network"  # the connection to the provider failed


class Billed(StrEnum):
    """Whether the provider charges for the failure."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


#: For each fault: a stable public code and a message that is safe to show to callers.
PUBLIC = {
    Fault.PROMPT: ("prompt_refused", "The provider refused the prompt under its content policy."),
    Fault.INPUT: ("input_refused", "The provider refused a parameter or an input of the request."),
    Fault.OUTPUT_MODERATION: (
        "output_moderated",
        "The video was rendered and then withheld by the provider's output check.",
    ),
    Fault.CAPACITY: ("provider_at_capacity", "The provider had no capacity for this job."),
    Fault.QUOTA: ("provider_quota_exceeded", "The quota of the upstream account is used up."),
    Fault.ACCOUNT: ("provider_account_problem", "The provider refused the gateway's upstream account."),
    Fault.PROVIDER: ("provider_error", "The provider failed to render the video."),
    Fault.NETWORK: ("provider_unreachable", "The provider could not be reached."),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A definitive failure that a provider reports.

    ``detail`` is the provider's text: stored for operators, never shown to callers unchanged. ``retryable``: the same
    request may succeed later.
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
