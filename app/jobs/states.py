"""The states of a job, as data: the states, the allowed transitions, and the public status of each state.

The table is in docs/architecture.md, "States and transitions". A transition is one conditional UPDATE
(`repository.move`); nothing else changes a state.
"""

from collections.abc import Collection
from enum import StrEnum

from app.events.types import EventType
from app.infra.queue import Lane


class State(StrEnum):
    """The internal state of a job."""

    PREPARING = "preparing"  # committed; its inputs are fetched, checked and converted
    QUEUED = "queued"  # committed; no live submission
    SUBMITTING = "submitting"  # the intent is committed; a paid request may be in flight
    SUBMIT_UNKNOWN = "submit_unknown"  # a paid request may or may not have been accepted
    RUNNING = "running"  # the remote id is known; not finished
    STORING = "storing"  # the provider has finished; the video is being copied and checked
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class SubmissionState(StrEnum):
    """The state of a submission."""

    SENDING = "sending"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    DONE = "done"
    REJECTED = "rejected"
    ABSENT = "absent"  # proved: the request was not accepted
    ABANDONED = "abandoned"  # nothing could be proved, or the job no longer waits for it


class ChargeCertainty(StrEnum):
    """Whether the provider has charged, or will."""

    NONE = "none"
    POSSIBLE = "possible"
    CERTAIN = "certain"


class Status(StrEnum):
    """The public state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Phase(StrEnum):
    """The current step within a status."""

    PREPARING = "preparing"
    WAITING = "waiting"
    SUBMITTING = "submitting"
    CONFIRMING = "confirming"
    RENDERING = "rendering"
    STORING = "storing"


#: Before a paid request: a cancel takes effect at once, and nothing is charged.
UNSUBMITTED = frozenset({State.PREPARING, State.QUEUED})
FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED})
LIVE_SUBMISSIONS = frozenset({SubmissionState.SENDING, SubmissionState.UNKNOWN, SubmissionState.ACCEPTED})

#: The allowed transitions, numbered as in docs/architecture.md, "States and transitions".
ALLOWED: dict[tuple[State, State], int] = {
    (State.PREPARING, State.QUEUED): 19,
    (State.PREPARING, State.CANCELED): 20,
    (State.PREPARING, State.FAILED): 21,
    (State.QUEUED, State.SUBMITTING): 1,
    (State.QUEUED, State.CANCELED): 2,
    (State.QUEUED, State.FAILED): 3,
    (State.QUEUED, State.RUNNING): 8,  # evidence of a submission whose absence had been assumed
    (State.SUBMITTING, State.RUNNING): 4,
    (State.SUBMITTING, State.QUEUED): 5,
    (State.SUBMITTING, State.FAILED): 6,
    (State.SUBMITTING, State.SUBMIT_UNKNOWN): 7,
    (State.SUBMIT_UNKNOWN, State.RUNNING): 8,
    (State.SUBMIT_UNKNOWN, State.QUEUED): 9,
    (State.SUBMIT_UNKNOWN, State.FAILED): 10,  # or 6: a refusal that was reported late
    (State.RUNNING, State.STORING): 11,
    (State.RUNNING, State.QUEUED): 12,  # after a failed render; 18 where a provider that never bills lost it
    (State.RUNNING, State.FAILED): 12,  # also 14: the job's deadline, or lost by the provider
    (State.RUNNING, State.CANCELED): 13,
    (State.STORING, State.QUEUED): 18,  # as above, before the video was fetched
    (State.STORING, State.SUCCEEDED): 15,
    (State.STORING, State.FAILED): 16,
}

#: The lane that advances a job in a state. The worker that submits a job holds it by a lease; when the lease expires,
#: the result of the request is unknown and the resolver takes over.
LANES: dict[State, Lane] = {
    State.PREPARING: Lane.PREPARE,
    State.QUEUED: Lane.SUBMIT,
    State.SUBMITTING: Lane.RESOLVE,
    State.SUBMIT_UNKNOWN: Lane.RESOLVE,
    State.RUNNING: Lane.POLL,
    State.STORING: Lane.STORE,
}

PUBLIC: dict[State, tuple[Status, Phase | None]] = {
    State.PREPARING: (Status.QUEUED, Phase.PREPARING),
    State.QUEUED: (Status.QUEUED, Phase.WAITING),
    State.SUBMITTING: (Status.RUNNING, Phase.SUBMITTING),
    State.SUBMIT_UNKNOWN: (Status.RUNNING, Phase.CONFIRMING),
    State.RUNNING: (Status.RUNNING, Phase.RENDERING),
    State.STORING: (Status.RUNNING, Phase.STORING),
    State.SUCCEEDED: (Status.SUCCEEDED, None),
    State.FAILED: (Status.FAILED, None),
    State.CANCELED: (Status.CANCELED, None),
}


EVENTS: dict[State, EventType] = {
    State.PREPARING: EventType.PREPARING,
    State.QUEUED: EventType.QUEUED,
    State.SUBMITTING: EventType.SUBMITTING,
    State.SUBMIT_UNKNOWN: EventType.CONFIRMING,
    State.RUNNING: EventType.STARTED,
    State.STORING: EventType.STORING,
    State.SUCCEEDED: EventType.SUCCEEDED,
    State.FAILED: EventType.FAILED,
    State.CANCELED: EventType.CANCELED,
}

FINAL_EVENTS = frozenset(EVENTS[state] for state in FINAL)
#: The events that go to a job's webhook.
WEBHOOK_EVENTS = FINAL_EVENTS | {EventType.VIDEO_LATE}

_HOLDING_A_SLOT = frozenset({State.SUBMITTING, State.SUBMIT_UNKNOWN, State.RUNNING})


def lanes_of(from_: Collection[State], to: State) -> set[Lane]:
    """The lanes that have work after a transition from one of these states; :class:`Transitions` rings them."""
    # A job in `submitting` is held by the worker that moved it; the resolver takes it when that lease expires.
    lanes = {LANES[to]} if to in LANES and to is not State.SUBMITTING else set()
    if to not in _HOLDING_A_SLOT and not _HOLDING_A_SLOT.isdisjoint(from_):
        lanes.add(Lane.SUBMIT)  # a slot of its connection became free
    return lanes


def states_of(status: Status) -> tuple[State, ...]:
    """The internal states behind a public status."""
    return tuple(state for state, (public, _) in PUBLIC.items() if public is status)
