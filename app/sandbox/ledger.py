"""What the sandbox accepted and charged: the other half of an audit."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from app.sandbox.phases import Phase
from app.sandbox.script import Verdict


@dataclass(frozen=True, slots=True)
class Bill:
    """What a job costs when it is accepted, and which ends give the money back."""

    usd: Decimal
    credits: int | None = None
    refunded: frozenset[Verdict] = frozenset()


@dataclass(slots=True, eq=False)
class Purchase:
    """One accepted create: never forgotten, not even when the remote job is deleted."""

    dialect: str
    reference: str | None
    prompt: str
    model: str
    remote_id: str
    bill: Bill
    accepted_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    phase: Phase = Phase.WAITING
    verdict: Verdict | None = None
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
            "verdict": self.verdict,
            "canceled": self.canceled,
            "final_cost": None if self.final_cost is None else str(self.final_cost),
            "finished_at": None if self.finished_at is None else self.finished_at.isoformat(),
        }


class Ledger:
    """Every purchase of this process, in order."""

    def __init__(self) -> None:
        self._purchases: list[Purchase] = []

    def note(self, purchase: Purchase) -> None:
        self._purchases.append(purchase)

    def forget(self) -> None:
        self._purchases.clear()

    def entries(self, reference: str | None = None) -> list[dict[str, Any]]:
        """The purchases as JSON, oldest first; only those of one submission where a reference is given."""
        return [item.as_json() for item in self._purchases if reference is None or item.reference == reference]

    def summary(self) -> dict[str, Any]:
        """How many creates were accepted and charged, and which submissions were charged more than once."""
        counts = Counter(item.reference for item in self._purchases if item.reference is not None)
        return {
            "accepted": len(self._purchases),
            "charged": len(self._purchases),
            "by_reference": dict(counts),
            "references_charged_twice": sorted(reference for reference, count in counts.items() if count > 1),
        }
