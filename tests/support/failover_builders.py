"""Jobs and ledgers made up for :func:`app.jobs.failover.next_turn`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from app.ids import new_id
from app.jobs.records import Job, Submission
from app.jobs.states import ChargeCertainty, State, SubmissionState
from app.providers.errors import Fault
from app.providers.job_spec import JobSpec

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SERVING: Mapping[str, Sequence[str]] = {"main": ("first", "second"), "other": ("first", "third"), "alone": ("third",)}
PRICES: Mapping[str, Decimal | None] = {
    "main": Decimal("0.10"),
    "other": Decimal("0.20"),
    "alone": Decimal("0.40"),
    "unpriced": None,
}
FREE, PERHAPS, SURELY = ChargeCertainty.NONE, ChargeCertainty.POSSIBLE, ChargeCertainty.CERTAIN


def spec(model: str) -> JobSpec:
    return JobSpec(model, "a video", 1, 128, 96, estimated_cost=PRICES[model])


def serving(model: str) -> Sequence[str]:
    return SERVING.get(model, ())


def job(*fallbacks: str, max_cost: str | None = None, on_refusal: bool = False, model: str = "main") -> Job:
    return Job(
        id=UUID(int=1),
        parent_id=None,
        account_id=UUID(int=2),
        state=State.QUEUED,
        version=1,
        spec=spec(model),
        fallbacks=tuple(map(spec, fallbacks)),
        fallback_on_refusal=on_refusal,
        max_cost=None if max_cost is None else Decimal(max_cost),
        priority=0,
        model_used=None,
        metadata={},
        webhook_url=None,
        notice=None,
        progress=0,
        cost=None,
        charge_certainty=FREE,
        error=None,
        cancel_requested_at=None,
        cancel_outcome=None,
        created_at=NOW,
        deadline_at=NOW,
        started_at=None,
        finished_at=None,
    )


def purchase(
    way: str,
    state: SubmissionState,
    fault: Fault | None = None,
    *,
    retryable: bool = False,
    charged: ChargeCertainty = FREE,
    **money: str,
) -> Submission:
    """A row of the ledger. ``way`` is ``model@connection``."""
    model, _, connection = way.partition("@")
    amounts: dict[str, Any] = {"estimated_cost": PRICES[model], "cost_limit": None, "cost": None}
    return Submission(
        id=new_id(),
        job_id=UUID(int=1),
        account_id=UUID(int=2),
        number=1,
        connection=connection,
        model=model,
        upstream_model=model,
        state=state,
        body_hash=b"",
        order_hash=b"",
        send_deadline=NOW,
        remote_id=None,
        callback_remote_id=None,
        results=(),
        charge_certainty=charged,
        late=False,
        failure=None if fault is None else {"fault": fault.value, "retryable": retryable, "code": "", "message": ""},
        detail=None,
        lookups=0,
        missing_since=None,
        polls=0,
        fetches=0,
        created_at=NOW,
        accepted_at=None,
        ended_at=NOW,
        **{**amounts, **{name: Decimal(amount) for name, amount in money.items()}},
    )


def refused(way: str, fault: Fault = Fault.ACCOUNT) -> Submission:
    """No for good, before acceptance."""
    return purchase(way, SubmissionState.REJECTED, fault)


def not_now(way: str, fault: Fault = Fault.CAPACITY) -> Submission:
    return purchase(way, SubmissionState.REJECTED, fault, retryable=True)


def unreached(way: str) -> Submission:
    return purchase(way, SubmissionState.ABSENT)


def failed(
    way: str, fault: Fault = Fault.PROVIDER, charged: ChargeCertainty = FREE, *, retryable: bool = True, **money: str
) -> Submission:
    """Accepted, and then no video."""
    return purchase(way, SubmissionState.DONE, fault, retryable=retryable, charged=charged, **money)


def forgotten(way: str, charged: ChargeCertainty = SURELY) -> Submission:
    """Taken for absent, and accepted after all, when the job had moved on."""
    return purchase(way, SubmissionState.ABANDONED, charged=charged)
