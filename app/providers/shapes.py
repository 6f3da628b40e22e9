"""Video sizes: their ratio and resolution labels, and the nearest supported size."""

import math
from collections.abc import Sequence
from functools import lru_cache

Size = tuple[int, int]

#: Sizes are multiples of 8 or 16, so 1584x672 counts as 21:9 and 1104x832 as 4:3.
RATIO_TOLERANCE = 0.02
RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "21:9", "9:21", "3:2", "2:3")


@lru_cache(maxsize=1024)  # the sizes of a model are parsed for every request
def parse(text: str, separator: str = "x") -> Size:
    """The two sides of a size such as ``1280x720``, or of a ratio such as ``16:9``."""
    width, height = text.split(separator)
    return int(width), int(height)


def ratio(size: Size) -> float:
    return size[0] / size[1]


def short_side(size: Size) -> int:
    """The side that a resolution such as ``720p`` refers to."""
    return min(size)


def has_ratio(size: Size, wanted: float) -> bool:
    """Whether a size has a ratio, within the tolerance."""
    return abs(math.log(ratio(size) / wanted)) <= RATIO_TOLERANCE


def ratio_label(size: Size) -> str:
    """The ratio of a size: its usual label, else the reduced fraction."""
    usual = next((name for name in RATIOS if has_ratio(size, ratio(parse(name, ":")))), None)
    divisor = math.gcd(*size)
    return usual or f"{size[0] // divisor}:{size[1] // divisor}"


def resolution_label(size: Size) -> str:
    return f"{short_side(size)}p"


def nearest(sizes: Sequence[Size], wanted_ratio: float, wanted_short_side: int) -> Size:
    """The size nearest to the wanted values, first by ratio and then by resolution; the first of equals."""

    def distance(size: Size) -> tuple[float, float]:
        off = abs(math.log(ratio(size) / wanted_ratio))
        return 0 if off <= RATIO_TOLERANCE else off, abs(math.log(short_side(size) / wanted_short_side))

    return min(sizes, key=distance)
