"""The retry policy: decides what follows an attempt. Pure functions, without HTTP or a database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from app.backoff import jittered

#: The longest ``Retry-After`` of a receiver that is respected.
LONGEST_RETRY_AFTER = 86_400.0
GONE = 410


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver accepted the webhook."""


@dataclass(frozen=True, slots=True)
class RetryIn:
    """Make another attempt after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Make no more attempts: the receiver responded 410 Gone, or the schedule is exhausted."""


Decision = Delivered | RetryIn | GiveUp


def decide(status: int | None, retry_after: float | None, number: int, delays: Sequence[float]) -> Decision:
    """Decide what follows attempt ``number`` (from 1). ``status`` is None when there was no response.

    ``delays[n]`` is the delay before attempt ``n + 1``, ± 20 %. The receiver's ``retry_after`` may extend it, up to a
    day, but not shorten it.
    """
    if status is not None and 200 <= status < 300:
        return Delivered()
    if status == GONE or number >= len(delays):
        return GiveUp()
    return RetryIn(max(jittered(delays[number]), min(retry_after or 0.0, LONGEST_RETRY_AFTER)))


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from a ``Retry-After`` header: a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())
