"""P3: cost of creates and reads with many finished jobs, compared with an empty database in the same rounds."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from app.ids import earliest
from benchmarks.bulk_jobs import Spread, copy, vacuum
from benchmarks.child_processes import Peer
from benchmarks.report import Section
from benchmarks.rows import renders_in_flight
from benchmarks.rows.throughput import as_uuid, creating, reading, store_jobs
from benchmarks.rows.whole_jobs import clean
from benchmarks.session import Bench, Client
from benchmarks.stack import Site
from benchmarks.stats import Measured, TargetResult, Typical

STEPS = (10_000, 100_000, 1_000_000)
FIRST_COPY = 10_000_000  # distinct from the numbers of the jobs that are read
CALLERS = 16
LIVE = timedelta(hours=6)  # copies of live jobs are younger than this, those of finished jobs older
HEADINGS = (
    "finished jobs",
    "database",
    "path",
    "per second",
    "p99 ms",
    "CPU ms/op API",
    "CPU ms/op Postgres",
    "empty, same rounds",
    "against empty",
)


async def measure(bench: Bench) -> list[Section]:
    """Grow a second database in steps, and measure it alternately with the empty one at each step."""
    full = await bench.stack.site("full", bench.options.code)
    await full.api.start()
    original = await _original(full)
    ids = {site.name: (await store_jobs(site, states=["running"])).ids["running"] for site in (bench.site, full)}
    rows: list[list[str]] = []
    ratios: dict[str, float] = {}
    current = 0
    for step in [step for step in STEPS if step <= bench.options.most_jobs]:
        await _grow(bench, full, original, current, step)
        current = step
        measured = await _windows(bench, [bench.site, full], ids)
        for path in ("POST", "GET"):
            empty, filled = (Typical.of(measured[f"{path} {site.name}"]) for site in (bench.site, full))
            # The median of the ratios within rounds, since disturbances of the machine affect both.
            ratios[path] = statistics.median(
                one.count.rate / other.count.rate
                for one, other in zip(
                    measured[f"{path} {full.name}"], measured[f"{path} {bench.site.name}"], strict=True
                )
            )
            rows.append(_row(step, await _size(full), path, empty=empty, filled=filled, ratio=ratios[path]))
        bench.say(f"{step:,} finished jobs: creates {ratios['POST']:.0%}, reads {ratios['GET']:.0%} of empty")
    sections = [_section(rows, ratios, current)]
    await clean(bench.site)
    await clean(full, earliest(datetime.now(UTC) - LIVE))
    flown = await renders_in_flight.fly(bench, full, bench.options.in_flight, since=earliest(datetime.now(UTC) - LIVE))
    name = f"{flown.jobs:,}, with {current:,} finished"
    sections.append(
        Section("P6 with finished jobs in the tables", "As P6.", renders_in_flight.HEADINGS, [flown.row(name)])
    )
    await full.api.stop()
    return sections


async def _original(site: Site) -> str:
    """Create a job that succeeds and whose webhook is delivered; returns its id."""
    async with Peer.running("receiver") as receiver, Client.of(site) as client:
        port = await receiver.ask({"listen": "127.0.0.1", "mode": "well"})
        await site.worker.start()
        job = await client.create(webhook_url=f"http://127.0.0.1:{port}/", metadata={"order": "100000000"})
        await client.reached(job["id"], "succeeded")
        while not await receiver.ask({"count": True}):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)
        await site.worker.stop()
        return str(job["id"])


async def _grow(bench: Bench, site: Site, original: str, current: int, target: int) -> None:
    began = time.perf_counter()
    spread, middle = Spread.past(STEPS[-1], FIRST_COPY), (current + target) // 2

    async def load(numbers: range) -> None:
        connection = await site.connect()
        try:
            await copy(connection, as_uuid(original), numbers, spread)
        finally:
            await connection.close()

    halves = ((current, middle), (middle, target))
    await asyncio.gather(*(load(range(FIRST_COPY + start, FIRST_COPY + end)) for start, end in halves))
    connection = await site.connect()
    await vacuum(connection)
    await connection.close()
    bench.say(f"added {target - current:,} finished jobs in {time.perf_counter() - began:.0f} s")


async def _windows(bench: Bench, sites: Sequence[Site], ids: dict[str, Sequence[str]]) -> dict[str, list[Measured]]:
    windows: dict[str, Callable[[], Awaitable[Measured]]] = {}
    for site in sites:
        meter = bench.meter(api=site.api.process)
        windows[f"POST {site.name}"] = creating(bench, site, meter, CALLERS, keyed=True)
        windows[f"GET {site.name}"] = reading(bench, site, meter, ids[site.name], CALLERS)
    for window in windows.values():
        await window()  # warm-up
    return await bench.interleaved(windows)


async def _size(site: Site) -> str:
    connection = await site.connect()
    try:
        size: int = await connection.fetchval("SELECT pg_database_size(current_database())")
    finally:
        await connection.close()
    return f"{size / 2**30:.2f} GB"


def _row(step: int, size: str, path: str, *, empty: Typical, filled: Typical, ratio: float) -> list[str]:
    return [
        f"{step:,}",
        size,
        "`POST /v1/jobs`" if path == "POST" else "`GET /v1/jobs/{id}`",
        f"{filled.rate:,.0f} ± {filled.spread / 2:.0%}",
        f"{filled.p99:.1f}",
        f"{filled.cpu['api']:.2f} ({empty.cpu['api']:.2f})",
        f"{filled.cpu['postgres']:.2f} ({empty.cpu['postgres']:.2f})",
        f"{empty.rate:,.0f} ± {empty.spread / 2:.0%}",
        f"{ratio:.0%}",
    ]


def _section(rows: list[list[str]], ratios: dict[str, float], jobs: int) -> Section:
    intro = (
        f"Two databases in one cluster, each with its own API process; creates (with an idempotency key) and reads of "
        f"running jobs, c = {CALLERS}, measured alternately. The finished jobs are copies of a real one with its "
        "submission, events, files, webhook delivery and key, spread over 19 days. CPU of the empty database in "
        "parentheses; the last column is the median of the ratios of the rates within rounds."
    )
    return Section(
        "P3: growth",
        intro,
        HEADINGS,
        rows,
        targets=[
            TargetResult("P3", f"creates with {jobs:,} finished jobs, of empty", ratios["POST"] * 100, 90, None, " %"),
            TargetResult("P3", "… reads", ratios["GET"] * 100, 90, None, " %"),
        ],
    )
