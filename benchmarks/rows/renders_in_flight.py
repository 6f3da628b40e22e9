"""P6: many renders in flight on one worker."""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from benchmarks.bulk_jobs import delete_jobs
from benchmarks.load_generator import percentile
from benchmarks.report import Section
from benchmarks.resource_meter import Memory
from benchmarks.rows.throughput import store_jobs
from benchmarks.session import Bench
from benchmarks.stack import Site
from benchmarks.stats import TargetResult

INTERVAL = 10.0
JITTER = 0.2  # of the product's poll intervals
SETTLE_SECONDS = 15.0  # longer than an interval with jitter, so that every job is polled once
WATCH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Flight:
    """Usage with ``jobs`` jobs in flight. ``worker`` and ``postgres`` are shares of a core; ``overdue`` is the delay of
    the most overdue job in seconds, sampled once a second; ``gaps`` are the seconds between two polls of a job."""

    jobs: int
    worker: float
    postgres: float
    idle: Memory
    loaded: Memory
    polls: float
    gaps: Sequence[float]
    overdue: Sequence[float]

    @property
    def due(self) -> float:
        """Polls per second by the configured interval."""
        return self.jobs / INTERVAL

    def row(self, name: str) -> list[str]:
        return [
            name,
            f"{self.worker:.0%}",
            f"{self.postgres:.0%}",
            f"{self.loaded.rss:.0f} ({self.idle.rss:.0f})",
            f"{self.polls:,.0f} of {self.due:,.0f}",
            f"{statistics.median(self.gaps):.1f} / {percentile(self.gaps, 0.99):.1f} / {max(self.gaps):.1f}",
            f"{statistics.median(self.overdue):.2f} / {max(self.overdue):.2f}",
        ]


HEADINGS = (
    "jobs in flight",
    "worker, of a core",
    "Postgres",
    "worker's RSS MB (before)",
    "polls per second",
    "s between polls p50 / p99 / longest",
    "most overdue s, p50 / longest",
)


async def measure(bench: Bench) -> list[Section]:
    """Measure on the site with an empty database."""
    flight = await fly(bench, bench.site, bench.options.in_flight)
    intro = (
        f"One worker; each render is polled every {INTERVAL:g} s (± {JITTER:.0%}) over keep-alive connections at an "
        "upstream whose jobs never end. The jobs are copies of a real one in `running`, initially all due at once; "
        f"after {SETTLE_SECONDS:g} s, {WATCH_SECONDS:g} s are measured."
    )
    late = percentile(flight.gaps, 0.99) - INTERVAL * (1 + JITTER)
    outro = f"99 % of the polls were at most {max(0.0, late):.1f} s later than the interval allows."
    return [
        Section("P6: jobs in flight", intro, HEADINGS, [flight.row(f"{flight.jobs:,}")], outro, targets=targets(flight))
    ]


def targets(flight: Flight) -> list[TargetResult]:
    name = f"{flight.jobs:,} jobs in flight"
    return [
        TargetResult("P6", f"{name}: worker's CPU", flight.worker * 100, 50, None, " %", "less"),
        TargetResult("P6", "… worker's memory", flight.loaded.rss, 250, None, " MB", "less"),
        TargetResult("P6", "… polls done of those due", flight.polls / flight.due * 100, 97, None, " %"),
    ]


async def fly(bench: Bench, site: Site, jobs: int, *, since: UUID | None = None) -> Flight:
    """Put ``jobs`` jobs in flight, measure, and delete all jobs; with ``since``, only those with ids from it on."""
    await store_jobs(site, states=["running"], number=jobs)
    bench.say(f"{jobs:,} jobs are in flight")
    await site.worker.start()
    try:
        idle = Memory.of(site.worker.process)
        await bench.upstream.ask({"polls": "reset"})
        await asyncio.sleep(SETTLE_SECONDS)
        await bench.upstream.ask({"polls": True})
        meter = bench.meter(worker=site.worker.process)
        before = meter.read()
        overdue = await _overdue(site)
        used = meter.read().since(before)
        seen = await bench.upstream.ask({"polls": True})
        loaded = Memory.of(site.worker.process)
    finally:
        await site.worker.stop()
    connection = await site.connect()
    await delete_jobs(connection, since)
    await connection.close()
    return Flight(
        jobs,
        used.share("worker"),
        used.share("postgres"),
        idle,
        loaded,
        seen["polls"] / used.seconds,
        seen["gaps"],
        overdue,
    )


async def _overdue(site: Site) -> list[float]:
    connection = await site.connect()
    query = "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(next_at)), 0)::float8 FROM schedule"
    overdue = []
    for _ in range(int(WATCH_SECONDS)):
        await asyncio.sleep(1)
        overdue.append(max(0.0, await connection.fetchval(query)))
    await connection.close()
    return overdue
