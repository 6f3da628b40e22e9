"""The table of states is whole, and the database knows it too."""

from typing import get_args

import pytest

from app.infra.queue import Lane
from app.jobs.db.tables import jobs, schedule
from app.jobs.payloads import Cancel
from app.jobs.states import ALLOWED, EVENTS, FINAL, LANES, PUBLIC, State, Status, states_of
from app.providers.base import CancelOutcome


def test_a_final_state_is_never_left() -> None:
    assert not [move for move in ALLOWED if move[0] in FINAL]


def test_every_state_can_be_reached_and_every_live_one_can_end() -> None:
    reached = {State.PREPARING, State.QUEUED}  # with inputs, and without
    while more := {to for source, to in ALLOWED if source in reached} - reached:
        reached |= more
    assert reached == set(State)
    ends = set(FINAL)
    while more := {source for source, to in ALLOWED if to in ends} - ends:
        ends |= more
    assert ends == set(State)


def test_a_lost_lease_never_leads_back_to_submitting() -> None:
    # Whoever finds the lease of a submitting job over is the resolver, and it cannot buy.
    assert (State.SUBMITTING, State.SUBMIT_UNKNOWN) in ALLOWED
    assert LANES[State.SUBMITTING] is LANES[State.SUBMIT_UNKNOWN] is Lane.RESOLVE
    assert [state for state, lane in LANES.items() if lane is Lane.SUBMIT] == [State.QUEUED]


def test_every_live_state_has_a_lane_and_no_final_one_has() -> None:
    assert set(LANES) == set(State) - FINAL
    assert set(LANES.values()) == set(Lane) - {Lane.DELIVER, Lane.RECONCILE}


def test_callers_see_every_state() -> None:
    assert set(PUBLIC) == set(EVENTS) == set(State)
    assert sorted(state for status in Status for state in states_of(status)) == sorted(State)
    shown = set(get_args(Cancel.model_fields["outcome"].annotation))
    assert shown == set(CancelOutcome) - {CancelOutcome.FAILED}


@pytest.mark.parametrize(
    ("table", "name", "words"), [(jobs, "state", set(State)), (schedule, "lane", set(LANES.values()))]
)
def test_the_database_checks_the_same_words(table: object, name: str, words: set[str]) -> None:
    (check,) = (
        str(constraint.sqltext)
        for constraint in table.constraints  # type: ignore[attr-defined]
        if str(constraint.name).endswith(f"_{name}") or constraint.name == name
        if hasattr(constraint, "sqltext")
    )
    assert {word.strip(" '") for word in check.partition("(")[2].rstrip(")").split(",")} == words
