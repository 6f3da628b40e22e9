"""Findings as values, and helpers that format figures, durations and ids in their messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.ids import Prefix, encode
from app.jobs.db.audit import JobGroup
from app.printable import printable

#: Work that has been due for longer than this counts as overdue.
LATE_SECONDS = 60
START_WORKERS = "Start workers (filmgate worker); if they are running, check their logs."


class Severity(StrEnum):
    """A problem requires action; a notice is for information."""

    PROBLEM = "problem"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: a stable code, a message that describes it, and advice on what to do.

    ``facts`` holds the figures and ids of the message as JSON values.
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
    """A duration in the largest unit of which it has at least two."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def some(names: Sequence[str], count: int) -> str:
    """The given names, and how many of ``count`` are left out."""
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return ", ".join(names) + more


def jobs(ids: Sequence[UUID]) -> list[str]:
    """The public ids of jobs."""
    return [encode(Prefix.JOB, job_id) for job_id in ids]


def named(group: JobGroup) -> str:
    """The public ids of some jobs of a group."""
    return some(jobs(group.jobs), group.count)


def facts_of(group: JobGroup) -> dict[str, Any]:
    """The figures of a group, as facts of a finding."""
    return {"count": group.count, "oldest_seconds": round(group.oldest), "jobs": jobs(group.jobs)}


def one_line(message: str | None, longest: int = 200) -> str:
    """A message of a provider or a driver on one line, shortened, without its final full stop."""
    line = " ".join(printable(message or "no reason known").split()).rstrip(".")
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
