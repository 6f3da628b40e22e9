"""A run: rounds of a plan, an audit after each, and what it all came to."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.auditor import Auditor
from tests.faults.clients import Customer
from tests.faults.environment import running_arena
from tests.faults.findings import FaultCounts, Findings
from tests.faults.plan import Fault
from tests.faults.rounds import Round

ROUND_SECONDS = 300.0


@dataclass(slots=True)
class Result:
    """What a run came to so far: of the rounds that were audited, which are in ``rounds`` by their numbers."""

    tally: FaultCounts = field(default_factory=FaultCounts)
    findings: Findings = field(default_factory=Findings)
    rounds: dict[int, Sequence[Fault]] = field(default_factory=dict)
    seconds: float = 0.0


async def run(
    directory: Path,
    seed: int,
    rounds: Iterable[tuple[int, Sequence[Fault]]],
    audited: Callable[[Result], bool],
    say: Callable[[str], None],
    result: Result,
) -> None:
    """Play rounds until there are no more, or ``audited`` says after one that it is enough, or a promise is broken.

    ``result`` grows meanwhile.
    """
    began = time.monotonic()
    async with running_arena(directory) as arena, Customer(arena, random.Random(seed)) as customer:
        auditor = Auditor(arena, customer)
        for number, faults in rounds:
            say(f"round {number}: {len(faults)} faults")
            customer.reseed(f"{seed}/{number}")  # the same orders when this round is played alone, or first
            tally = FaultCounts()
            try:
                async with asyncio.timeout(ROUND_SECONDS):
                    await Round(arena, customer, tally, say).play(faults)
            except TimeoutError:
                arena.broken.append(f"round {number} was not over after {ROUND_SECONDS:.0f} s")
            result.findings = await auditor.audit()
            result.rounds[number] = faults
            result.tally.add(tally)
            result.seconds = time.monotonic() - began
            say(f"{result.tally.total} faults, {len(customer.orders)} orders, {result.seconds:.0f} s")
            if audited(result) or result.findings.broken:
                break
