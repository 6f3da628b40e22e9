"""Counts what is under way, by key."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


@contextmanager
def counted(under_way: Counter[Key], key: Key) -> Iterator[None]:
    """Count one more of ``key`` while the block runs. Keys that are back at zero are removed."""
    under_way[key] += 1
    try:
        yield
    finally:
        under_way[key] -= 1
        if not under_way[key]:
            del under_way[key]
