"""What a run counts: injected faults, and what became of the jobs that were ordered for each kind of fault."""

from collections import Counter, defaultdict
from dataclasses import astuple, dataclass, field
from typing import Self

from app.failpoints import Failpoint


@dataclass(slots=True)
class Row:
    """What became of the orders that were made for one kind of fault."""

    accepted: int = 0
    ended: int = 0
    lost: int = 0
    charges: int = 0
    silent: int = 0
    wrong: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


@dataclass(slots=True)
class Findings:
    """Rows by kind of fault, and every broken promise in words."""

    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    broken: list[str] = field(default_factory=list)


@dataclass(slots=True)
class FaultCounts:
    """Injected faults by kind, and the checkpoints at which processes were killed or paused."""

    faults: Counter[str] = field(default_factory=Counter)
    places: Counter[Failpoint] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.faults.total()

    def add(self, other: Self) -> None:
        """Add the counts of another tally."""
        self.faults += other.faults
        self.places += other.places

    def unreached(self, times: int) -> list[Failpoint]:
        """The checkpoints at which processes were killed or paused fewer times than this."""
        return [place for place in Failpoint if self.places[place] < times]
