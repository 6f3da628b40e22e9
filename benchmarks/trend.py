"""Whether something grew: the first quarter of a run beside the last one."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a figure may grow between the quarters: by ``share`` of what it was, or by ``least``, whichever is
    more. ``None`` for a figure that is shown and not judged."""

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
        said = "grew" if self.grew else "steady" if self.limit else "not judged"
        change = f"{self.last / self.first - 1:+.1%}" if self.first else f"{self.last - self.first:+,.0f}"
        return [self.name, f"{self.first:,.1f}", f"{self.last:,.1f}", change, said]


def trends(samples: Sequence[Mapping[str, float]], limits: Mapping[str, Limit]) -> list[Trend]:
    """One trend for each figure of the samples, in their order.

    Raises:
        ValueError: fewer than eight samples: quarters of less than two say nothing.
    """
    if len(samples) < 8:
        raise ValueError(f"{len(samples)} samples are too few")
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
