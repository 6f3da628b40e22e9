"""What a provider's list of records says about a submission whose reply was lost."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.providers.outcomes import Absent, FindOutcome, Found, Inconclusive, Listed, Page, Search

#: How far a provider's clock may be off from ours when its records are matched with our submissions.
CLOCK_SLACK = timedelta(minutes=5)


def verdict(free: Sequence[Listed], search: Search, *, complete: bool) -> FindOutcome:
    """What a provider's list says about a submission.

    ``free`` are its records that belong to nobody yet; ``complete``: the list reaches back past ``search.earliest``. Of
    several records that are exactly what was ordered the oldest is taken: equal orders are interchangeable, and each is
    taken once. What is the order but for its time is a doubt: the provider's clock may be wrong.
    """
    timely = [record for record in free if _in_window(record.created_at, search)]
    exact = [record for record in timely if record.same]
    if exact:
        return Found(min(exact, key=lambda record: record.created_at or search.earliest).remote_id)
    untimely = [record for record in free if record.same and record not in timely]
    doubtful = [record.remote_id for record in [*timely, *untimely] if record.same is None or record.same]
    if doubtful:
        return Inconclusive(f"may be one of: {', '.join(doubtful[:10])}")
    return Absent() if complete else Inconclusive("the list does not reach back far enough")


def _in_window(created_at: datetime | None, search: Search) -> bool:
    # A record without a time might be the one.
    return created_at is None or search.earliest - CLOCK_SLACK <= created_at <= search.latest + CLOCK_SLACK


def reaches_back(page: Page, earliest: datetime) -> bool:
    """Whether all of a list that can matter, from ``earliest`` on, has been seen with this page."""
    times = [record.created_at for record in page.records if record.created_at is not None]
    # A server that does not list the newest first would hide them on a later page.
    newest_first = times == sorted(times, reverse=True) and len(times) == len(page.records)
    return newest_first and bool(times) and times[-1] < earliest - CLOCK_SLACK
