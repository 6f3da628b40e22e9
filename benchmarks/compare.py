"""``make bench-compare BASE=commit``: this tree beside another commit, in the same rounds of one run.

Each has its own Postgres, Valkey and sandbox, and its own processes; the harness, the upstream and the generator are
today's, so the other commit needs no benchmarks of its own. Where its locks are ours it shares our environment;
otherwise ``scripts/setup`` makes one for it. Exits with 1 when a figure got worse by more than the tolerance, which is
never less than what the rounds of the run themselves lie apart.
"""

import argparse
import asyncio
import filecmp
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.load_generator import percentile
from benchmarks.report import table
from benchmarks.rows import latency, renders_in_flight, throughput, whole_jobs
from benchmarks.session import Bench, Options, opened
from benchmarks.stack import ROOT, Code, workplace
from benchmarks.stats import spread

TOLERANCE = 0.10
LATENCY_JOBS = 30
FLIGHT_ROUNDS = 3  # of P6, each of which takes a minute
LOCKS = ("requirements/dev.txt", "requirements/bootstrap.txt")
Sample = Callable[[], Awaitable[dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of both, round by round. ``more`` is whether more is better."""

    name: str
    base: Sequence[float]
    head: Sequence[float]
    more: bool

    @property
    def ratio(self) -> float:
        """Of ours to theirs; above 1 is better, whichever way the figure goes. The median of the rounds' own ratios."""
        pairs = zip(self.head, self.base, strict=True)
        return statistics.median(ours / theirs if self.more else theirs / ours for ours, theirs in pairs)

    @property
    def tolerance(self) -> float:
        """At least what the rounds lie apart: half the wider spread of the two."""
        return max(TOLERANCE, spread(self.base) / 2, spread(self.head) / 2)

    @property
    def worse(self) -> bool:
        return self.ratio < 1 - self.tolerance

    def row(self) -> list[str]:
        base, head = statistics.median(self.base), statistics.median(self.head)
        said = "WORSE" if self.worse else "better" if self.ratio > 1 + self.tolerance else "same"
        return [self.name, f"{base:,.2f}", f"{head:,.2f}", f"{self.ratio:.2f} ×", f"± {self.tolerance:.0%}", said]


async def compare(base: Code, options: Options) -> list[Change]:
    """Measure both, in turns."""
    with workplace() as directory:
        async with AsyncExitStack() as stack:
            benches = {}
            for name, code in (("base", base), ("head", Code())):
                place = directory / name
                place.mkdir()
                chosen = Options(options.seconds, options.rounds, code=code)
                benches[name] = await stack.enter_async_context(opened(place, chosen))
            shelves = {name: await throughput.shelve(bench.site, states=["running"]) for name, bench in benches.items()}
            found: dict[str, dict[str, list[float]]] = {"base": {}, "head": {}}
            for name, bench in benches.items():  # the warm-up
                await _windows(bench, shelves[name].ids["running"])
            for name in _turns(benches, options.rounds):
                _note(found[name], await _windows(benches[name], shelves[name].ids["running"]))
            for sample, rounds in ((_jobs, options.rounds), (_polls, min(FLIGHT_ROUNDS, options.rounds))):
                for bench in benches.values():
                    await whole_jobs.clean(bench.site)
                for name in _turns(benches, rounds):
                    _note(found[name], await sample(benches[name]))
    return [Change(name, found["base"][name], found["head"][name], more="per second" in name) for name in found["base"]]


def _turns(benches: Mapping[str, Bench], rounds: int) -> Iterator[str]:
    """Each of them once in every round, forwards and backwards, so that drift meets both alike."""
    for number in range(rounds):
        yield from list(benches)[:: -1 if number % 2 else 1]


def _note(found: dict[str, list[float]], figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        found.setdefault(name, []).append(value)


async def _windows(bench: Bench, ids: Sequence[str]) -> dict[str, float]:
    """P1 and P2 once."""
    meter = bench.meter(api=bench.site.api.process)
    figures: dict[str, float] = {}
    for name, window in (
        ("P1 creates", throughput.creating(bench, bench.site, meter, 16)),
        ("P2 reads", throughput.reading(bench, bench.site, meter, ids, 16)),
    ):
        one = await window()
        figures |= {
            f"{name}, per second": one.count.rate,
            f"{name}, p99 ms": one.count.p99,
            f"{name}, CPU ms/op API": one.cpu["api"],
            f"{name}, CPU ms/op Postgres": one.cpu["postgres"],
        }
    return figures


async def _jobs(bench: Bench) -> dict[str, float]:
    """P4 and whole jobs once."""
    times, _ = await latency.sample(bench, LATENCY_JOBS)
    await bench.site.worker.start()
    try:
        films = await whole_jobs.through(bench, [bench.site.api], [bench.site.worker], whole_jobs.FEWEST)
    finally:
        await bench.site.worker.stop()
    return {
        "P4 create → upstream, p50 ms": percentile(times, 0.5),
        "whole jobs, per second": films.rate,
        "whole jobs, CPU ms/job worker": films.cpu["worker"],
        "whole jobs, CPU ms/job Postgres": films.cpu["postgres"],
    }


async def _polls(bench: Bench) -> dict[str, float]:
    """P6 once."""
    flown = await renders_in_flight.fly(bench, bench.site, bench.options.in_flight)
    return {
        "P6 polls, CPU ms each worker": 1000 * flown.worker / flown.polls,
        "P6 polls, CPU ms each Postgres": 1000 * flown.postgres / flown.polls,
        "P6 polls, MB worker": flown.loaded.rss,
    }


@contextmanager
def checked_out(commit: str) -> Iterator[Code]:
    """A commit in a directory of its own, with an environment; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="filmgate-base-") as directory:
        root = Path(directory) / "base"
        _run("git", "worktree", "add", "--detach", str(root), commit)
        try:
            if all((root / lock).exists() and filecmp.cmp(root / lock, ROOT / lock, False) for lock in LOCKS):
                yield Code(root)
            else:
                print("its locks are others than ours: making an environment for it", flush=True)
                _run(str(root / "scripts" / "setup"), directory=root)
                yield Code(root, root / ".venv" / "bin" / "python")
        finally:
            _run("git", "worktree", "remove", "--force", str(root))


def _run(*command: str, directory: Path = ROOT) -> None:
    subprocess.run(command, cwd=directory, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--base", required=True, help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if not chosen.base:
        parser.error("name a commit: make bench-compare BASE=main")
    with checked_out(chosen.base) as base, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        changes = runner.run(compare(base, Options(rounds=chosen.rounds)))
    headings = ["figure", f"{chosen.base}", "this tree", "ratio (> 1 is better)", "tolerance", ""]
    print("\n".join(table(headings, [change.row() for change in changes])))
    sys.exit(1 if any(change.worse for change in changes) else 0)


if __name__ == "__main__":
    main()
