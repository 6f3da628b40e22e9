"""The states of a job, as data: which there are, which moves exist, and what callers see of them.

The table is DESIGN §5. A move is one conditional UPDATE (`repository.move`); nothing else changes a state.
"""

from enum import StrEnum

from app.infra.queue import Lane


class State(StrEnum):
    """Where a job is, internally."""

    QUEUED = "queued"  # committed, no live submission
    SUBMITTING = "submitting"  # the intent is committed; a paid request may be in flight
    SUBMIT_UNKNOWN = "submit_unknown"  # a paid request may or may not have been accepted
    RUNNING = "running"  # the remote id is known, not finished
    STORING = "storing"  # upstream finished; the film is being copied and checked
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class SubmissionState(StrEnum):
    """Where one purchase is."""

    SENDING = "sending"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    DONE = "done"
    REJECTED = "rejected"
    ABSENT = "absent"  # proven: nothing was bought
    ABANDONED = "abandoned"  # nothing could be proven, or nobody waits for it any more


class ChargeCertainty(StrEnum):
    """Whether the provider has charged, or will."""

    NONE = "none"
    POSSIBLE = "possible"
    CERTAIN = "certain"


class Status(StrEnum):
    """Where a job is, for callers."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Phase(StrEnum):
    """What is going on inside a status."""

    WAITING = "waiting"
    SUBMITTING = "submitting"
    CONFIRMING = "confirming"
    RENDERING = "rendering"
    STORING = "storing"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED})
LIVE_SUBMISSIONS = frozenset({SubmissionState.SENDING, SubmissionState.UNKNOWN, SubmissionState.ACCEPTED})

#: Every move there is, with its number in DESIGN §5.
ALLOWED: dict[tuple[State, State], int] = {
    (State.QUEUED, State.SUBMITTING): 1,
    (State.QUEUED, State.CANCELED): 2,
    (State.QUEUED, State.FAILED): 3,
    (State.QUEUED, State.RUNNING): 8,  # evidence of a purchase that had been taken for absent
    (State.SUBMITTING, State.RUNNING): 4,
    (State.SUBMITTING, State.QUEUED): 5,
    (State.SUBMITTING, State.FAILED): 6,
    (State.SUBMITTING, State.SUBMIT_UNKNOWN): 7,
    (State.SUBMIT_UNKNOWN, State.RUNNING): 8,
    (State.SUBMIT_UNKNOWN, State.QUEUED): 9,
    (State.SUBMIT_UNKNOWN, State.FAILED): 10,  # or 6: a refusal that was reported late
    (State.RUNNING, State.STORING): 11,
    (State.RUNNING, State.QUEUED): 12,  # after a definitive verdict; 18 where a provider that never bills lost it
    (State.RUNNING, State.FAILED): 12,  # 14 as well: our deadline, or lost upstream
    (State.RUNNING, State.CANCELED): 13,
    (State.STORING, State.QUEUED): 18,  # the same, before its film was fetched
    (State.STORING, State.SUCCEEDED): 15,
    (State.STORING, State.FAILED): 16,
}

#: Which lane advances a job in a state. Whoever submits holds the job by its lease; when that runs out, the question is
#: what became of the request, and that is the resolver's.
LANES: dict[State, Lane] = {
    State.QUEUED: Lane.SUBMIT,
    State.SUBMITTING: Lane.CONFIRM,
    State.SUBMIT_UNKNOWN: Lane.CONFIRM,
    State.RUNNING: Lane.POLL,
    State.STORING: Lane.STORE,
}

PUBLIC: dict[State, tuple[Status, Phase | None]] = {
    State.QUEUED: (Status.QUEUED, Phase.WAITING),
    State.SUBMITTING: (Status.RUNNING, Phase.SUBMITTING),
    State.SUBMIT_UNKNOWN: (Status.RUNNING, Phase.CONFIRMING),
    State.RUNNING: (Status.RUNNING, Phase.RENDERING),
    State.STORING: (Status.RUNNING, Phase.STORING),
    State.SUCCEEDED: (Status.SUCCEEDED, None),
    State.FAILED: (Status.FAILED, None),
    State.CANCELED: (Status.CANCELED, None),
}

#: The event that a move into a state writes.
EVENTS: dict[State, str] = {
    State.QUEUED: "job.queued",
    State.SUBMITTING: "job.submitting",
    State.SUBMIT_UNKNOWN: "job.confirming",
    State.RUNNING: "job.started",
    State.STORING: "job.storing",
    State.SUCCEEDED: "job.succeeded",
    State.FAILED: "job.failed",
    State.CANCELED: "job.canceled",
}

FINAL_EVENTS = frozenset(EVENTS[state] for state in FINAL)
#: A film that came out after its job had failed: kept, since it was paid for.
FILM_LATE = "job.film_late"
#: The events that go to a job's webhook.
WEBHOOK_EVENTS = FINAL_EVENTS | {FILM_LATE}


def states_of(status: Status) -> tuple[State, ...]:
    """The internal states behind a public status."""
    return tuple(state for state, (public, _) in PUBLIC.items() if public is status)
