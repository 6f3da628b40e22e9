"""What the redactor does with any text and any value. What it must find is in test_logs.py."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.infra.redaction import Redactor


@given(some.text())
def test_any_text_can_be_redacted_and_twice_is_as_good_as_once(any_text: str) -> None:
    once = Redactor().text(any_text)
    assert Redactor().text(once) == once


@given(
    some.recursive(
        some.none() | some.integers() | some.text() | some.binary(),
        lambda x: some.lists(x) | some.dictionaries(some.text(), x),
        max_leaves=20,
    )
)
def test_any_value_can_be_redacted_into_json(value: Any) -> None:
    json.dumps(Redactor().value(value))


def test_a_value_that_contains_itself_has_an_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "[…]" in json.dumps(Redactor().value(endless), ensure_ascii=False)


def test_a_long_text_loses_its_middle() -> None:
    cut = Redactor().text("start" + "x" * 1_000_000 + "end")
    assert len(cut) < 20_000
    assert cut.startswith("start")
    assert cut.endswith("end")


@pytest.mark.parametrize("unit", ["a-", "a_", "token", "secret_", "://", "bearer ", "x:", "sig=", "fgk_"])
def test_a_text_made_to_be_slow_is_not(unit: str) -> None:
    # A pattern with quadratic backtracking would not come back from a megabyte of this within any test's patience.
    Redactor().text(unit * (1_000_000 // len(unit)))
    Redactor().value({unit * 1000: unit * 1000})


@pytest.mark.parametrize("said", ["is not set; set X_API_KEY", "must be text", "needs at least 32 characters"])
def test_what_is_said_about_a_secrets_name_can_be_read(said: str) -> None:
    for name in ("connections.runway.api_key", "secret_key"):
        assert Redactor().text(f"{name}: {said}") == f"{name}: {said}"
    assert Redactor().text("api_key: isotope") == "api_key: [redacted]"


def test_short_secrets_do_not_eat_the_log() -> None:
    assert Redactor(["x", "dev", ""]).text("xylophone dev") == "xylophone dev"
