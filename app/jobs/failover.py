"""Which way a job goes next: another connection, another model, or none. Decided from its ledger alone.

A *way* is a model on a connection. The job's own model is tried first, its fallbacks after that, each on all of the
connections that serve it. What a provider said decides which ways are closed for good (DESIGN §6):

* a verdict on the order itself (a parameter refused) closes the model: another connection would say the same;
* a safety refusal closes everything, unless the order says that its fallbacks may be asked as well;
* any other definitive "no", and a render that failed, closes the way;
* a render that the provider lost closes nothing the first two times, and then its model: the order may be what brings
  the server down;
* "not now" closes nothing: the way has its turn again, after the others that take jobs.

Money: a next purchase must fit into ``max_cost`` together with all that was, or may have been, charged before. Without
a ``max_cost`` a job is bought anew only when everything before was free for certain.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.jobs.failures import LOST, NOT_SENT_IN_TIME
from app.jobs.records import Choice, Job, Submission
from app.jobs.states import ChargeCertainty, SubmissionState
from app.providers.errors import Fault

#: How often a way may say "not now" before the next model has its turn.
TRIES = 2
#: How often a provider may lose a render of a model before the job gives that model up.
LOSSES = 3

SAFETY = frozenset({Fault.PROMPT.value, Fault.OUTPUT_MODERATION.value})
ABOUT_THE_ORDER = SAFETY | {Fault.INPUT.value}

#: The connections that serve a model, in the order of the configuration.
Serving = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Turn:
    """In which model's line a job waits next, and which connections it does not want."""

    model: str
    avoid: tuple[str, ...] = ()


def next_turn(job: Job, past: Sequence[Submission], serving: Serving, closed: Collection[str] = ()) -> Turn | None:
    """The next way, or None when the job has come to its end.

    ``past`` is the job's whole ledger; ``closed`` are connections that take no jobs now.
    """
    if not job.fallback_on_refusal and any(_fault(one) in SAFETY for one in past if _is_verdict(one)):
        return None
    spent = most_spent(past)
    turns: list[tuple[tuple[bool, int, int], Turn]] = []
    for place, choice in enumerate(job.choices):
        if not _affordable(job, choice, spent) or _model_is_closed(choice.model, past):
            continue
        ways = serving(choice.model)
        tries = {
            name: _tries(choice.model, name, past) for name in ways if not _way_is_closed(choice.model, name, past)
        }
        if ways and not tries:
            continue
        open_ = {name: tried for name, tried in tries.items() if name not in closed}
        waits = not open_  # also when nothing serves the model at all, for the time being
        # Whoever is closed may be so for long: an open way that was busy is asked again rather than that one awaited.
        fewest = min((open_ or tries).values(), default=0)
        avoid = tuple(name for name in ways if tries.get(name, fewest + 1) > fewest)
        turns.append(((waits, fewest // TRIES, place), Turn(choice.model, avoid)))
    return min(turns, key=lambda ranked: ranked[0])[1] if turns else None


def most_spent(past: Sequence[Submission]) -> Decimal | None:
    """The most that some purchases can have cost, in USD; None when nobody can say."""
    total = Decimal(0)
    for one in past:
        if one.charge_certainty is ChargeCertainty.NONE:
            continue
        known = next((cost for cost in (one.cost, one.cost_limit, one.estimated_cost) if cost is not None), None)
        if known is None:
            return None
        total += known
    return total


def _affordable(job: Job, choice: Choice, spent: Decimal | None) -> bool:
    if spent == 0 and (job.max_cost is None or choice.estimated_cost is None):
        return True
    if spent is None or job.max_cost is None or choice.estimated_cost is None:
        return False
    return spent + choice.estimated_cost <= job.max_cost


def _is_verdict(one: Submission) -> bool:
    """Whether the provider said no for good: to the request, or to the render."""
    if one.failure is None:
        return False
    final = not one.failure["retryable"] or _fault(one) in SAFETY
    return one.state is SubmissionState.DONE or (one.state is SubmissionState.REJECTED and final)


def _model_is_closed(model: str, past: Sequence[Submission]) -> bool:
    here = [one for one in past if one.model == model]
    refused = any(_is_verdict(one) and _fault(one) in ABOUT_THE_ORDER for one in here)
    return refused or sum(_is_lost(one) for one in here) >= LOSSES


def _is_lost(one: Submission) -> bool:
    return one.failure is not None and one.failure["code"] == LOST["code"]


def _way_is_closed(model: str, connection: str, past: Sequence[Submission]) -> bool:
    return any(one.model == model and one.connection == connection and _is_verdict(one) for one in past)


def turned_away(one: Submission) -> bool:
    """Whether a connection did not take a submission. What we were too slow to send says nothing of the connection."""
    untaken = one.state in {SubmissionState.REJECTED, SubmissionState.ABSENT}
    return untaken and (one.failure is None or one.failure["code"] != NOT_SENT_IN_TIME["code"])


def _tries(model: str, connection: str, past: Sequence[Submission]) -> int:
    return sum(one.model == model and one.connection == connection and turned_away(one) for one in past)


def _fault(one: Submission) -> str | None:
    return None if one.failure is None else str(one.failure["fault"])
