"""The next way of a job, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import pytest

from app.jobs.failover import TRIES, NextRoute, most_spent, next_route
from app.jobs.records import Job, Submission
from app.providers.errors import Fault
from tests.support.failover_builders import (
    PERHAPS,
    SURELY,
    failed,
    forgotten,
    job,
    not_now,
    refused,
    serving,
    unreached,
)


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, and what is right."""

    says: str
    job: Job
    past: Sequence[Submission]
    route: NextRoute | None
    closed: Sequence[str] = ()


CASES = [
    Case("a new job waits for its own model", job("other"), [], NextRoute("main")),
    Case("a refused way is avoided", job("other"), [refused("main@first")], NextRoute("main", ("first",))),
    Case(
        "after all ways of a model come those of the next",
        job("other", "alone"),
        [refused("main@first"), refused("main@second")],
        NextRoute("other"),
    ),
    Case(
        "a way is a model on a connection: another model may go there",
        job("other"),
        [refused("main@second"), refused("main@first")],
        NextRoute("other"),
    ),
    Case("when every way said no the job ends", job(), [refused("main@first"), refused("main@second")], None),
    Case("a render that failed for free closes its way", job(), [failed("main@first")], NextRoute("main", ("first",))),
    Case(
        "a busy way has its turn again, after the others", job(), [not_now("main@first")], NextRoute("main", ("first",))
    ),
    Case("busy ways take turns", job(), [not_now("main@first"), not_now("main@second")], NextRoute("main")),
    Case("what cannot be reached counts as busy", job(), [unreached("main@first")], NextRoute("main", ("first",))),
    Case(
        "the next model has its turn when every way was busy so many times",
        job("other"),
        [not_now(way) for way in ("main@first", "main@second") for _ in range(TRIES)],
        NextRoute("other"),
    ),
    Case(
        "one way less busy than that keeps the model",
        job("other"),
        [*(not_now("main@first") for _ in range(TRIES)), unreached("main@second")],
        NextRoute("main", ("first",)),
    ),
    Case(
        "when all models were as busy the first has its turn again",
        job("alone"),
        [not_now(way) for way in ("main@first", "main@second", "alone@third") for _ in range(TRIES)],
        NextRoute("main"),
    ),
    Case(
        "a refused way is not tried again when the others are busy",
        job(),
        [refused("main@first"), *(not_now("main@second") for _ in range(9))],
        NextRoute("main", ("first",)),
    ),
    # What the refusal was about.
    Case(
        "a parameter refused closes the model", job("alone"), [refused("main@first", Fault.INPUT)], NextRoute("alone")
    ),
    Case("a parameter refused ends a job of one model", job(), [refused("main@first", Fault.INPUT)], None),
    Case("a prompt refused ends the job", job("other"), [refused("main@first", Fault.PROMPT)], None),
    Case(
        "a prompt refused after acceptance ends the job",
        job("other", max_cost="9"),
        [failed("main@first", Fault.PROMPT)],
        None,
    ),
    Case("a video withheld ends the job", job("other"), [failed("main@first", Fault.OUTPUT_MODERATION)], None),
    Case("a prompt refused by a busy provider ends the job", job("other"), [not_now("main@first", Fault.PROMPT)], None),
    Case(
        "with the caller's consent a refused prompt goes to another model, not to another connection",
        job("other", on_refusal=True),
        [refused("main@first", Fault.PROMPT)],
        NextRoute("other"),
    ),
    Case(
        "consent is of no use without another model",
        job(on_refusal=True),
        [failed("main@first", Fault.OUTPUT_MODERATION)],
        None,
    ),
    Case(
        "an old refusal counts as long as the job lives",
        job("other"),
        [refused("main@first", Fault.PROMPT), not_now("main@second")],
        None,
    ),
    # Money.
    Case("charged, and no limit: no second purchase", job("other"), [failed("main@first", charged=SURELY)], None),
    Case("perhaps charged, and no limit: the same", job("other"), [failed("main@first", charged=PERHAPS)], None),
    Case(
        "charged, and both fit into the limit",
        job("other", max_cost="0.20"),
        [failed("main@first", charged=SURELY)],
        NextRoute("main", ("first",)),
    ),
    Case(
        "charged, and a cent too much",
        job("other", max_cost="0.19"),
        [failed("main@first", charged=SURELY)],
        None,
    ),
    Case(
        "a fallback that does not fit is passed over for one that does",
        job("alone", "other", max_cost="0.45"),
        [failed("main@first", charged=SURELY), refused("main@second")],
        NextRoute("other"),
    ),
    Case(
        "what it really cost counts before what it might have",
        job(max_cost="0.11"),
        [failed("main@first", charged=SURELY, cost="0.01", cost_limit="5")],
        NextRoute("main", ("first",)),
    ),
    Case(
        "the provider's limit counts before our price",
        job(max_cost="0.50"),
        [failed("main@first", charged=PERHAPS, cost_limit="0.41")],
        None,
    ),
    Case(
        "three purchases are three sums",
        job("other", max_cost="0.39"),
        [failed("main@first", charged=SURELY), failed("main@second", charged=PERHAPS)],
        None,
    ),
    Case(
        "a purchase that came to light later counts too",
        job("other", max_cost="0.29"),
        [forgotten("main@first"), failed("main@second", charged=SURELY)],
        None,
    ),
    Case(
        "a charge that nobody can name ends the job",
        job("other", model="unpriced"),
        [failed("unpriced@first", charged=PERHAPS)],
        None,
    ),
    Case(
        "no limit, and free so far: a model without a price will do",
        job("unpriced"),
        [refused("main@first"), refused("main@second")],
        NextRoute("unpriced"),
    ),
    Case(
        "a render that was free does not count, whatever its price",
        job("other", max_cost="0.20"),
        [failed("main@first"), failed("main@second")],
        NextRoute("other"),
    ),
    # Connections that take no jobs now.
    Case("a closed connection is waited for", job(), [], NextRoute("main"), ["first", "second"]),
    Case("one open connection is enough", job("alone"), [], NextRoute("main"), ["first"]),
    Case("an open model comes before a closed one", job("alone"), [], NextRoute("alone"), ["first", "second"]),
    Case("all closed: the first model", job("alone"), [], NextRoute("main"), ["first", "second", "third"]),
    Case(
        "a busy way that is open comes before a closed one",
        job(),
        [not_now("main@first")],
        NextRoute("main"),
        ["second"],
    ),
    Case(
        "another model is no better when this one has an open way",
        job("alone"),
        [not_now("main@first")],
        NextRoute("main"),
        ["second"],
    ),
    Case(
        "where only a closed way is left, another model comes first",
        job("alone"),
        [refused("main@first")],
        NextRoute("alone"),
        ["second"],
    ),
    Case("a model that nothing serves is waited for", job(model="unpriced"), [], NextRoute("unpriced")),
    Case(
        "a model that nothing serves gives way to one that is served",
        job("main", model="unpriced"),
        [],
        NextRoute("main"),
    ),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.says.replace(" ", "-")) for case in CASES])
def test_the_next_way(case: Case) -> None:
    assert next_route(case.job, case.past, serving, case.closed) == case.route


def test_the_most_that_was_spent_is_a_sum_of_what_counts() -> None:
    past = [
        refused("main@first"),
        failed("main@first", charged=SURELY, cost="0.03"),
        failed("other@first", charged=PERHAPS, cost_limit="0.50"),
        failed("alone@third", charged=SURELY),
    ]
    assert most_spent([]) == 0
    assert most_spent(past) == Decimal("0.93")
    assert most_spent([*past, failed("unpriced@first", charged=PERHAPS)]) is None
