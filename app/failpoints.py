"""Named places on the way of money and films where a test may kill the process. In production each is a no-op.

The names are the list of what the fault suite visits: a checkpoint that is not awaited anywhere fails its test.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum


class Checkpoint(StrEnum):
    """Where a process can be stopped. Each stands between two awaits that a crash may separate."""

    CREATE_ACCEPTED = "create.accepted"  # the order is accepted, and the database has not heard of it
    CREATE_COMMITTED = "create.committed"  # the job is committed, and the caller has no answer
    CANCEL_WRITTEN = "cancel.written"
    CANCEL_COMMITTED = "cancel.committed"
    SUBMIT_CLAIMED = "submit.claimed"  # a free slot is found, and the intent not written
    SUBMIT_WRITTEN = "submit.written"  # the intent is written, and not committed
    SUBMIT_COMMITTED = "submit.committed"  # the intent is committed, and no byte sent
    SUBMIT_ANSWERED = "submit.answered"  # the provider has answered, and we have not written it down
    SUBMIT_RECORDED = "submit.recorded"  # the outcome is written, and not committed
    CONFIRM_CLAIMED = "confirm.claimed"
    CONFIRM_ANSWERED = "confirm.answered"
    POLL_CLAIMED = "poll.claimed"
    POLL_ANSWERED = "poll.answered"
    POLL_RECORDED = "poll.recorded"
    UPSTREAM_CANCELED = "cancel.answered"  # the provider has stopped the render, and we have not written it down
    STORE_CLAIMED = "store.claimed"
    STORE_SPOOLED = "store.spooled"  # the film is here, and not in the store
    STORE_PUT = "store.put"  # the film is in the store, and the job does not know
    STORE_RECORDED = "store.recorded"
    WATCH_CLAIMED = "watch.claimed"
    WATCH_ANSWERED = "watch.answered"
    DELIVER_CLAIMED = "deliver.claimed"
    DELIVER_SENT = "deliver.sent"  # the receiver has answered, and we have not written it down
    DELIVER_RECORDED = "deliver.recorded"


Visitor = Callable[[Checkpoint], Awaitable[None]]
_visitor: Visitor | None = None


async def checkpoint(place: Checkpoint) -> None:
    """Pass a place."""
    if _visitor is not None:
        await _visitor(place)


def visit(visitor: Visitor | None) -> None:
    """From now on let ``visitor`` look at every place that is passed: for tests."""
    global _visitor  # noqa: PLW0603  # one process, one visitor; a parameter would reach into every layer
    _visitor = visitor
