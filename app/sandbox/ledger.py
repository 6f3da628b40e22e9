"""What the sandbox accepted and charged; audits compare it with the gateway's own ledger."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from app.sandbox.inputs import Input
from app.sandbox.phases import Phase
from app.sandbox.script import JobFailure


@dataclass(frozen=True, slots=True)
class Bill:
    """What a job costs on acceptance, and which failures are refunded."""

    usd: Decimal
    credits: int | None = None
    refunded: frozenset[JobFailure] = frozenset()


@dataclass(slots=True, eq=False)
class Submission:
    """One accepted create. It stays in the ledger after the remote job is deleted."""

    dialect: str
    reference: str | None
    prompt: str
    model: str
    remote_id: str
    bill: Bill
    inputs: tuple[Input, ...] = ()
    accepted_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    phase: Phase = Phase.WAITING
    failure: JobFailure | None = None
    canceled: bool = False
    final_cost: Decimal | None = None
    finished_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "dialect": self.dialect,
            "reference": self.reference,
            "prompt": self.prompt,
            "model": self.model,
            "remote_id": self.remote_id,
            "accepted_at": self.accepted_at.isoformat(),
            "charged": True,
            "charged_usd": str(self.bill.usd),
            "charged_credits": self.bill.credits,
            "state": self.phase,
            "verdict": self.failure,
            "canceled": self.canceled,
            "final_cost": None if self.final_cost is None else str(self.final_cost),
            "finished_at": None if self.finished_at is None else self.finished_at.isoformat(),
            "inputs": [item.as_json() for item in self.inputs],
        }


class Ledger:
    """All submissions of this process, in order of acceptance."""

    def __init__(self) -> None:
        self._submissions: list[Submission] = []

    def note(self, submission: Submission) -> None:
        self._submissions.append(submission)

    def forget(self) -> None:
        self._submissions.clear()

    def entries(self, reference: str | None = None) -> list[dict[str, Any]]:
        """The entries as JSON, oldest first; with a reference, only those that carry it."""
        return [item.as_json() for item in self._submissions if reference is None or item.reference == reference]

    def summary(self) -> dict[str, Any]:
        """How many creates were accepted and charged, and which references were charged more than once."""
        counts = Counter(item.reference for item in self._submissions if item.reference is not None)
        return {
            "accepted": len(self._submissions),
            "charged": len(self._submissions),
            "by_reference": dict(counts),
            "references_charged_twice": sorted(reference for reference, count in counts.items() if count > 1),
        }
