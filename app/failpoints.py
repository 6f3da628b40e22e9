"""Failpoints: named places in the code where the fault suite kills the process. In production each is a no-op.

The fault suite visits every member of :class:`Failpoint`; one that no code awaits fails its test.
"""

from collections.abc import Awaitable, Callable
from enum import StrEnum


class Failpoint(StrEnum):
    """A place where a process can be killed, between two awaits that a crash may separate."""

    CREATE_ACCEPTED = "create.accepted"  # the request is valid, nothing written yet
    CREATE_COMMITTED = "create.committed"  # the job is committed, no response sent yet
    PREPARE_CLAIMED = "prepare.claimed"
    PREPARE_FETCHED = "prepare.fetched"  # the input is a file of the account, not recorded with the job yet
    PREPARE_CONVERTED = "prepare.converted"  # all inputs are ready to be sent, not recorded yet
    PREPARE_RECORDED = "prepare.recorded"
    CANCEL_WRITTEN = "cancel.written"
    CANCEL_COMMITTED = "cancel.committed"
    SUBMIT_CLAIMED = "submit.claimed"  # a free slot is claimed, the intent not written yet
    SUBMIT_WRITTEN = "submit.written"  # the intent is written, not committed yet
    SUBMIT_COMMITTED = "submit.committed"  # the intent is committed, no byte sent yet
    SUBMIT_ANSWERED = "submit.answered"  # the provider has replied, nothing written yet
    SUBMIT_RECORDED = "submit.recorded"  # the result is written, not committed yet
    CONFIRM_CLAIMED = "confirm.claimed"
    CONFIRM_ANSWERED = "confirm.answered"
    POLL_CLAIMED = "poll.claimed"
    POLL_ANSWERED = "poll.answered"
    POLL_RECORDED = "poll.recorded"
    UPSTREAM_CANCELED = "cancel.answered"  # the provider has cancelled the render, nothing written yet
    STORE_CLAIMED = "store.claimed"
    STORE_SPOOLED = "store.spooled"  # the video is spooled, not in the storage yet
    STORE_PUT = "store.put"  # the video is in the storage, not recorded yet
    STORE_RECORDED = "store.recorded"
    WATCH_CLAIMED = "watch.claimed"
    WATCH_ANSWERED = "watch.answered"
    DELIVER_CLAIMED = "deliver.claimed"
    DELIVER_SENT = "deliver.sent"  # the receiver has responded, nothing written yet
    DELIVER_RECORDED = "deliver.recorded"


Visitor = Callable[[Failpoint], Awaitable[None]]
_visitor: Visitor | None = None


async def failpoint(place: Failpoint) -> None:
    """Mark a failpoint. Calls the visitor, if there is one."""
    if _visitor is not None:
        await _visitor(place)


def visit(visitor: Visitor | None) -> None:
    """Install ``visitor``, which is called at every failpoint, or remove it. For tests."""
    global _visitor  # noqa: PLW0603  # one process, one visitor; a parameter would reach into every layer
    _visitor = visitor
