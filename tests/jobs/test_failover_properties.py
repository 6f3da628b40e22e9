"""What holds for the next way of any job, whatever happened to it before."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import combinations

from hypothesis import example, given
from hypothesis import strategies as st

from app.jobs.failover import SAFETY, NextRoute, next_route
from app.jobs.records import Job, Submission
from app.jobs.states import ChargeCertainty, SubmissionState
from app.providers.errors import Fault
from tests.support.failover_builders import (
    FREE,
    PRICES,
    SERVING,
    SURELY,
    failed,
    forgotten,
    job,
    not_now,
    refused,
    serving,
    unreached,
)

MODELS = sorted(PRICES)
WAYS = [f"{model}@{connection}" for model, names in SERVING.items() for connection in names]
CONNECTIONS = ["first", "second", "third"]
amounts = st.sampled_from(["0", "0.05", "0.10", "0.20", "0.35"])
jobs = st.builds(
    lambda models, max_cost, on_refusal: job(*models[1:], model=models[0], max_cost=max_cost, on_refusal=on_refusal),
    st.permutations(MODELS).flatmap(lambda models: st.integers(1, len(models)).map(lambda count: models[:count])),
    st.none() | st.sampled_from(["0.40", "0.55", "1.20"]),
    st.booleans(),
)
definitive = st.one_of(
    st.builds(refused, st.sampled_from(WAYS), st.sampled_from(Fault)),
    st.builds(
        failed, st.sampled_from(WAYS), st.sampled_from(Fault), st.sampled_from(ChargeCertainty), retryable=st.booleans()
    ),
    st.builds(failed, st.sampled_from(WAYS), charged=st.just(SURELY), cost=amounts),
)
busy = st.builds(not_now, st.sampled_from(WAYS), st.sampled_from([Fault.CAPACITY, Fault.QUOTA, Fault.PROVIDER]))
harmless = busy | st.builds(unreached, st.sampled_from(WAYS))
pasts = st.lists(definitive | harmless | st.builds(forgotten, st.sampled_from(WAYS)), max_size=8)
closings = st.sampled_from([closed for count in range(4) for closed in combinations(CONNECTIONS, count)])


def wanted(route: NextRoute) -> list[str]:
    return [name for name in serving(route.model) if name not in route.avoid]


def fault_of(one: Submission) -> str | None:
    return None if one.failure is None else str(one.failure["fault"])


def said_no_for_good(one: Submission) -> bool:
    rejected = one.state is SubmissionState.REJECTED and one.failure is not None and not one.failure["retryable"]
    return rejected or (one.state is SubmissionState.DONE and one.failure is not None)


@given(jobs, pasts, closings)
def test_a_route_that_a_refusal_closed_is_never_taken(job: Job, past: list[Submission], closed: Sequence[str]) -> None:
    route = next_route(job, past, serving, closed)
    if route is None:
        return
    for one in filter(said_no_for_good, past):
        assert (one.model, one.connection) not in [(route.model, name) for name in wanted(route)]
        assert one.model != route.model or fault_of(one) not in {*SAFETY, Fault.INPUT}


@given(jobs, pasts, closings)
def test_no_submission_goes_over_the_limit(job: Job, past: list[Submission], closed: Sequence[str]) -> None:
    route = next_route(job, past, serving, closed)
    charged = [one for one in past if one.charge_certainty is not FREE and one.cost != 0]
    if route is None or not charged:
        return
    price = job.spec_for(route.model).estimated_cost
    assert job.max_cost is not None
    assert price is not None
    assert price + sum((one.cost or one.estimated_cost or 99 for one in charged), Decimal(0)) <= job.max_cost


@given(jobs, pasts, closings)
def test_a_safety_refusal_is_not_shopped_around(job: Job, past: list[Submission], closed: Sequence[str]) -> None:
    refusals = [one for one in past if fault_of(one) in SAFETY]
    if refusals and not job.fallback_on_refusal:
        assert next_route(job, past, serving, closed) is None


@given(jobs, pasts, closings)
def test_the_same_ledger_gives_the_same_way_in_whatever_order(
    job: Job, past: list[Submission], closed: Sequence[str]
) -> None:
    route = next_route(job, past, serving, closed)
    assert route == next_route(job, past, serving, closed) == next_route(job, past[::-1], serving, [*closed][::-1])
    assert route is None or route.model in [spec.model for spec in job.specs]


@given(jobs, st.lists(harmless, max_size=12), closings)
def test_busy_providers_never_end_a_job(job: Job, past: list[Submission], closed: Sequence[str]) -> None:
    route = next_route(job, past, serving, closed)
    assert route is not None
    assert wanted(route) or not serving(route.model)


@given(jobs, pasts, closings)
@example(job(), [not_now("main@first")], ("second",))
def test_no_job_waits_for_a_closed_connection_while_another_may_be_asked(
    job: Job, past: list[Submission], closed: Sequence[str]
) -> None:
    route = next_route(job, past, serving, closed)
    if route is None or any(name not in closed for name in wanted(route)):
        return
    # The same job, were it left with each of its models alone: none of them has an open way.
    for spec in job.specs:
        alone = replace(job, spec=spec, fallbacks=())
        other = next_route(alone, past, serving, closed)
        assert other is None or not any(name not in closed for name in wanted(other))


@given(jobs, st.lists(st.tuples(st.sampled_from(Fault), st.booleans()), min_size=len(WAYS) + 1), st.data())
def test_a_job_ends_after_finitely_many_definitive_refusals(
    job: Job, verdicts: list[tuple[Fault, bool]], data: st.DataObject
) -> None:
    past: list[Submission] = []
    for fault, accepted in verdicts:
        route = next_route(job, past, serving)
        if route is None or not wanted(route):
            break
        way = f"{route.model}@{data.draw(st.sampled_from(wanted(route)))}"
        past.append(failed(way, fault) if accepted else refused(way, fault))
    assert len(past) <= len(WAYS)
    assert len({(one.model, one.connection) for one in past}) == len(past)


@given(jobs, st.lists(st.booleans(), min_size=60, max_size=60), st.data())
def test_every_way_has_its_turn_while_all_are_busy(job: Job, reached: list[bool], data: st.DataObject) -> None:
    past: list[Submission] = []
    for answered in reached:
        route = next_route(job, past, serving)
        assert route is not None
        if not wanted(route):
            return
        way = f"{route.model}@{data.draw(st.sampled_from(wanted(route)))}"
        past.append(not_now(way) if answered else unreached(way))
    models = [spec.model for spec in job.specs]
    assert {(one.model, one.connection) for one in past} == {
        (model, name) for model in models for name in serving(model)
    }
