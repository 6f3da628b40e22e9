"""What is promised, in every world that can be reached; and what can be broken on purpose, to see that it shows."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from app.jobs.states import FINAL, LANES, LIVE_SUBMISSIONS, UNSUBMITTED, ChargeCertainty, State
from app.providers.base import BillsOn, Lookup
from tests.model.world import Kind, Move, Record, Step, Submission, Watch, World


class Promise(StrEnum):
    """What must never be broken."""

    TABLE = "every move of a job is in the table"
    FINAL = "a final state is never left"
    ONE_LIVE = "a job has one live submission while it is being bought or rendered, and none at any other time"
    ONE_PURCHASE = "a job is not bought twice"
    KNOWN_FREE = "a purchase is begun only if every earlier one is free, for certain"
    ONE_OWNER = "a remote id belongs to one submission"
    SCHEDULED = "a job has a row in the schedule, in the lane of its state, until it has ended"
    STORED = "a job that succeeded has a video in the store"
    EVIDENCE = "a remote id that a worker brings home is in the ledger"
    LEDGER = "when all is over the ledger tells what was charged, or says that it is possible"
    AN_END = "once faults stop, a job comes to an end from wherever it is"


class Mutant(StrEnum):
    """The engine with one thing broken."""

    REQUEUE_ON_LEASE_EXPIRY = "a lease that runs out over a paid request puts the job back in the queue"
    RETRY_ON_TIMEOUT = "a lost reply is taken for a request that was not sent"
    EARLY_ABSENCE = "absence is believed before the list must show the record"
    HASTY_HINT = "a record that a callback named, and that cannot be read just now, is looked for in the list too early"
    SINGLE_LOOKUP = "one look that finds nothing proves absence"
    NO_SEND_DEADLINE = "a request may leave, and arrive, at any time"
    NO_FENCE = "a decision is written although the job has been claimed anew since"
    NO_GUARD = "a decision is written whoever has the job, and wherever it stands"
    NO_SWEEPER = "nobody looks for leases that ran out"
    TWO_SUBMITTERS = "no unique index of live submissions, and an intent does not look whether the job still waits"
    NO_REMOTE_INDEX = "no unique index of remote ids"
    FAILOVER_AT_ANY_COST = "a job is bought anew after a failure that is billed"
    SUCCEEDED_UNSTORED = "a job is called succeeded before its video is stored"
    TIMEOUT_FORGETS = "a purchase that outlives its job's deadline is not watched"
    LATE_IS_FREE = "a purchase found after its job has ended counts as free until it is seen to succeed"
    EVIDENCE_NEEDS_FENCE = "a worker whose lease is over throws away the remote id that it knows"
    LOST_AT_ANY_COST = "a render that the provider lost is bought anew though it may be billed"
    ABSENT_IS_DEAF = "a callback for a submission that was taken for absent is not followed up"


@dataclass(frozen=True, slots=True)
class Setting:
    """What surrounds the engine. A provider that knows a request by its key is not here: sending again buys nothing."""

    lookup: Lookup = Lookup.LIST
    bills_on: BillsOn = BillsOn.ACCEPTANCE
    callbacks: bool = True  # the provider may call back: once, twice, very late, or never
    cancels: bool = True  # the customer may cancel
    list_keeps_its_word: bool = True  # after the visibility delay it shows every record, once in two looks
    ends: tuple[Record, ...] = (Record.SUCCEEDED, Record.FREE, Record.BILLED, Record.CANCELED)
    forgets: bool = False  # the provider may lose a render, for a while or for good
    mutant: Mutant | None = None

    def charges(self, one: Submission) -> bool:
        """The truth: whether the provider charges for the record of a request."""
        if self.bills_on is BillsOn.NEVER:
            return False
        if one.record in {Record.RENDERING, Record.CANCELED, Record.LOST}:
            return self.bills_on is BillsOn.ACCEPTANCE
        return one.record in {Record.SUCCEEDED, Record.BILLED}


#: A promise, and how it is broken.
Breach = tuple[Promise, str]


class Violation(Exception):
    """A step that may never be made."""

    def __init__(self, promise: Promise, what: str) -> None:
        super().__init__(what)
        self.breach: Breach = (promise, what)


def of_world(setting: Setting, world: World) -> Iterator[Breach]:
    """What is broken here and now."""
    live = sum(one.state in LIVE_SUBMISSIONS for one in world.ledger)
    if live != (world.job in LANES and world.job not in UNSUBMITTED):
        yield Promise.ONE_LIVE, f"the job is {world.job} and has {live} live submissions"
    if world.lane is not LANES.get(world.job) or (world.lane is None) != (world.job in FINAL):
        yield Promise.SCHEDULED, f"the job is {world.job} and has the schedule row of {world.lane}"
    if world.job is State.SUCCEEDED and not world.video:
        yield Promise.STORED, "the job succeeded and there is no video"
    owned = [one.remote for one in world.ledger if one.remote is not None]
    if len(owned) != len(set(owned)):
        yield Promise.ONE_OWNER, "two submissions have one remote id"
    # With a list that breaks its word a second purchase cannot be excluded; the other promises stand even then.
    if setting.list_keeps_its_word and sum(setting.charges(one) for one in world.ledger) > 1:
        yield Promise.ONE_PURCHASE, "the provider charges twice"


def of_move(before: World, move: Move) -> Iterator[Breach]:
    """What is broken by one step."""
    after = move.world
    bought = len(after.ledger) > len(before.ledger)
    if bought and any(one.certainty is not ChargeCertainty.NONE for one in before.ledger):
        yield Promise.KNOWN_FREE, "the job is bought, though an earlier purchase may cost money"
    if move.kind is not Kind.PROGRESS:
        return
    for was, now in zip(before.workers, after.workers, strict=True):
        if was.remote is not None and now.step is Step.IDLE:
            written = after.owner(was.remote) is not None or after.ledger[was.submission].remote is not None
            if not written:
                yield Promise.EVIDENCE, "a remote id was known, and is thrown away"


def at_rest(setting: Setting, world: World) -> Iterator[Breach]:
    """What is wrong with the ledger of a job after which nothing comes any more."""
    for number, one in enumerate(world.ledger):
        owner = world.owner(number)
        entry = one if owner is None else world.ledger[owner]
        told_of = owner is not None or (one.hint and one.watch is not Watch.OVER)
        excused = not setting.list_keeps_its_word and not told_of
        if setting.charges(one) and entry.certainty is ChargeCertainty.NONE and not excused:
            yield Promise.LEDGER, f"the provider charges for request {number + 1}, and the ledger says that it is free"
        if one.remote is None or one.watch is Watch.OVER:
            continue
        record, certain = world.ledger[one.remote], one.certainty is ChargeCertainty.CERTAIN
        if certain and not setting.charges(record):
            yield Promise.LEDGER, f"submission {number + 1} costs nothing, and the ledger is certain that it does"
        if not certain and record.record is Record.SUCCEEDED and setting.charges(record):
            yield Promise.LEDGER, f"submission {number + 1} brought a video, and the ledger does not know"
