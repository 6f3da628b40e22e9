"""What a report says, and why."""

from pathlib import Path

from benchmarks.report import Section, notes, render
from benchmarks.stats import TargetResult

MISSED = TargetResult("P4", "create → upstream", 75, 60, 20, " ms", "less")


def test_a_missed_target_says_why_in_the_words_that_were_kept() -> None:
    section = Section("P4", "How.", ["a", "b"], [["1", "2"]], targets=[MISSED])
    text = render("Benchmark", "Here.", [section], {"P4": "the doorbell sleeps 20 ms"})
    assert "| P4 | create → upstream | 75 ms | ≤ 60 ms | ≤ 20 ms | no: the doorbell sleeps 20 ms |" in text
    assert "| a | b |\n|---|---|\n| 1 | 2 |" in text


def test_a_missed_target_without_a_reason_does_not_hide_it() -> None:
    assert "no (no reason recorded)" in render("B", "", [Section("P4", "", targets=[MISSED])], {})


def test_reasons_are_kept_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "notes.toml"
    assert notes(file) == {}
    file.write_text('P4 = "the doorbell sleeps"\n')
    assert notes(file) == {"P4": "the doorbell sleeps"}
