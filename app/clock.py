"""The clock, injectable so that tests can control it.

Leases and schedules do not use it: they use the database's ``clock_timestamp()``.
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The current time in UTC, timezone-aware."""
    return datetime.now(UTC)
