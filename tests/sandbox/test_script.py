"""The language of the brackets."""

import pytest

from app.sandbox.script import BRACKETS, Counts, Reading, Refusal, Verdict, read


def test_a_prompt_without_brackets_scripts_nothing() -> None:
    script = read("  a fox,  twice  ")
    assert script.text == "a fox,  twice"
    assert not script.asked


def test_several_brackets_combine_and_leave_the_text() -> None:
    script = read("[slow:2.5] a fox [flaky:3][fail:moderation] in snow")
    assert script.text == "a fox in snow"
    assert script.number("slow") == 2.5
    assert script.number("flaky") == 3
    assert script.verdict is Verdict.INPUT_MODERATION


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
