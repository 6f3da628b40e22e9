"""What there is in the model: one job, its ledger, two workers, and the provider's side of every paid request.

A world is a value, and a step makes another one. Nothing in it can grow without end: time is three phases of each paid
request and one flag, a fence is whether a worker's claim still lasts. So there are finitely many worlds.
"""

from enum import StrEnum
from typing import NamedTuple

from app.infra.queue import Lane
from app.jobs.states import LIVE_SUBMISSIONS, ChargeCertainty, State, SubmissionState


class Clock(StrEnum):
    """The time of one paid request. The lease of its sender outlasts the first phase."""

    OPEN = "before the send deadline"
    CLOSED = "after it"  # nothing is sent any more, and what was on its way has come or never comes
    SETTLED = "after the visibility delay"  # a list that keeps its word shows every record


class Wire(StrEnum):
    """What is on its way between the sender of one paid request and the provider."""

    NOTHING = "nothing"
    REQUEST = "the request"
    ACCEPTED = "the remote id"
    REFUSED = "a refusal"


class Record(StrEnum):
    """What the provider holds for one paid request."""

    NONE = "nothing"
    RENDERING = "a render"
    SUCCEEDED = "a video"
    FREE = "a free failure"
    BILLED = "a billed failure"
    CANCELED = "a canceled render"
    LOST = "a render that the provider no longer knows"  # it may still end: another replica has it


class Watch(StrEnum):
    """Whether a purchase is looked after for which no job waits."""

    NO = "no"
    ON = "on"
    OVER = "over"  # it was, for as long as anybody would


class Submission(NamedTuple):
    """A row of the ledger; and, which the ledger does not see, what really became of the request."""

    state: SubmissionState = SubmissionState.SENDING
    certainty: ChargeCertainty = ChargeCertainty.POSSIBLE
    remote: int | None = None  # the remote id: the number of the submission whose request made the record
    hint: bool = False  # a callback named the record, and nobody has read it yet
    lookups: int = 0
    watch: Watch = Watch.NO

    clock: Clock = Clock.OPEN
    wire: Wire = Wire.NOTHING
    record: Record = Record.NONE
    listed: bool = False
    cancel_asked: bool = False


class Step(StrEnum):
    """Where a worker is."""

    IDLE = "idle"
    CHOSEN = "chosen"  # a waiting job is to be bought next; nothing is locked or written
    READY = "ready"  # the intent is committed, and no byte has left
    WAITING = "waiting"  # for the reply
    CLAIMED = "claimed"  # a job in any other lane
    KNOWS = "knows"  # something that is not written down yet


class Finding(StrEnum):
    """What a worker knows and has not written down."""

    NOTHING = "nothing"
    ACCEPTED = "the remote id"
    REFUSED = "the provider refused"
    UNSENT = "nothing was sent"
    UNKNOWN = "the reply is lost"
    MISSED = "one look found no record"
    ABSENT = "the last look that was needed found no record"
    INCONCLUSIVE = "nothing can be proven"
    PENDING = "it is being rendered"
    SUCCEEDED = "it is rendered"
    FREE = "it failed, at no cost"
    BILLED = "it failed, and is billed"
    CANCELED = "it is canceled"
    LOST = "the provider has not known it for long enough"
    STORED = "the video is in the store"
    UNAVAILABLE = "the video cannot be had"


class Worker(NamedTuple):
    """A worker, and what it has in its head. ``holds``: nobody has claimed or moved the job since."""

    step: Step = Step.IDLE
    holds: bool = False
    saw: State = State.QUEUED  # the job, when it was claimed
    submission: int = 0
    finding: Finding = Finding.NOTHING
    remote: int | None = None


class World(NamedTuple):
    """Everything."""

    job: State = State.PREPARING
    lane: Lane | None = Lane.PREPARE  # of the row in the schedule; none: there is no row
    held: bool = False  # by a lease, of a worker that may be dead
    cancel: bool = False  # the customer has asked
    late: bool = False  # the job's deadline has passed
    video: bool = False  # stored, checked, and among the assets
    ledger: tuple[Submission, ...] = ()
    workers: tuple[Worker, Worker] = (Worker(), Worker())

    def with_submission(self, number: int, **changes: object) -> "World":
        """With one submission changed."""
        changed = self.ledger[number]._replace(**changes)  # type: ignore[arg-type]
        return self._replace(ledger=(*self.ledger[:number], changed, *self.ledger[number + 1 :]))

    def with_worker(self, number: int, worker: Worker) -> "World":
        """With another worker in this place."""
        first, second = self.workers
        return self._replace(workers=(first, worker) if number else (worker, second))

    def unclaimed(self) -> "World":
        """With the fence raised: no claim made before lasts."""
        first, second = self.workers
        return self._replace(held=False, workers=(first._replace(holds=False), second._replace(holds=False)))

    def live(self) -> int | None:
        """The number of the live submission."""
        return next((number for number, one in enumerate(self.ledger) if one.state in LIVE_SUBMISSIONS), None)

    def owner(self, remote: int) -> int | None:
        """Which submission has a remote id."""
        return next((number for number, one in enumerate(self.ledger) if one.remote == remote), None)

    def __str__(self) -> str:
        told = [
            f"submission {number} {one.state}, charge {one.certainty}, the provider holds {one.record}"
            for number, one in enumerate(self.ledger, 1)
        ]
        return "; ".join([f"job {self.job}", *told])


class Kind(StrEnum):
    """Who is behind a step. Only progress is owed to us; the rest may never happen."""

    PROGRESS = "progress"  # workers work, the provider answers and renders, time passes
    FAULT = "fault"  # a death, a pause, a cut connection, a list that is behind
    LUCK = "luck"  # the customer cancels, the provider calls back


class Move(NamedTuple):
    """One step of anybody: what happened, in words; who is behind it; and the world after it."""

    words: str
    kind: Kind
    world: World
