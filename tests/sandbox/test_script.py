"""The language of the brackets."""

from pathlib import Path

import pytest

from app.sandbox.counts import Counts, Reading
from app.sandbox.phases import Phase
from app.sandbox.script import BRACKETS, FINAL_WORDS, JobFailure, Refusal, read

DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()


def test_a_prompt_without_brackets_scripts_nothing() -> None:
    script = read("  a fox,  twice  ")
    assert script.text == "a fox,  twice"
    assert not script.asked


def test_several_brackets_combine_and_leave_the_text() -> None:
    script = read("[slow:2.5] a fox [flaky:3][fail:moderation] in snow")
    assert script.text == "a fox in snow"
    assert script.number("slow") == 2.5
    assert script.number("flaky") == 3
    assert script.failure is JobFailure.INPUT_MODERATION


@pytest.mark.parametrize(
    "text", ["[sic] a fox", "[fail:often]", "[slow:soon]", "[never:2]", "a [ fox ]", "[huge", "[]"]
)
def test_unknown_brackets_are_just_text(text: str) -> None:
    script = read(text)
    assert script.text == text
    assert not script.asked


def test_a_number_that_is_left_out_has_its_default() -> None:
    assert read("[late]").number("late") == 20
    assert read("[429]").number("429") == 1
    assert read("a fox").number("late") == 0


@pytest.mark.parametrize("name", BRACKETS)
def test_every_example_is_in_the_language(name: str) -> None:
    assert name in read(BRACKETS[name].example).asked


@pytest.mark.parametrize(
    ("name", "word"), [(name, word) for name, bracket in BRACKETS.items() for word in bracket.words or ()]
)
def test_every_word_is_documented(name: str, word: str) -> None:
    assert name in read(f"[{name}:{word}]" if word else f"[{name}]").asked
    bracket = BRACKETS[name]
    assert not word or word in bracket.example or word in bracket.meaning


@pytest.mark.parametrize("name", BRACKETS)
def test_the_documentation_lists_the_whole_language(name: str) -> None:
    words = BRACKETS[name].words
    forms = [f"`[{name}:"] if words is None else [f"`[{name}:{word}]`" if word else f"`[{name}]`" for word in words]
    assert [form for form in forms if form not in DOCUMENTATION] == []


def test_the_end_that_a_script_asks_for() -> None:
    assert set(FINAL_WORDS) == set(BRACKETS["final"].words or ())
    assert read("[final:aborted]").end is Phase.CANCELED
    assert read("[final:error]").failure is JobFailure.INTERNAL
    assert read("[final:done]").failure is None
    assert read("a fox").end is None


def test_a_count_belongs_to_a_dialect_and_a_prompt() -> None:
    counts, script = Counts(), read("[429:2]")
    first = [counts.refusal("openai", "[429:2]", script) for _ in range(3)]
    assert first == [Refusal.RATE_LIMIT, Refusal.RATE_LIMIT, None]
    assert counts.refusal("runway", "[429:2]", script) is Refusal.RATE_LIMIT
    assert counts.refusal("openai", "[429:2] other", script) is Refusal.RATE_LIMIT
    counts.forget()
    assert counts.refusal("openai", "[429:2]", script) is Refusal.RATE_LIMIT


def test_a_reply_is_lost_once_per_submission() -> None:
    counts, script = Counts(), read("[lose-reply]")
    lost = [counts.loses_reply("openai", "p", script, reference) for reference in ("a", "a", "b", None, None)]
    assert lost == [True, False, True, True, False]


def test_troubles_of_status_reads_come_one_after_the_other() -> None:
    counts, script = Counts(), read("[flaky:1] [gone:1] [odd-status:1]")
    readings = [counts.reading("openai", "p", script) for _ in range(4)]
    assert readings == [Reading.UNAVAILABLE, Reading.MISSING, Reading.ODD_STATUS, Reading.STRAIGHT]
