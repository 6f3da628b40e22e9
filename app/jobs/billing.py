"""The cost of a submission and its certainty, derived from the provider's reports and from when it charges."""

from decimal import Decimal

from app.jobs.records import Submission
from app.jobs.states import ChargeCertainty
from app.providers.base import BillsOn
from app.providers.errors import Billed


def of_acceptance(bills_on: BillsOn) -> ChargeCertainty:
    """After an acceptance: a provider that charges on acceptance has charged, any other has not yet."""
    return ChargeCertainty.CERTAIN if bills_on is BillsOn.ACCEPTANCE else ChargeCertainty.NONE


def of_late_acceptance(bills_on: BillsOn) -> ChargeCertainty:
    """After an acceptance that no job waits for: its result may never become known, so a charge stays possible."""
    return ChargeCertainty.CERTAIN if bills_on is BillsOn.ACCEPTANCE else of_doubt(bills_on)


def of_doubt(bills_on: BillsOn) -> ChargeCertainty:
    """While it is unknown whether the request was accepted."""
    return ChargeCertainty.NONE if bills_on is BillsOn.NEVER else ChargeCertainty.POSSIBLE


def of_success(
    submission: Submission, bills_on: BillsOn, reported: Decimal | None
) -> tuple[Decimal | None, ChargeCertainty]:
    """After a render: the provider's own figure, else the catalogue's price. Self-hosted renders are not charged."""
    free = bills_on is BillsOn.NEVER
    known = Decimal(0) if free else submission.estimated_cost
    return known if reported is None else reported, ChargeCertainty.NONE if free else ChargeCertainty.CERTAIN


def of_failure(submission: Submission, bills_on: BillsOn, billed: Billed, cost: Decimal | None) -> ChargeCertainty:
    """After a render without a video. A certain charge stays certain unless the provider reports otherwise."""
    if cost is not None:
        return ChargeCertainty.CERTAIN if cost > 0 else ChargeCertainty.NONE
    if bills_on is BillsOn.NEVER or billed is Billed.NO:
        return ChargeCertainty.NONE
    sure = billed is Billed.YES or submission.charge_certainty is ChargeCertainty.CERTAIN
    return ChargeCertainty.CERTAIN if sure else ChargeCertainty.POSSIBLE
