"""What a run writes: the figures beside their targets, then a section for each."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.stats import Typical, Verdict

NOTES = Path(__file__).with_name("notes.toml")


@dataclass(frozen=True, slots=True)
class Section:
    """One figure's part of the report: a table with a text around it, and what it says about targets."""

    title: str
    intro: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    outro: str = ""
    verdicts: Sequence[Verdict] = field(default_factory=tuple)


def notes(file: Path = NOTES) -> Mapping[str, str]:
    """Why a figure is not reached, by its key, in words that people keep."""
    return tomllib.loads(file.read_text()) if file.exists() else {}


def render(title: str, preface: str, sections: Sequence[Section], reasons: Mapping[str, str]) -> str:
    """The whole report as Markdown."""
    lines = [f"# {title}", "", preface, ""]
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    if verdicts:
        lines += table(
            ["#", "figure", "measured", "target", "stretch", "reached"],
            [_verdict_row(verdict, reasons) for verdict in verdicts],
        )
        lines.append("")
    for section in sections:
        lines += [f"## {section.title}", "", section.intro, ""]
        if section.rows:
            lines += [*table(section.headings, section.rows), ""]
        if section.outro:
            lines += [section.outro, ""]
    return "\n".join(lines)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [
        f"| {' | '.join(headings)} |",
        f"|{'---|' * len(headings)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _verdict_row(verdict: Verdict, reasons: Mapping[str, str]) -> list[str]:
    if verdict.reached:
        said = "yes, and the stretch" if verdict.stretched else "yes"
    else:
        reason = reasons.get(verdict.key)
        said = f"no: {reason}" if reason else "no (no reason is noted yet)"
    return [
        verdict.key,
        verdict.what,
        verdict.shown(verdict.value),
        verdict.goal(verdict.target),
        verdict.goal(verdict.stretch),
        said,
    ]


THROUGHPUT = ("path", "c", "per second", "spread", "p50 ms", "p90 ms", "p99 ms")


def throughput_headings(parts: Sequence[str]) -> list[str]:
    """The headings of a table of windows."""
    return [*THROUGHPUT, *(f"CPU ms/op {part}" for part in parts), "generator's CPU"]


def throughput_row(name: str, callers: int, one: Typical, parts: Sequence[str]) -> list[str]:
    """One line of such a table."""
    return [
        name,
        str(callers),
        f"{one.rate:,.0f}",
        f"± {one.spread / 2:.0%}",
        f"{one.p50:.1f}",
        f"{one.p90:.1f}",
        f"{one.p99:.1f}",
        *(f"{one.cpu[part]:.2f}" if part in one.cpu else "–" for part in parts),
        f"{one.generator:.0%}",
    ]
