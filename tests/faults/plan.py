"""Which faults a run does, and in which order: decided by the seed alone."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import islice

from app.failpoints import Failpoint
from tests.support.fault_proxy import Mode

#: Rounds that one lap is divided into; a lap does every fault once, or as often as OFTEN says.
ROUNDS_PER_LAP = 3
MOST_PASSINGS = 3
ORDERS = 2, 5  # beside as many as a trap needs


class Lane(StrEnum):
    """What is attacked; the lanes of a round go on side by side."""

    WORKER = "worker"
    API = "api"
    AROUND = "around"  # Redis, Postgres, the upstream


class Attack(StrEnum):
    """What is done."""

    KILL_AT = "killed at"
    PAUSE_AT = "worker paused past its lease"
    KILL_WORKER = "worker killed at any moment"
    STOP_WORKER = "worker told to stop"
    KILL_API = "API killed at any moment"
    STOP_API = "API told to stop"
    REDIS_FLUSH = "Redis flushed"
    REDIS_KILL = "Redis killed"
    REDIS_FREEZE = "Redis frozen"
    POSTGRES_KILL = "Postgres killed"
    POSTGRES_TERMINATE = "every Postgres session ended"
    POSTGRES_SILENT = "Postgres not answering"
    CUT_BEFORE_COMMIT = "connection cut before COMMIT"
    CUT_AFTER_COMMIT = "connection cut after COMMIT"
    UPSTREAM = "upstream:"


LANES = {
    Attack.KILL_WORKER: Lane.WORKER,
    Attack.STOP_WORKER: Lane.WORKER,
    Attack.PAUSE_AT: Lane.WORKER,
    Attack.KILL_API: Lane.API,
    Attack.STOP_API: Lane.API,
}
OFTEN = {Attack.PAUSE_AT: 3, Attack.CUT_BEFORE_COMMIT: 2, Attack.CUT_AFTER_COMMIT: 2}
OF_API = (
    Failpoint.CREATE_ACCEPTED,
    Failpoint.CREATE_COMMITTED,
    Failpoint.CANCEL_WRITTEN,
    Failpoint.CANCEL_COMMITTED,
)
OF_WORKER = tuple(place for place in Failpoint if place not in OF_API)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to come.

    ``orders``: how many jobs are under way for it at least; ``seconds``: how long it lasts, or how long after them it
    comes; ``passing``: which passing of its place, or which COMMIT, it waits for.
    """

    attack: Attack
    lane: Lane
    orders: int
    seconds: float = 0
    passing: int = 1
    place: Failpoint | None = None
    mode: Mode = Mode.PASS

    @property
    def kind(self) -> str:
        """Its row in the table."""
        if self.attack is Attack.KILL_AT:
            return f"{self.attack} {self.place}"
        return f"{self.attack} {self.mode}" if self.attack is Attack.UPSTREAM else self.attack.value

    def __str__(self) -> str:
        at = f" {self.place}" if self.attack is Attack.PAUSE_AT else ""
        return f"{self.kind}{at}, passing {self.passing}" if self.place else self.kind


def plan(seed: int) -> Iterator[list[Fault]]:
    """The rounds, without end; the same for the same seed."""
    lap = 0
    while True:
        chance = random.Random(f"{seed}/{lap}")
        faults = _lap(chance)
        chance.shuffle(faults)
        yield from (faults[first::ROUNDS_PER_LAP] for first in range(ROUNDS_PER_LAP))
        lap += 1


def _lap(chance: random.Random) -> list[Fault]:
    faults = [_at(Attack.KILL_AT, place, chance) for place in Failpoint]
    for attack in Attack:
        for _ in range(OFTEN.get(attack, 1)):
            if attack is Attack.PAUSE_AT:
                faults.append(_at(attack, chance.choice(OF_WORKER), chance))
            elif attack not in {Attack.KILL_AT, Attack.UPSTREAM}:
                lane, passing = LANES.get(attack, Lane.AROUND), chance.randint(1, 20)
                faults.append(Fault(attack, lane, _orders(chance), chance.uniform(0.2, 1.5), passing))
    faults += (
        Fault(Attack.UPSTREAM, Lane.AROUND, _orders(chance), chance.uniform(1.2, 2.2), mode=mode)
        for mode in Mode
        if mode is not Mode.PASS
    )
    return faults


def _at(attack: Attack, place: Failpoint, chance: random.Random) -> Fault:
    lane = Lane.API if place in OF_API else Lane.WORKER
    return Fault(attack, lane, _orders(chance), passing=chance.randint(1, MOST_PASSINGS), place=place)


def _orders(chance: random.Random) -> int:
    return chance.randint(*ORDERS)


@cache
def every_kind() -> tuple[str, ...]:
    """Every kind of fault that there is, in the order of the table: a lap does each."""
    return tuple(kinds(islice(plan(0), ROUNDS_PER_LAP)))


def kinds(rounds: Iterable[Sequence[Fault]]) -> list[str]:
    """Every kind of fault in these rounds, in the order of the table."""
    places, modes = [None, *Failpoint], list(Mode)
    faults = {fault.kind: fault for faults in rounds for fault in faults}
    ranked = {
        kind: (list(Attack).index(fault.attack), places.index(fault.place), modes.index(fault.mode))
        for kind, fault in faults.items()
    }
    return sorted(faults, key=ranked.__getitem__)
