"""A results file adds up sessions of several seeds, and says where a seed goes on."""

import json
from pathlib import Path

import pytest

from app.failpoints import Failpoint
from tests.faults.__main__ import Goal
from tests.faults.findings import Findings, Row
from tests.faults.plan import ROUNDS_PER_LAP, every_kind, plan
from tests.faults.results import Results, ResultsError, Session
from tests.faults.run import Result
from tests.faults.table import publish, report

KIND, OTHER = every_kind()[0], every_kind()[-1]
PLACE = Failpoint.SUBMIT_WRITTEN


def result(rounds: int, faults: int, *, first: int = 1, kind: str = KIND) -> Result:
    """What a run came to: so many faults of one kind, each with two jobs that ended."""
    made = Result(seconds=60.0 * rounds, rounds={number: [] for number in range(first, first + rounds)})
    made.tally.faults[kind] = faults
    made.tally.places[PLACE] = faults
    made.findings.rows[kind] = Row(accepted=2 * faults, ended=2 * faults, charges=faults)
    return made


def session(seed: int, first: int, made: Result) -> Session:
    return Session.of(seed, first, made, {"python": "3.11"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


def test_a_new_file_begins_at_the_first_round(path: Path) -> None:
    results = Results(path)
    assert (results.next_round(7), results.tally.total, results.sessions) == (1, 0, [])


def test_a_seed_goes_on_where_its_file_ends(path: Path) -> None:
    Results(path).record(session(7, 1, result(3, 50)))
    resumed = Results(path)
    assert (resumed.next_round(7), resumed.next_round(8)) == (4, 1)
    resumed.record(session(7, 4, result(2, 30, first=4)))
    assert Results(path).next_round(7) == 6


def test_a_session_is_cumulative_and_sessions_are_added(path: Path) -> None:
    results = Results(path)
    results.record(session(7, 1, result(1, 10)))
    results.record(session(7, 1, result(2, 25)))  # the same process, a round later
    results.record(session(7, 3, result(1, 5, first=3)))
    results.record(session(8, 1, result(1, 4, kind=OTHER)))
    read = Results(path)
    assert (read.tally.total, read.tally.faults[KIND], read.tally.faults[OTHER]) == (34, 30, 4)
    assert read.tally.places[PLACE] == 34
    assert read.rows[KIND] == Row(accepted=60, ended=60, charges=30)
    assert read.seconds == 60.0 * 4
    assert [(one.seed, one.first_round, one.rounds) for one in read.sessions] == [(7, 1, 2), (7, 3, 1), (8, 1, 1)]


def test_what_was_read_is_what_was_written(path: Path) -> None:
    written = session(7, 1, result(2, 9))
    Results(path).record(written)
    assert Results(path).sessions == [written]


def test_the_file_is_replaced_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results(path)
    results.record(session(7, 1, result(1, 10)))
    before = path.read_text()

    def killed(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        results.record(session(7, 1, result(2, 20)))
    assert path.read_text() == before
    assert Results(path).next_round(7) == 2


def test_one_process_at_a_time_writes_a_file(path: Path) -> None:
    with Results(path).held(), pytest.raises(ResultsError, match="another run"), Results(path).held():
        pass
    with Results(path).held():
        pass


def test_something_else_is_no_results_file(path: Path) -> None:
    path.write_text(json.dumps({"sessions": [{"seed": 7}]}))
    with pytest.raises(ResultsError, match="not a results file"):
        Results(path)


def test_a_broken_promise_is_kept(path: Path) -> None:
    made = result(1, 10)
    made.findings = Findings(made.findings.rows, ["job_1: charged 2 times"])
    Results(path).record(session(7, 1, made))
    assert Results(path).broken == ["seed 7: job_1: charged 2 times"]


def test_a_failpoint_and_a_kind_that_are_gone_do_no_harm(path: Path) -> None:
    Results(path).record(session(7, 1, result(1, 10)))
    text = path.read_text().replace(PLACE.value, "gone.place").replace(KIND, "gone kind")
    path.write_text(text)
    read = Results(path)
    assert read.tally.places.total() == 0
    assert report(read).splitlines()[-2].startswith("| gone kind | 10 |")


def test_the_report_names_seeds_and_adds_them_up(path: Path) -> None:
    results = Results(path)
    results.record(session(7, 1, result(1, 10)))
    results.record(session(8, 1, result(1, 5, kind=OTHER)))
    results.record(session(7, 2, result(1, 3, first=2)))
    lines = report(results).splitlines()
    assert lines[0] == "Seed 7: 13 faults; seed 8: 5 faults. 3 minutes. python 3.11."
    assert lines[-3:] == [
        f"| {KIND} | 13 | 26 | 26 | 0 | 13 | 0 | 0 |",
        f"| {OTHER} | 5 | 10 | 10 | 0 | 5 | 0 | 0 |",
        "| **total** | 18 | 36 | 36 | 0 | 18 | 0 | 0 |",
    ]


def test_versions_that_differ_are_all_named(path: Path) -> None:
    results = Results(path)
    results.record(Session.of(7, 1, result(1, 1), {"python": "3.11"}))
    results.record(Session.of(8, 1, result(1, 1), {"python": "3.12"}))
    assert results.versions == {"python": "3.11 and 3.12"}


@pytest.mark.parametrize(
    ("goal", "faults", "seconds", "reached"),
    [
        (Goal(None, 100), 99, 10**6, False),
        (Goal(None, 100), 100, 0, True),
        (Goal(1, 100), 5, 60, True),
        (Goal(1, None), 10**6, 59, False),
        (Goal(None, None), 999, 0, False),  # not every checkpoint was attacked
        (Goal(None, None), 1000, 0, True),
    ],
)
def test_a_run_ends_at_its_goal(goal: Goal, faults: int, seconds: float, reached: bool) -> None:
    assert goal.is_reached(result(1, faults).tally, seconds) is reached


def test_a_lap_has_every_kind() -> None:
    laps = plan(99)
    faults = [fault for _ in range(ROUNDS_PER_LAP) for fault in next(laps)]
    assert {fault.kind for fault in faults} == set(every_kind())


def test_a_report_replaces_only_the_table_of_a_document(tmp_path: Path) -> None:
    document = tmp_path / "faults.md"
    document.write_text("# Fault runs\n\n<!-- table -->\n\nold\n\n<!-- /table -->\n\n## Failpoints\n")
    for text in ("first", "second"):
        publish(document, text)
    assert document.read_text() == ("# Fault runs\n\n<!-- table -->\n\nsecond\n\n<!-- /table -->\n\n## Failpoints\n")


def test_a_report_is_a_file_of_its_own_where_there_is_no_document(tmp_path: Path) -> None:
    publish(tmp_path / "report.md", "text")
    assert (tmp_path / "report.md").read_text() == "text\n"
