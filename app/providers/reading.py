"""Parsing of untrusted replies: small total functions over decoded JSON and headers.

None of them raises, whatever a provider sends; they return None for an unusable value.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from app.printable import one_line
from app.providers.scrubbing import REDACTED
from app.providers.transport import Reply

MAX_TEXT = 2000
MAX_WAIT = timedelta(days=1)
# Printable, no space, and no dot segment, because the id becomes part of a path.
# LiteLLM's ids have 242 characters; a database index allows no more than 2,000.
_REMOTE_ID = re.compile(r"(?!\.{1,2}$)[!-~]{1,2000}")


def obj(value: Any) -> Mapping[str, Any]:
    """A JSON object; empty if the value is not one."""
    return value if isinstance(value, dict) else {}


def text(value: Any, *, longest: int = MAX_TEXT) -> str:
    """A provider's text for operators: one line, without control characters."""
    return one_line(value[:longest]) if isinstance(value, str) else ""


def remote_id(value: Any) -> str | None:
    """A usable id of a remote job."""
    usable = isinstance(value, str) and _REMOTE_ID.fullmatch(value) and REDACTED not in value
    return value if usable else None


#: Above any plausible price, progress or time.
LARGEST = 10**12


def number(value: Any) -> Decimal | None:
    """A finite, non-negative number with its exact decimal value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    decimal = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    return decimal if decimal.is_finite() and 0 <= decimal < LARGEST else None


def percent(value: Any, *, whole: int = 100) -> int | None:
    """Progress as 0–100; ``whole`` is the value for complete."""
    share = number(value)
    return None if share is None else min(100, int(share * 100 / whole))


def moment(value: Any) -> datetime | None:
    """Unix seconds as a datetime."""
    seconds = number(value)
    return datetime.fromtimestamp(int(seconds), UTC) if seconds is not None and seconds < 10**11 else None


def urls(value: Any) -> tuple[str, ...]:
    """The http(s) URLs in a list, in order; a single URL counts as a list."""
    items = value if isinstance(value, list) else [value]
    return tuple(item for item in items if isinstance(item, str) and item.startswith(("https://", "http://")))


def wait(amount: str | None, unit: timedelta) -> timedelta | None:
    """A number in a header as a delay: positive, at most one day."""
    try:
        units = float(amount or "")
    except ValueError:
        return None
    return unit * min(units, MAX_WAIT / unit) if units > 0 else None


def retry_after(reply: Reply) -> timedelta | None:
    """The delay that a reply requests: ``Retry-After-Ms``, else ``Retry-After`` (seconds or a date)."""
    return requested_delay(reply.headers)


def requested_delay(headers: Mapping[str, Any]) -> timedelta | None:
    """The delay that headers with lower-case names request."""
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    return (
        wait(_word(milliseconds), timedelta(milliseconds=1))
        or wait(_word(seconds), timedelta(seconds=1))
        or _until(_word(seconds))
    )


def _word(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else ""


def _until(date: str) -> timedelta | None:
    try:
        end = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    left = end.replace(tzinfo=end.tzinfo or UTC) - datetime.now(UTC)
    return min(left, MAX_WAIT) if left > timedelta(0) else None
