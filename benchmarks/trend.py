"""Detects growth by comparing the first and the last quarter of a run."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """The allowed growth of a figure between the quarters: ``share`` of its first value or ``least``, whichever is
    larger. Figures without a limit are only shown."""

    share: float
    least: float


@dataclass(frozen=True, slots=True)
class Trend:
    """The medians of the first and the last quarter of one figure."""

    name: str
    first: float
    last: float
    limit: Limit | None

    @property
    def grew(self) -> bool:
        if self.limit is None:
            return False
        return self.last - self.first > max(self.limit.least, self.first * self.limit.share)

    def row(self) -> list[str]:
        growth = "grew" if self.grew else "steady" if self.limit else "no limit"
        change = f"{self.last / self.first - 1:+.1%}" if self.first else f"{self.last - self.first:+,.0f}"
        return [self.name, f"{self.first:,.1f}", f"{self.last:,.1f}", change, growth]


def trends(samples: Sequence[Mapping[str, float]], limits: Mapping[str, Limit]) -> list[Trend]:
    """One trend for each figure of the samples, in the order of the first sample.

    Raises:
        ValueError: there are fewer than eight samples, so that a quarter has less than two.
    """
    if len(samples) < 8:
        raise ValueError(f"{len(samples)} samples are too few; at least 8 are needed")
    quarter = len(samples) // 4
    first, last = samples[:quarter], samples[-quarter:]
    return [
        Trend(
            name,
            statistics.median(sample[name] for sample in first),
            statistics.median(sample[name] for sample in last),
            limits.get(name),
        )
        for name in samples[0]
    ]
