"""The results file of ``make faults``: what every process counted for its seed, written after each audited round.

A session is what one process did: rounds of one seed's plan, from ``first_round`` on, against a gateway of its own. Its
counts are sums, so sessions of all seeds can be added up.
"""

import fcntl
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from app.failpoints import Failpoint
from tests.faults.findings import FaultCounts, Row
from tests.faults.run import Result


class ResultsError(Exception):
    """A results file that cannot be used; the message says why."""


@dataclass(slots=True)
class Session:
    """``rounds`` audited rounds of a seed's plan, from ``first_round`` (from 1) on."""

    seed: int
    first_round: int
    rounds: int = 0
    seconds: float = 0.0
    tally: FaultCounts = field(default_factory=FaultCounts)
    rows: Mapping[str, Row] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int, first_round: int, result: Result, versions: Mapping[str, str]) -> Self:
        """What a run came to so far."""
        rows, broken = dict(result.findings.rows), list(result.findings.broken)
        return cls(seed, first_round, len(result.rounds), result.seconds, result.tally, rows, broken, versions)

    @property
    def next_round(self) -> int:
        return self.first_round + self.rounds

    def stored(self) -> dict[str, Any]:
        """As JSON values."""
        counted = {
            "faults": dict(self.tally.faults),
            "places": {place.value: n for place, n in self.tally.places.items()},
        }
        rows = {kind: asdict(row) for kind, row in self.rows.items()}
        facts = {"seed": self.seed, "first_round": self.first_round, "rounds": self.rounds, "seconds": self.seconds}
        return {**facts, **counted, "rows": rows, "broken": self.broken, "versions": dict(self.versions)}

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Self:
        known = set(Failpoint)  # a checkpoint that is gone has nothing to be counted for
        places = {Failpoint(place): n for place, n in values["places"].items() if place in known}
        return cls(
            seed=values["seed"],
            first_round=values["first_round"],
            rounds=values["rounds"],
            seconds=values["seconds"],
            tally=FaultCounts(Counter(values["faults"]), Counter(places)),
            rows={kind: Row(**row) for kind, row in values["rows"].items()},
            broken=values["broken"],
            versions=values["versions"],
        )


class Results:
    """All sessions of a file, or of this process alone where there is no file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._sessions: dict[tuple[int, int], Session] = {}
        if path is not None and path.exists():
            self._read(path)

    @property
    def sessions(self) -> list[Session]:
        """In the order in which they were begun."""
        return list(self._sessions.values())

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.sessions)

    @property
    def broken(self) -> list[str]:
        return [f"seed {one.seed}: {words}" for one in self.sessions for words in one.broken]

    @property
    def tally(self) -> FaultCounts:
        """The faults of all sessions."""
        tally = FaultCounts()
        for one in self.sessions:
            tally.add(one.tally)
        return tally

    @property
    def rows(self) -> Mapping[str, Row]:
        """The rows of all sessions, by kind of fault."""
        rows: defaultdict[str, Row] = defaultdict(Row)
        for one in self.sessions:
            for kind, row in one.rows.items():
                rows[kind] += row
        return rows

    @property
    def versions(self) -> Mapping[str, str]:
        """What was tested; several versions where sessions differ."""
        found: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for one in self.sessions:
            for name, version in one.versions.items():
                found[name][version] = None
        return {name: " and ".join(versions) for name, versions in found.items()}

    def next_round(self, seed: int) -> int:
        """The first round of a seed's plan that has not been audited."""
        return max((one.next_round for one in self.sessions if one.seed == seed), default=1)

    def record(self, session: Session) -> None:
        """Replace what this session counted before, in the file too."""
        self._sessions[session.seed, session.first_round] = session
        if self._path is not None:
            self._write(self._path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing the same file.

        Raises:
            ResultsError: another process holds it.
        """
        if self._path is None:
            yield
            return
        with _beside(self._path, ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ResultsError(f"{self._path} is being written by another run") from None
            yield

    def _read(self, path: Path) -> None:
        try:
            sessions = [Session.restored(values) for values in json.loads(path.read_text())["sessions"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path} is not a results file: {error!r}") from None
        self._sessions = {(one.seed, one.first_round): one for one in sessions}

    def _write(self, path: Path) -> None:
        """All or nothing: a process killed meanwhile leaves the file as it was."""
        text = json.dumps({"sessions": [one.stored() for one in self.sessions]}, indent=1)
        written = _beside(path, ".tmp")
        with written.open("w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
