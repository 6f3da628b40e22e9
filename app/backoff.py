"""How long to wait before the next try."""

import random

JITTER = 0.2


def exponential(attempt: int, *, first: float, longest: float) -> float:
    """Seconds before try number ``attempt + 1``: ``first`` doubled each time, capped, ± 20 %.

    ``attempt`` counts the tries already made, from 1.
    """
    return jittered(min(longest, first * 2.0 ** min(attempt - 1, 30)))


def jittered(seconds: float) -> float:
    """``seconds`` ± 20 %, so that things that failed together do not come back together."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # not for secrets
