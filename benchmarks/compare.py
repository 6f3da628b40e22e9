"""``make bench-compare BASE=commit``: compares this tree with another commit in the same rounds of one run.

Each has its own Postgres, Valkey, sandbox and processes. The harness, the upstream and the generator are those of this
tree, so the other commit needs no benchmarks. If the lock files are equal, it shares this environment; otherwise
``scripts/setup`` creates one for it. Exits with 1 if a figure got worse by more than the tolerance, which is at least
half the spread of the rounds.
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
FLIGHT_ROUNDS = 3  # of P6; each takes a minute
LOCKS = ("requirements/dev.txt", "requirements/bootstrap.txt")
Sample = Callable[[], Awaitable[dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of both commits, round by round. ``more``: higher values are better."""

    name: str
    base: Sequence[float]
    head: Sequence[float]
    more: bool

    @property
    def ratio(self) -> float:
        """The median of the ratios of all rounds; above 1, head is better, whichever way the figure goes."""
        pairs = zip(self.head, self.base, strict=True)
        return statistics.median(ours / theirs if self.more else theirs / ours for ours, theirs in pairs)

    @property
    def tolerance(self) -> float:
        """Half the larger spread of the two, but at least ``TOLERANCE``."""
        return max(TOLERANCE, spread(self.base) / 2, spread(self.head) / 2)

    @property
    def worse(self) -> bool:
        return self.ratio < 1 - self.tolerance

    def row(self) -> list[str]:
        base, head = statistics.median(self.base), statistics.median(self.head)
        change = "WORSE" if self.worse else "better" if self.ratio > 1 + self.tolerance else "same"
        return [self.name, f"{base:,.2f}", f"{head:,.2f}", f"{self.ratio:.2f} ×", f"± {self.tolerance:.0%}", change]


async def compare(base: Code, options: Options) -> list[Change]:
    """Measure both commits alternately."""
    with workplace() as directory:
        async with AsyncExitStack() as stack:
            benches = {}
            for name, code in (("base", base), ("head", Code())):
                place = directory / name
                place.mkdir()
                chosen = Options(options.seconds, options.rounds, code=code)
                benches[name] = await stack.enter_async_context(opened(place, chosen))
            stored = {
                name: await throughput.store_jobs(bench.site, states=["running"]) for name, bench in benches.items()
            }
            found: dict[str, dict[str, list[float]]] = {"base": {}, "head": {}}
            for name, bench in benches.items():  # the warm-up
                await _windows(bench, stored[name].ids["running"])
            for name in _alternating(benches, options.rounds):
                _add(found[name], await _windows(benches[name], stored[name].ids["running"]))
            for sample, rounds in ((_jobs, options.rounds), (_polls, min(FLIGHT_ROUNDS, options.rounds))):
                for bench in benches.values():
                    await whole_jobs.clean(bench.site)
                for name in _alternating(benches, rounds):
                    _add(found[name], await sample(benches[name]))
    return [Change(name, found["base"][name], found["head"][name], more="per second" in name) for name in found["base"]]


def _alternating(benches: Mapping[str, Bench], rounds: int) -> Iterator[str]:
    """Each name once per round, in alternating order, so that drift affects both alike."""
    for number in range(rounds):
        yield from list(benches)[:: -1 if number % 2 else 1]


def _add(found: dict[str, list[float]], figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        found.setdefault(name, []).append(value)


async def _windows(bench: Bench, ids: Sequence[str]) -> dict[str, float]:
    """Measure P1 and P2 once."""
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
    """Measure P4 and whole jobs once."""
    times, _ = await latency.sample(bench, LATENCY_JOBS)
    await bench.site.worker.start()
    try:
        videos = await whole_jobs.through(bench, [bench.site.api], [bench.site.worker], whole_jobs.FEWEST)
    finally:
        await bench.site.worker.stop()
    return {
        "P4 create → upstream, p50 ms": percentile(times, 0.5),
        "whole jobs, per second": videos.rate,
        "whole jobs, CPU ms/job worker": videos.cpu["worker"],
        "whole jobs, CPU ms/job Postgres": videos.cpu["postgres"],
    }


async def _polls(bench: Bench) -> dict[str, float]:
    """Measure P6 once."""
    flown = await renders_in_flight.fly(bench, bench.site, bench.options.in_flight)
    return {
        "P6 polls, CPU ms each worker": 1000 * flown.worker / flown.polls,
        "P6 polls, CPU ms each Postgres": 1000 * flown.postgres / flown.polls,
        "P6 polls, MB worker": flown.loaded.rss,
    }


@contextmanager
def checked_out(commit: str) -> Iterator[Code]:
    """Check out a commit into a temporary directory, with an environment if it needs another one."""
    with tempfile.TemporaryDirectory(prefix="filmgate-base-") as directory:
        root = Path(directory) / "base"
        _run("git", "worktree", "add", "--detach", str(root), commit)
        try:
            if all((root / lock).exists() and filecmp.cmp(root / lock, ROOT / lock, False) for lock in LOCKS):
                yield Code(root)
            else:
                print("its lock files differ: creating an environment for it", flush=True)
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
        parser.error("no commit given; example: make bench-compare BASE=main")
    with checked_out(chosen.base) as base, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        changes = runner.run(compare(base, Options(rounds=chosen.rounds)))
    headings = ["figure", f"{chosen.base}", "this tree", "ratio (> 1 is better)", "tolerance", ""]
    print("\n".join(table(headings, [change.row() for change in changes])))
    sys.exit(1 if any(change.worse for change in changes) else 0)


if __name__ == "__main__":
    main()
