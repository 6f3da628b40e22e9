"""The engine's promises in every world that can be reached; and that each way to break them would be noticed."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from app.jobs.states import ALLOWED, State
from app.providers.base import BillsOn, Lookup
from tests.model.explore import Explored, Explorer
from tests.model.promises import Mutant, Promise, Setting
from tests.model.world import Record

# One process explores the worlds of a setting once, for all tests.
pytestmark = pytest.mark.xdist_group("model")

#: A provider with a list, one with none, and one whose list breaks its word: what it bought shows up after its delay.
SETTINGS = {
    "list": Setting(),
    "list, bills on success": Setting(bills_on=BillsOn.SUCCESS),
    "no list, bills on success": Setting(lookup=Lookup.NONE, bills_on=BillsOn.SUCCESS),
    "forgets": Setting(
        bills_on=BillsOn.NEVER, cancels=False, callbacks=False, forgets=True, ends=(Record.SUCCEEDED, Record.FREE)
    ),
    "forgets, bills on success": Setting(
        lookup=Lookup.NONE, bills_on=BillsOn.SUCCESS, cancels=False, forgets=True, ends=(Record.SUCCEEDED,)
    ),
    "false list": Setting(list_keeps_its_word=False, cancels=False, ends=()),
    "false list, no callbacks": Setting(
        list_keeps_its_word=False, cancels=False, callbacks=False, ends=(Record.SUCCEEDED,)
    ),
}

#: Which promise a mutant breaks, and where.
CAUGHT = {
    Mutant.REQUEUE_ON_LEASE_EXPIRY: ("list", Promise.ONE_PURCHASE),
    Mutant.RETRY_ON_TIMEOUT: ("list", Promise.ONE_PURCHASE),
    Mutant.EARLY_ABSENCE: ("list", Promise.ONE_PURCHASE),
    Mutant.HASTY_HINT: ("list", Promise.ONE_PURCHASE),
    Mutant.SINGLE_LOOKUP: ("list", Promise.ONE_PURCHASE),
    Mutant.NO_SEND_DEADLINE: ("list", Promise.ONE_PURCHASE),
    Mutant.FAILOVER_AT_ANY_COST: ("list", Promise.KNOWN_FREE),
    Mutant.LOST_AT_ANY_COST: ("forgets, bills on success", Promise.KNOWN_FREE),
    Mutant.NO_FENCE: ("no list, bills on success", Promise.ONE_LIVE),
    Mutant.NO_GUARD: ("list", Promise.FINAL),
    Mutant.NO_SWEEPER: ("list", Promise.AN_END),
    Mutant.TWO_SUBMITTERS: ("list", Promise.ONE_LIVE),
    Mutant.NO_REMOTE_INDEX: ("false list", Promise.ONE_OWNER),
    Mutant.SUCCEEDED_UNSTORED: ("list", Promise.STORED),
    Mutant.TIMEOUT_FORGETS: ("list, bills on success", Promise.LEDGER),
    Mutant.LATE_IS_FREE: ("list, bills on success", Promise.LEDGER),
    Mutant.EVIDENCE_NEEDS_FENCE: ("list", Promise.EVIDENCE),
    Mutant.ABSENT_IS_DEAF: ("false list", Promise.LEDGER),
}


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Worlds are trees, a hundred thousand of them: the collector would look at all again and again, for nothing."""
    gc.disable()
    yield
    gc.enable()


@cache
def explored(name: str) -> Explored:
    return Explorer(SETTINGS[name]).run()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_promise_holds_in_every_world(name: str) -> None:
    story = explored(name).story
    if story is not None:
        pytest.fail(story, pytrace=False)


def test_every_move_of_the_table_is_made_somewhere() -> None:
    exercised = frozenset[tuple[State, State]]().union(*(explored(name).exercised for name in SETTINGS))
    assert exercised == set(ALLOWED)


@pytest.mark.parametrize("mutant", Mutant, ids=lambda mutant: mutant.name.lower())
def test_the_checker_catches(mutant: Mutant) -> None:
    name, promise = CAUGHT[mutant]
    found = Explorer(replace(SETTINGS[name], mutant=mutant), sought=promise).run()
    assert found.story is not None, f"{mutant}: {found.worlds} worlds, and in none is it broken that {promise}"


@pytest.mark.parametrize("move", ALLOWED, ids=lambda move: f"{move[0]}-{move[1]}")
def test_a_move_that_is_missing_in_the_table_is_noticed(move: tuple[State, State]) -> None:
    special = {(State.QUEUED, State.RUNNING): "false list", (State.STORING, State.QUEUED): "forgets"}
    name = special.get(move, "list")
    rest = {other: number for other, number in ALLOWED.items() if other != move}
    story = Explorer(SETTINGS[name], Promise.TABLE, rest).run().story
    assert story is not None
    assert f"{move[0]} → {move[1]}" in story
