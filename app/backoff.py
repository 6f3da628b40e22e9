"""Exponential backoff with jitter."""

import random

JITTER = 0.2


def exponential(attempt: int, *, first: float, longest: float) -> float:
    """Seconds before attempt ``attempt + 1``: ``first`` doubled each time, capped at ``longest``, ± 20 %.

    ``attempt`` is the number of attempts already made, from 1.
    """
    return jittered(min(longest, first * 2.0 ** min(attempt - 1, 30)))


def jittered(seconds: float) -> float:
    """``seconds`` ± 20 %, so that clients that failed together do not retry together."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # not for secrets
