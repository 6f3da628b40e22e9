"""Statistics of windows: median, spread and comparison with targets."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.load_generator import Count


@dataclass(frozen=True, slots=True)
class Measured:
    """One window: the counts of the generator, and CPU milliseconds per request by part."""

    count: Count
    cpu: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Typical:
    """The median of each figure over several windows; ``spread`` is (highest − lowest) / median of the rates."""

    rate: float
    spread: float
    p50: float
    p90: float
    p99: float
    cpu: Mapping[str, float]
    generator: float

    @classmethod
    def of(cls, windows: Sequence[Measured]) -> "Typical":
        counts = [window.count for window in windows]
        return cls(
            rate=statistics.median(count.rate for count in counts),
            spread=spread([count.rate for count in counts]),
            p50=statistics.median(count.p50 for count in counts),
            p90=statistics.median(count.p90 for count in counts),
            p99=statistics.median(count.p99 for count in counts),
            cpu={name: statistics.median(window.cpu[name] for window in windows) for name in windows[0].cpu},
            generator=statistics.median(count.cpu for count in counts),
        )


def spread(values: Sequence[float]) -> float:
    """(highest − lowest) / median; 0 for fewer than two."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


@dataclass(frozen=True, slots=True)
class TargetResult:
    """One figure and its target. ``unit`` is appended to every number; ``key`` refers to the reasons in notes.toml."""

    key: str
    what: str
    value: float
    target: float
    stretch: float | None = None
    unit: str = ""
    better: Literal["more", "less"] = "more"
    digits: int = 0

    @property
    def reached(self) -> bool:
        return self._beats(self.target)

    @property
    def stretched(self) -> bool:
        return self.stretch is not None and self._beats(self.stretch)

    def _beats(self, goal: float) -> bool:
        return self.value >= goal if self.better == "more" else self.value <= goal

    def shown(self, number: float | None) -> str:
        return "–" if number is None else f"{number:,.{self.digits}f}{self.unit}"

    def goal(self, number: float | None) -> str:
        sign = "≥" if self.better == "more" else "≤"
        return "–" if number is None else f"{sign} {self.shown(number)}"
