"""The figures of a report: medians, spreads, percentiles, and what is said about a target."""

import pytest

from benchmarks.compare import Change
from benchmarks.load_generator import Count, counted, percentile
from benchmarks.stats import Measured, TargetResult, Typical, spread
from benchmarks.trend import Limit, trends


def a_window(rate: float, p99: float = 5) -> Measured:
    return Measured(Count(100, 110, 1.0, rate, 1, 2, p99, 9, 0.1), {"api": 1000 / rate})


def test_the_middle_of_the_rounds_counts_figure_by_figure() -> None:
    typical = Typical.of([a_window(100, 9), a_window(400, 3), a_window(200, 30)])
    assert (typical.rate, typical.p99, typical.cpu["api"]) == (200, 9, 5)
    assert typical.spread == 1.5


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.9, 90), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_window_in_which_nothing_succeeded_is_a_failure() -> None:
    assert counted([], 3, 1.0, 0.5).failure == "no request was completed"


def test_equal_values_lie_nowhere_apart() -> None:
    assert spread([7, 7, 7]) == 0


@pytest.mark.parametrize(
    ("value", "reached", "stretched"),
    [(1500, True, False), (2500, True, True), (1499, False, False)],
)
def test_a_target_is_reached_at_its_number(value: float, reached: bool, stretched: bool) -> None:
    target = TargetResult("P1", "creates", value, 1500, 2500)
    assert (target.reached, target.stretched) == (reached, stretched)


def test_of_some_figures_less_is_better() -> None:
    assert TargetResult("P4", "p50", 60, 60, 20, better="less").reached
    assert not TargetResult("P4", "p50", 61, 60, 20, better="less").reached


def test_a_change_within_what_the_rounds_lie_apart_is_none() -> None:
    assert not Change("creates, per second", [100, 160, 130], [90, 140, 100], more=True).worse
    assert Change("creates, per second", [100, 102, 101], [80, 81, 82], more=True).worse
    assert Change("CPU ms/op", [1.0, 1.0, 1.0], [1.3, 1.3, 1.3], more=False).worse
    assert not Change("CPU ms/op", [1.3, 1.3, 1.3], [1.0, 1.0, 1.0], more=False).worse


def test_growth_is_the_last_quarter_against_the_first() -> None:
    samples = [{"leaks": 100.0 + 5 * number, "steady": 50.0, "shown": float(number)} for number in range(16)]
    leaks, steady, shown = trends(samples, {"leaks": Limit(0.1, 8), "steady": Limit(0.1, 8)})
    assert (leaks.grew, steady.grew, shown.grew) == (True, False, False)
    assert leaks.first < leaks.last


def test_too_few_samples_give_no_result() -> None:
    with pytest.raises(ValueError, match="too few"):
        trends([{"leaks": 1.0}] * 7, {})
