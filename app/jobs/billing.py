"""What a purchase cost, and how sure that is: read out of what a provider said, and when it charges."""

from decimal import Decimal

from app.jobs.records import Submission
from app.jobs.states import ChargeCertainty
from app.providers.base import BillsOn
from app.providers.errors import Billed


def of_acceptance(bills_on: BillsOn) -> ChargeCertainty:
    """A provider that charges on acceptance has charged; another has not yet."""
    return ChargeCertainty.CERTAIN if bills_on is BillsOn.ACCEPTANCE else ChargeCertainty.NONE


def of_late_acceptance(bills_on: BillsOn) -> ChargeCertainty:
    """Nobody may ever learn how it ends: until then it may have been charged."""
    return ChargeCertainty.CERTAIN if bills_on is BillsOn.ACCEPTANCE else of_doubt(bills_on)


def of_doubt(bills_on: BillsOn) -> ChargeCertainty:
    """Nobody knows whether the request was accepted."""
    return ChargeCertainty.NONE if bills_on is BillsOn.NEVER else ChargeCertainty.POSSIBLE


def of_success(
    submission: Submission, bills_on: BillsOn, reported: Decimal | None
) -> tuple[Decimal | None, ChargeCertainty]:
    """The provider's own figure, else the catalogue's price; self-hosted renders cost nothing upstream."""
    free = bills_on is BillsOn.NEVER
    known = Decimal(0) if free else submission.estimated_cost
    return known if reported is None else reported, ChargeCertainty.NONE if free else ChargeCertainty.CERTAIN


def of_failure(submission: Submission, bills_on: BillsOn, billed: Billed, cost: Decimal | None) -> ChargeCertainty:
    """What a render that brought no film has cost. What was certain stays so unless the provider says otherwise."""
    if cost is not None:
        return ChargeCertainty.CERTAIN if cost > 0 else ChargeCertainty.NONE
    if bills_on is BillsOn.NEVER or billed is Billed.NO:
        return ChargeCertainty.NONE
    sure = billed is Billed.YES or submission.charge_certainty is ChargeCertainty.CERTAIN
    return ChargeCertainty.CERTAIN if sure else ChargeCertainty.POSSIBLE
