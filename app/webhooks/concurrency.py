"""How many attempts one host may have under way: what it has earned, so that receivers that hang hold up no other.

A host begins with one slot, and one that answers quickly gets its share. One that does not falls back to a single slot,
and all such hosts together get a quarter of the lane: however many they are, the rest is for those that answer.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

#: The most for one host that answers.
HOST_SHARE = 32
#: For a host that nobody has heard of yet, or that was silent the last time.
FIRST_SHARE = 1
#: One part in so many of the lane: the most for one host, and the most for all silent ones.
PART = 4
#: A later answer is as good as none.
QUICK_SECONDS = 5.0
#: Hosts of each kind that are remembered, those heard of last.
MEMORY = 512


@dataclass(frozen=True, slots=True)
class Share:
    """How many deliveries to a host may be claimed now; ``silent``: they count among those to silent hosts."""

    host: str
    free: int
    silent: bool


@dataclass(frozen=True, slots=True)
class Shares:
    """What may be claimed now: of any host but those in ``hosts`` one, of silent ones ``silent`` in all.

    None of those in ``full``.
    """

    hosts: Sequence[Share]
    silent: int
    full: Sequence[str]


class Slots:
    """The slots of one process, and what is known there of hosts."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._quick: OrderedDict[str, None] = OrderedDict()
        self._silent: OrderedDict[str, None] = OrderedDict()

    @contextmanager
    def taken(self, host: str) -> Iterator[None]:
        """One attempt is under way for as long as the block runs."""
        self._under_way[host] += 1
        try:
            yield
        finally:
            self._under_way[host] -= 1
            if not self._under_way[host]:
                del self._under_way[host]

    def answered(self, host: str, seconds: float) -> None:
        """An attempt ended with an answer after so many seconds."""
        if seconds <= QUICK_SECONDS:
            _remember(host, self._quick, self._silent)
        else:
            self.unanswered(host)

    def unanswered(self, host: str) -> None:
        """An attempt ended without an answer."""
        _remember(host, self._silent, self._quick)

    @property
    def under_way(self) -> int:
        """Attempts under way in all."""
        return self._under_way.total()

    def shares(self, limit: int) -> Shares:
        """What each host may get now in a lane of ``limit`` slots."""
        part, silent = self._parts(limit)
        hosts = [
            Share(host, self._most(host, part) - self._under_way[host], host in self._silent)
            for host in {**self._quick, **self._silent, **self._under_way}
        ]
        return Shares(hosts, silent, self.full(limit))

    def full(self, limit: int) -> Sequence[str]:
        """The hosts of which none may be claimed now."""
        part, silent = self._parts(limit)
        full = {host for host, number in self._under_way.items() if number >= self._most(host, part)}
        return list(full if silent > 0 else full.union(self._silent))

    def _parts(self, limit: int) -> tuple[int, int]:
        """The most for one host, and what is left for silent ones."""
        part = max(1, limit // PART)
        return part, part - sum(number for host, number in self._under_way.items() if host in self._silent)

    def _most(self, host: str, part: int) -> int:
        return min(HOST_SHARE, part) if host in self._quick else FIRST_SHARE


def _remember(host: str, here: OrderedDict[str, None], not_there: OrderedDict[str, None]) -> None:
    not_there.pop(host, None)
    here[host] = None
    here.move_to_end(host)
    if len(here) > MEMORY:
        here.popitem(last=False)
