"""What must be true of every job by itself, once it has ended. Each check yields broken promises in words."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import asyncpg

from app.events.types import EventType
from app.jobs.states import ALLOWED, EVENTS, FINAL_EVENTS, LIVE_SUBMISSIONS, UNSUBMITTED, State, SubmissionState
from tests.faults.pictures import picture_of
from tests.faults.snapshots import Entry

STATES = {event: state for state, event in EVENTS.items()}
NOTHING_BOUGHT = frozenset({SubmissionState.REJECTED, SubmissionState.ABSENT})


def _money(entry: Entry) -> Iterator[str]:
    """No sale without a word in our ledger, and none twice but with a warning."""
    paid = [(sale, submission) for sale, submission in entry.sales if sale.kept]
    for sale, submission in paid:
        if submission["charge_certainty"] == "none":
            yield f"{entry.id}: the sandbox charged for {sale.remote_id}, and our ledger says that nobody did"
    if len(paid) > 1 and all(one["charge_certainty"] != "possible" for one in entry.submissions):
        yield f"{entry.id}: charged {len(paid)} times, and nothing says that it may have been"


def _rendered(entry: Entry) -> Iterator[str]:
    """A provider that never bills renders a job again only when the ledger says why the first render was given up."""
    free = sorted((one for one in entry.sales if one[0].free), key=lambda one: one[1]["number"])
    for sale, submission in free:
        if submission["state"] in NOTHING_BOUGHT:
            yield f"{entry.id}: the sandbox accepted {sale.remote_id}, and our ledger says that it did not"
    for (sale, submission), (other, later) in pairwise(free):
        if submission["id"] == later["id"] or not _is_given_up(submission):
            yield f"{entry.id}: rendered as {sale.remote_id} and again as {other.remote_id}, and nothing says why"


def _is_given_up(submission: asyncpg.Record) -> bool:
    """Whether the ledger allows another purchase after this one: it was lost, or in doubt, or its render failed."""
    in_doubt = submission["state"] == SubmissionState.ABANDONED or submission["charge_certainty"] == "possible"
    failed = submission["state"] == SubmissionState.DONE and submission["failure"] is not None
    return in_doubt or failed or submission["late"]


def _state(entry: Entry) -> Iterator[str]:
    row = entry.row
    if not entry.ended:
        yield f"{entry.id}: has not ended"
    if entry.ended == row["scheduled"]:
        yield f"{entry.id}: is {row['state']}, and is {'' if row['scheduled'] else 'not '}on the schedule"
    live = [one for one in entry.submissions if one["state"] in LIVE_SUBMISSIONS]
    if len(live) > (0 if entry.ended else 1):
        yield f"{entry.id}: is {row['state']}, with {len(live)} live submissions"


def _cost(entry: Entry) -> Iterator[str]:
    """The job's figures are the sum of its submissions'."""
    certainties = {one["charge_certainty"] for one in entry.submissions}
    worst = next((word for word in ("possible", "certain") if word in certainties), "none")
    if entry.row["charge_certainty"] != worst:
        yield f"{entry.id}: charge is {entry.row['charge_certainty']}, of its submissions {worst}"
    known = [one["cost"] for one in entry.submissions if one["cost"] is not None]
    total = sum(known, Decimal(0))
    if entry.row["cost"] != total and not (entry.row["cost"] is None and not known):
        yield f"{entry.id}: cost is {entry.row['cost']}, of its submissions {total}"


def _events(entry: Entry) -> Iterator[str]:
    """The log tells a way through the table of states, forwards, with one end."""
    versions = [event["version"] for event in entry.events]
    if versions != sorted(versions):
        yield f"{entry.id}: events out of order: {versions}"
    way = [STATES[event["type"]] for event in entry.events if event["type"] in STATES]
    if not way or way[0] not in UNSUBMITTED:
        yield f"{entry.id}: its log begins with {way[:1]}"
    for one, other in pairwise(way):
        if (one, other) not in ALLOWED:
            yield f"{entry.id}: its log says {one} → {other}, which is no move"
    ends = [event["type"] for event in entry.events if event["type"] in FINAL_EVENTS]
    if entry.ended and ends != [EVENTS[State(entry.row["state"])]]:
        yield f"{entry.id}: is {entry.row['state']}, and its log ends with {ends}"


def pictures(entry: Entry) -> Iterator[str]:
    """The picture of an order is the one that its customer gave, and what was sold was made from it."""
    given = hashlib.sha256(picture_of(entry.key)).hexdigest()
    for one in entry.inputs:
        if one["file"] is not None and one["file"]["sha256"] != given:
            yield f"{entry.id}: its input is another order's picture"
    sent = tuple(one["sent"]["sha256"] for one in entry.inputs if one["sent"] is not None)
    for sale, _ in entry.sales:
        # A provider that could not fetch the picture was given none.
        if sale.pictures not in {sent, ()} or (not entry.inputs and sale.pictures):
            yield f"{entry.id}: {sale.remote_id} was sold for other pictures than were sent"


def _owed(entry: Entry) -> Iterator[str]:
    """A job that wanted a webhook owes exactly its end, and the video that came after it; both delivered."""
    wanted = [event["type"] for event in entry.events if event["type"] in {*FINAL_EVENTS, EventType.VIDEO_LATE}]
    wanted = wanted if entry.row["webhook_url"] else []
    owed = [one["event_type"] for one in entry.deliveries]
    if owed != wanted:
        yield f"{entry.id}: owes the webhooks {owed} instead of {wanted}"
    if any(one["state"] != "delivered" for one in entry.deliveries):
        yield f"{entry.id}: its webhook was not delivered"


def stored(entry: Entry, store: Path) -> Iterator[str]:
    """A job that succeeded, if late, has its video and its poster, whole, in the store; no other job has any."""
    kinds = sorted(asset["kind"] for asset in entry.assets)
    late = [event for event in entry.events if event["type"] == EventType.VIDEO_LATE]
    if kinds != (["poster", "video"] if entry.row["state"] == State.SUCCEEDED or late else []) or len(late) > 1:
        yield f"{entry.id}: {entry.row['state']} with {kinds}"
    for asset in entry.assets:
        file = store / asset["object_key"]
        content = file.read_bytes() if file.exists() else b""
        if not content or (len(content), hashlib.sha256(content).digest()) != (asset["size_bytes"], asset["sha256"]):
            yield f"{entry.id}: its {asset['kind']} is not in the store as it was recorded"


Check = Callable[[Entry], Iterable[str]]
#: What counts as a silent second charge.
MONEY: tuple[Check, ...] = (_money, _rendered)
CHECKS: tuple[Check, ...] = (*MONEY, _state, _cost, _events, pictures, _owed)


def is_silently_charged(entry: Entry) -> bool:
    """Whether the sandbox sold something for a job that the ledger does not know of."""
    return any(problem for check in MONEY for problem in check(entry))
