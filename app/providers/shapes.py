"""Picture sizes: what they are called, and which is nearest to what somebody wants."""

import math
from collections.abc import Sequence
from functools import lru_cache

Size = tuple[int, int]

#: Sizes are multiples of 8 or 16, so 1584x672 counts as 21:9 and 1104x832 as 4:3.
RATIO_TOLERANCE = 0.02
RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "21:9", "9:21", "3:2", "2:3")


@lru_cache(maxsize=1024)  # the sizes of a model are read at every order
def parse(text: str, separator: str = "x") -> Size:
    """The two sides of a size such as ``1280x720``, or of a ratio such as ``16:9``."""
    width, height = text.split(separator)
    return int(width), int(height)


def ratio(size: Size) -> float:
    return size[0] / size[1]


def short_side(size: Size) -> int:
    """What a resolution such as ``720p`` counts."""
    return min(size)


def has_ratio(size: Size, wanted: float) -> bool:
    """Whether a size is close enough to a ratio to be called by it."""
    return abs(math.log(ratio(size) / wanted)) <= RATIO_TOLERANCE


def ratio_label(size: Size) -> str:
    """A size's ratio by its usual name, else in the smallest numbers."""
    usual = next((name for name in RATIOS if has_ratio(size, ratio(parse(name, ":")))), None)
    divisor = math.gcd(*size)
    return usual or f"{size[0] // divisor}:{size[1] // divisor}"


def resolution_label(size: Size) -> str:
    return f"{short_side(size)}p"


def nearest(sizes: Sequence[Size], wanted_ratio: float, wanted_short_side: int) -> Size:
    """The size whose ratio, and then whose resolution, is nearest to what is wanted; the first one of equals."""

    def distance(size: Size) -> tuple[float, float]:
        off = abs(math.log(ratio(size) / wanted_ratio))
        return 0 if off <= RATIO_TOLERANCE else off, abs(math.log(short_side(size) / wanted_short_side))

    return min(sizes, key=distance)
