"""Why a job failed: the error that is stored with the job and shown to its owner.

The provider's own message stays in the ledger.
"""

from collections.abc import Mapping
from typing import Any

from app.providers.errors import PUBLIC, Failure, Fault


def _failure(code: str, message: str, fault: str, *, retryable: bool) -> Mapping[str, Any]:
    return {"code": code, "message": message, "fault": fault, "retryable": retryable}


DEADLINE = _failure(
    "deadline_exceeded",
    "The job's deadline passed before a provider accepted it. Nothing is being rendered.",
    "capacity",
    retryable=True,
)
TIMEOUT = _failure(
    "timeout",
    "The provider did not finish before the job's deadline. It may still charge for the render.",
    "provider",
    retryable=True,
)
LOST = _failure(
    "upstream_lost",
    "The provider accepted the job and then no longer knew it.",
    "provider",
    retryable=True,
)
NOT_SENT_IN_TIME = _failure(
    "gateway_delayed",
    "The gateway was too slow to send the request within its time-out. Nothing was sent.",
    "gateway",
    retryable=True,
)
UNREACHABLE = _failure(*PUBLIC[Fault.NETWORK], Fault.NETWORK.value, retryable=True)
UNKNOWN = _failure(
    "upstream_outcome_unknown",
    "The provider's reply was lost and nothing can prove whether it accepted the job. It may have charged for it; "
    "whether to create another job is your decision.",
    "network",
    retryable=False,
)
CANCELED_UPSTREAM = _failure(
    "canceled_upstream",
    "The job was canceled at the provider, not by a request to this API.",
    "account",
    retryable=True,
)
ASSET_UNAVAILABLE = _failure(
    "asset_unavailable",
    "The provider finished, but its video could not be fetched or is not playable.",
    "provider",
    retryable=True,
)

INPUT_UNUSABLE = "input_unusable"


def input_unusable(message: str, *, retryable: bool) -> Mapping[str, Any]:
    """Of an input that the gateway itself found unusable; ``message`` names it."""
    return _failure(INPUT_UNUSABLE, message, Fault.INPUT.value, retryable=retryable)


#: Every code that `error.code` of a job or of a submission can have, with its meaning.
CODES: dict[str, str] = {
    failure["code"]: failure["message"]
    for failure in (DEADLINE, TIMEOUT, LOST, NOT_SENT_IN_TIME, UNKNOWN, CANCELED_UPSTREAM, ASSET_UNAVAILABLE)
} | {
    INPUT_UNUSABLE: "An input cannot be used; the message names it and says why. Nothing was sent to a provider.",
    **dict(PUBLIC.values()),
}
#: Every `fault`: a provider's, and ours.
FAULTS: tuple[str, ...] = (*(fault.value for fault in Fault), NOT_SENT_IN_TIME["fault"])


def of_provider(failure: Failure) -> Mapping[str, Any]:
    """The public error of a provider's failure."""
    return _failure(failure.code, failure.message, failure.fault.value, retryable=failure.retryable)
