"""The report of a run: a table of figures and targets, then a section for each figure."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.stats import TargetResult, Typical

NOTES = Path(__file__).with_name("notes.toml")


@dataclass(frozen=True, slots=True)
class Section:
    """The section of one figure: a table with an introduction and its results against targets."""

    title: str
    intro: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    outro: str = ""
    targets: Sequence[TargetResult] = field(default_factory=tuple)


def notes(file: Path = NOTES) -> Mapping[str, str]:
    """Manually maintained reasons for missed targets, by key."""
    return tomllib.loads(file.read_text()) if file.exists() else {}


def render(title: str, preface: str, sections: Sequence[Section], reasons: Mapping[str, str]) -> str:
    """The whole report as Markdown."""
    lines = [f"# {title}", "", preface, ""]
    targets = [target for section in sections for target in section.targets]
    if targets:
        lines += table(
            ["#", "figure", "measured", "target", "stretch", "reached"],
            [_target_row(target, reasons) for target in targets],
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


def _target_row(target: TargetResult, reasons: Mapping[str, str]) -> list[str]:
    if target.reached:
        reached = "yes, and the stretch" if target.stretched else "yes"
    else:
        reason = reasons.get(target.key)
        reached = f"no: {reason}" if reason else "no (no reason recorded)"
    return [
        target.key,
        target.what,
        target.shown(target.value),
        target.goal(target.target),
        target.goal(target.stretch),
        reached,
    ]


THROUGHPUT = ("path", "c", "per second", "spread", "p50 ms", "p90 ms", "p99 ms")


def throughput_headings(parts: Sequence[str]) -> list[str]:
    """The headings of a table of throughput windows."""
    return [*THROUGHPUT, *(f"CPU ms/op {part}" for part in parts), "generator's CPU"]


def throughput_row(name: str, callers: int, one: Typical, parts: Sequence[str]) -> list[str]:
    """One row of such a table."""
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
