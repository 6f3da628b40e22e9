"""What follows from an attempt: the schedule as documented."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.settings import WebhookSettings
from app.webhooks.retry import Delivered, GiveUp, RetryIn, decide, read_retry_after

DELAYS = WebhookSettings().delays
DAY = 86_400.0
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
FAILURES = [None, 100, 199, 300, 301, 302, 307, 400, 401, 404, 408, 409, 429, 500, 502, 503, 599]


def test_delays_are_the_documented_ones() -> None:
    minute, hour = 60, 3600
    documented = (0, 5, minute, 5 * minute, 30 * minute, *(hours * hour for hours in (2, 5, 10, 14, 20, 24)))
    assert documented == DELAYS


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("number", [1, 11])
def test_any_2xx_delivers_even_at_the_last_attempt(status: int, number: int) -> None:
    assert decide(status, None, number, DELAYS) == Delivered()


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("number", range(1, 11))
def test_every_failure_waits_for_the_documented_delay_within_a_fifth(status: int | None, number: int) -> None:
    decision = decide(status, None, number, DELAYS)
    assert isinstance(decision, RetryIn)
    assert 0.8 * DELAYS[number] <= decision.seconds <= 1.2 * DELAYS[number]


def test_delays_are_spread() -> None:
    assert len({decide(500, None, 5, DELAYS) for _ in range(50)}) > 25


@pytest.mark.parametrize("status", FAILURES)
def test_failure_of_the_last_attempt_gives_up(status: int | None) -> None:
    assert decide(status, 60.0, len(DELAYS), DELAYS) == GiveUp()


@pytest.mark.parametrize("number", [1, 5, 11])
def test_gone_gives_up_at_once(number: int) -> None:
    assert decide(410, 60.0, number, DELAYS) == GiveUp()


@given(st.sampled_from(FAILURES), st.floats(min_value=0), st.integers(1, 10))
def test_retry_after_lengthens_up_to_a_day_and_never_shortens(
    status: int | None, retry_after: float, number: int
) -> None:
    decision = decide(status, retry_after, number, DELAYS)
    assert isinstance(decision, RetryIn)
    assert min(retry_after, DAY) <= decision.seconds <= max(min(retry_after, DAY), 1.2 * DELAYS[number])
    assert decision.seconds >= 0.8 * DELAYS[number]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 400, float("inf")),
        ("Sun, 22 Nov 2026 12:01:00 GMT", 60.0),
        ("Sunday, 22-Nov-26 12:01:00 GMT", 60.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 22 Nov 2026 12:01:00 -0000", 60.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("nan", None),
        ("1_000", None),
        ("٣", None),
        ("soon", None),
        ("Sun, 99 Nov 99999999999999999999 12:01:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_ignored(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_can_break_the_attempt(value: str) -> None:
    seconds = read_retry_after(value, NOW)
    assert seconds is None or seconds >= 0
