"""The one way to read the time, so that a test can hold it still.

Leases and schedules never use it: they live by the database's own ``clock_timestamp()``.
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The wall clock, aware and in UTC."""
    return datetime.now(UTC)
