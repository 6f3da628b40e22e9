"""The short form of ``make faults``: every fault once, every checkpoint, and an audit of both sets of books."""

from pathlib import Path

import pytest

from app.failpoints import Failpoint
from tests.faults.plan import ROUNDS_PER_LAP, kinds, plan
from tests.faults.run import Result, run
from tests.faults.table import table

SEED = 20261122


@pytest.mark.servers
async def test_no_fault_loses_a_job_or_submits_one_twice_in_silence(tmp_path: Path) -> None:
    """Takes about 100 s of CPU: every fault once, with processes that are killed and started anew."""
    laps = plan(SEED)
    rounds = [next(laps) for _ in range(ROUNDS_PER_LAP)]
    said: list[str] = []
    result = Result()
    await run(tmp_path, SEED, enumerate(rounds, 1), lambda _: False, said.append, result)
    story = "\n".join([*said, *result.findings.broken, table(result.tally, result.findings.rows)])
    assert not result.findings.broken, story
    assert {kind for kind in kinds(rounds) if not result.tally.faults[kind]} == set(), story
    assert result.tally.unreached(1) == [], story


def test_a_lap_attacks_every_failpoint() -> None:
    laps = plan(SEED)
    faults = [fault for _ in range(ROUNDS_PER_LAP) for fault in next(laps)]
    assert {fault.place for fault in faults} >= set(Failpoint)


def test_a_seed_is_a_plan() -> None:
    one, same, other = plan(1), plan(1), plan(2)
    first = [next(one) for _ in range(2 * ROUNDS_PER_LAP)]
    assert first == [next(same) for _ in range(2 * ROUNDS_PER_LAP)]
    assert first[0] != first[ROUNDS_PER_LAP]
    assert first[0] != next(other)


def test_what_was_interrupted_has_no_story() -> None:
    assert table(Result().tally, {}).endswith("| **total** | 0 | 0 | 0 | 0 | 0 | 0 | 0 |")
