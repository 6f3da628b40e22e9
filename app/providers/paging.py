"""Reads a provider's list page by page, and tells a broken list from one that ends."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from app.providers.outcomes import Listing, Page, RemoteJobSummary
from app.providers.transport import Reply

MAX_LIST_PAGES = 10

Read = Callable[[str | None], Awaitable[Page]]
Enough = Callable[[Listing], Awaitable[bool]]
Alive = Callable[[str], Awaitable[bool]]


class Unlisted(Exception):
    """A provider's list cannot be read, at least for now. The text is for operators."""


@dataclass(slots=True)
class _Reader:
    records: dict[str, RemoteJobSummary] = field(default_factory=dict)
    newest_first: bool = True
    oldest: datetime | None = None

    def take(self, page: Page) -> bool:
        """Add a page; returns whether it has new entries. Lists repeat and reorder entries while they are read."""
        before = len(self.records)
        for record in page.records:
            if record.remote_id in self.records:
                continue
            made_at = record.created_at
            in_order = made_at is not None and (self.oldest is None or made_at <= self.oldest)
            self.newest_first, self.oldest = self.newest_first and in_order, made_at
            self.records[record.remote_id] = record
        return len(self.records) > before

    def listing(self, *, ended: bool = False) -> Listing:
        return Listing(tuple(self.records.values()), ended, self.newest_first)


async def read_list(read: Read, enough: Enough, alive: Alive) -> Listing:
    """Read a list until it ends, ``enough`` returns true, or ten pages are read.

    ``alive`` checks whether the remote job that a cursor names still exists: after a deleted one, some servers return
    an empty page, which is not the end.

    Raises:
        Unlisted: a page cannot be read, or the list broke off.
    """
    reader = _Reader()
    after: str | None = None
    for _ in range(MAX_LIST_PAGES):
        page = await read(after)
        if not page.records and after is not None and not await alive(after):
            raise Unlisted(f"the list broke off after {after}, which no longer exists")
        news = reader.take(page)
        if page.after is None:
            return reader.listing(ended=True)
        if not news or await enough(reader.listing()):
            break
        after = page.after
    return reader.listing()


def skew(reply: Reply, now: datetime) -> timedelta:
    """How far the provider's clock is ahead of ``now``, by the ``Date`` header; zero without one."""
    try:
        date = parsedate_to_datetime(reply.headers.get("date", ""))
    except (ValueError, TypeError):
        return timedelta(0)
    return date.replace(tzinfo=date.tzinfo or UTC) - now
