"""What the doctor found, as values, and the words for figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.ids import Prefix, encode
from app.jobs.db.audit import Tally
from app.printable import printable

#: What is due for longer than this, nobody works on.
LATE_SECONDS = 60
START_WORKERS = "Start workers (filmgate worker); where they run, their logs say what holds them up."


class Severity(StrEnum):
    """Whether somebody has to do something."""

    PROBLEM = "problem"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing, by a code that stays the same: a sentence that says it, and one that says what to do.

    ``facts`` are the figures and ids of the sentence, as JSON values.
    """

    code: str
    severity: Severity
    message: str
    advice: str
    facts: Mapping[str, Any]


def problem(code: str, message: str, advice: str, **facts: Any) -> Finding:
    return Finding(code, Severity.PROBLEM, message, advice, facts)


def notice(code: str, message: str, advice: str, **facts: Any) -> Finding:
    return Finding(code, Severity.NOTICE, message, advice, facts)


def counted(count: int, one: str, many: str) -> str:
    """``counted(2, "job is", "jobs are")`` is "2 jobs are"."""
    return f"{count} {one if count == 1 else many}"


def lasting(seconds: float) -> str:
    """A time in the unit that a person would use."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def some(names: Sequence[str], count: int) -> str:
    """Names out of so many in all."""
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return ", ".join(names) + more


def jobs(ids: Sequence[UUID]) -> list[str]:
    """Jobs as callers know them."""
    return [encode(Prefix.JOB, job_id) for job_id in ids]


def named(tally: Tally) -> str:
    """Some of the jobs of a tally."""
    return some(jobs(tally.jobs), tally.count)


def facts_of(tally: Tally) -> dict[str, Any]:
    """The figures of a tally."""
    return {"count": tally.count, "oldest_seconds": round(tally.oldest), "jobs": jobs(tally.jobs)}


def one_line(words: str | None, longest: int = 200) -> str:
    """What a provider or a driver said, short, as the end of a sentence of ours."""
    line = " ".join(printable(words or "no reason known").split()).rstrip(".")
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
