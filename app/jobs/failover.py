"""The next route of a job: another connection, another model, or none. Decided from its ledger alone.

A *route* is a model on a connection. The job's own model is tried first, then its fallbacks, each on all connections
that serve it. The provider's replies decide which routes are closed for good (docs/architecture.md, "Failures and
failover"):

* a refusal of the request itself (an invalid parameter) closes the model: another connection would refuse it, too;
* a safety refusal closes every route, unless the job has ``fallback_on_refusal``;
* any other final refusal, and a failed render, closes the route;
* a render that the provider lost closes nothing the first two times, then its model: the request may be what crashes
  the server;
* "not now" closes nothing: the route is tried again, after the others that accept jobs.

Money: the price of another submission must fit into ``max_cost`` together with everything that was, or may have been,
charged before. Without a ``max_cost`` a job is submitted again only if everything before was certainly free.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.jobs.errors import LOST, NOT_SENT_IN_TIME
from app.jobs.records import Job, Submission
from app.jobs.states import ChargeCertainty, SubmissionState
from app.providers.errors import Fault
from app.providers.job_spec import JobSpec

#: How often a route may reply "not now" before the next model is tried.
TRIES = 2
#: How often renders of a model may be lost before the model is closed.
LOSSES = 3

SAFETY = frozenset({Fault.PROMPT.value, Fault.OUTPUT_MODERATION.value})
ABOUT_THE_REQUEST = SAFETY | {Fault.INPUT.value}

#: The connections that serve a model, in the order of the configuration.
Serving = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class NextRoute:
    """The model in whose line a job waits next, and the connections that it avoids."""

    model: str
    avoid: tuple[str, ...] = ()


def next_route(
    job: Job, past: Sequence[Submission], serving: Serving, closed: Collection[str] = ()
) -> NextRoute | None:
    """The next route, or None if none remains.

    ``past`` is the job's whole ledger; ``closed`` are the connections that accept no jobs now.
    """
    if not job.fallback_on_refusal and any(_fault(one) in SAFETY for one in past if _is_final(one)):
        return None
    spent = most_spent(past)
    candidates: list[tuple[tuple[bool, int, int], NextRoute]] = []
    for preference, spec in enumerate(job.specs):
        if not _affordable(job, spec, spent) or _model_is_closed(spec.model, past):
            continue
        connections = serving(spec.model)
        tries = {
            name: _tries(spec.model, name, past) for name in connections if not _route_is_closed(spec.model, name, past)
        }
        if connections and not tries:
            continue
        open_ = {name: tried for name, tried in tries.items() if name not in closed}
        waits = not open_  # also if nothing serves the model at present
        # A closed connection may stay closed for long: a busy but open route is tried again instead of waiting for it.
        fewest = min((open_ or tries).values(), default=0)
        avoid = tuple(name for name in connections if tries.get(name, fewest + 1) > fewest)
        candidates.append(((waits, fewest // TRIES, preference), NextRoute(spec.model, avoid)))
    return min(candidates, key=lambda ranked: ranked[0])[1] if candidates else None


def most_spent(past: Sequence[Submission]) -> Decimal | None:
    """The most that these submissions can have cost, in USD; None if that is unknown."""
    total = Decimal(0)
    for one in past:
        if one.charge_certainty is ChargeCertainty.NONE:
            continue
        known = next((cost for cost in (one.cost, one.cost_limit, one.estimated_cost) if cost is not None), None)
        if known is None:
            return None
        total += known
    return total


def _affordable(job: Job, spec: JobSpec, spent: Decimal | None) -> bool:
    if spent == 0 and (job.max_cost is None or spec.estimated_cost is None):
        return True
    if spent is None or job.max_cost is None or spec.estimated_cost is None:
        return False
    return spent + spec.estimated_cost <= job.max_cost


def _is_final(one: Submission) -> bool:
    """Whether this is a final refusal or a failed render."""
    if one.failure is None:
        return False
    final = not one.failure["retryable"] or _fault(one) in SAFETY
    return one.state is SubmissionState.DONE or (one.state is SubmissionState.REJECTED and final)


def _model_is_closed(model: str, past: Sequence[Submission]) -> bool:
    here = [one for one in past if one.model == model]
    refused = any(_is_final(one) and _fault(one) in ABOUT_THE_REQUEST for one in here)
    return refused or sum(_is_lost(one) for one in here) >= LOSSES


def _is_lost(one: Submission) -> bool:
    return one.failure is not None and one.failure["code"] == LOST["code"]


def _route_is_closed(model: str, connection: str, past: Sequence[Submission]) -> bool:
    return any(one.model == model and one.connection == connection and _is_final(one) for one in past)


def not_accepted(one: Submission) -> bool:
    """Whether the connection did not accept the submission. One that the gateway sent too late does not count."""
    unaccepted = one.state in {SubmissionState.REJECTED, SubmissionState.ABSENT}
    return unaccepted and (one.failure is None or one.failure["code"] != NOT_SENT_IN_TIME["code"])


def _tries(model: str, connection: str, past: Sequence[Submission]) -> int:
    return sum(one.model == model and one.connection == connection and not_accepted(one) for one in past)


def _fault(one: Submission) -> str | None:
    return None if one.failure is None else str(one.failure["fault"])
