"""Limits concurrent attempts per host, so that receivers that hang do not delay deliveries to others.

A host starts with one slot; one that responds quickly gets a full share. A host that responds slowly or not at all is
limited to one slot, and all such hosts together get a quarter of the lane: the rest stays free for responsive hosts.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from app.counting import counted

#: The most slots of a host that responds quickly.
HOST_SHARE = 32
#: The slots of a host that is new, or was silent at its last attempt.
FIRST_SHARE = 1
#: The lane is divided by this: the most slots of one host, and the most of all silent hosts together.
PART = 4
#: A slower response counts as silence.
QUICK_SECONDS = 5.0
#: How many hosts of each kind are remembered, the most recent ones.
MEMORY = 512


@dataclass(frozen=True, slots=True)
class Share:
    """How many deliveries to a host may be claimed now; ``silent``: they count against the limit for silent hosts."""

    host: str
    free: int
    silent: bool


@dataclass(frozen=True, slots=True)
class Shares:
    """What may be claimed now: for silent hosts at most ``silent`` deliveries in total, for hosts in ``full`` none.

    A host that is not in ``hosts`` may get one delivery.
    """

    hosts: Sequence[Share]
    silent: int
    full: Sequence[str]


class HostConcurrency:
    """The slots in use in one process, and how its hosts responded."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._quick: OrderedDict[str, None] = OrderedDict()
        self._silent: OrderedDict[str, None] = OrderedDict()

    def taken(self, host: str) -> AbstractContextManager[None]:
        """Occupy a slot of the host while the block runs."""
        return counted(self._under_way, host)

    def responded(self, host: str, seconds: float) -> None:
        """Record that an attempt ended with a response after ``seconds``."""
        if seconds <= QUICK_SECONDS:
            _remember(host, self._quick, self._silent)
        else:
            self.silent(host)

    def silent(self, host: str) -> None:
        """Record that an attempt ended without a response."""
        _remember(host, self._silent, self._quick)

    @property
    def under_way(self) -> int:
        """The number of attempts under way."""
        return self._under_way.total()

    def shares(self, limit: int) -> Shares:
        """The shares of all known hosts in a lane of ``limit`` slots."""
        part, silent = self._parts(limit)
        hosts = [
            Share(host, self._most(host, part) - self._under_way[host], host in self._silent)
            for host in {**self._quick, **self._silent, **self._under_way}
        ]
        return Shares(hosts, silent, self.full(limit))

    def full(self, limit: int) -> Sequence[str]:
        """The hosts for which no delivery may be claimed now."""
        part, silent = self._parts(limit)
        full = {host for host, number in self._under_way.items() if number >= self._most(host, part)}
        return list(full if silent > 0 else full.union(self._silent))

    def _parts(self, limit: int) -> tuple[int, int]:
        """The most slots for one host, and the slots left for silent hosts."""
        part = max(1, limit // PART)
        return part, part - sum(number for host, number in self._under_way.items() if host in self._silent)

    def _most(self, host: str, part: int) -> int:
        return min(HOST_SHARE, part) if host in self._quick else FIRST_SHARE


def _remember(host: str, add_to: OrderedDict[str, None], remove_from: OrderedDict[str, None]) -> None:
    remove_from.pop(host, None)
    add_to[host] = None
    add_to.move_to_end(host)
    if len(add_to) > MEMORY:
        add_to.popitem(last=False)
