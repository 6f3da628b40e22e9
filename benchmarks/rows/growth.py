"""P3: what creates and reads cost with many finished jobs, beside an empty database in the same rounds."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from app.ids import earliest
from benchmarks.bulk_jobs import Spread, copy, settle
from benchmarks.child_processes import Peer
from benchmarks.report import Section
from benchmarks.rows import renders_in_flight
from benchmarks.rows.throughput import as_uuid, creating, reading, shelve
from benchmarks.rows.whole_jobs import clean
from benchmarks.session import Bench, Client
from benchmarks.stack import Site
from benchmarks.stats import Measured, Typical, Verdict

STEPS = (10_000, 100_000, 1_000_000)
FIRST_COPY = 10_000_000  # their numbers are apart from those of the jobs that are read
CALLERS = 16
LIVE = timedelta(hours=6)  # copies of live jobs are younger, those of finished ones older
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
    """Grow a second database step by step; at each, windows in turns with the empty one."""
    full = await bench.stack.site("full", bench.options.code)
    await full.api.start()
    original = await _original(full)
    ids = {site.name: (await shelve(site, states=["running"])).ids["running"] for site in (bench.site, full)}
    rows: list[list[str]] = []
    ratios: dict[str, float] = {}
    there = 0
    for step in [step for step in STEPS if step <= bench.options.most_jobs]:
        await _grow(bench, full, original, there, step)
        there = step
        measured = await _windows(bench, [bench.site, full], ids)
        for path in ("POST", "GET"):
            empty, filled = (Typical.of(measured[f"{path} {site.name}"]) for site in (bench.site, full))
            # The middle of the rounds' own ratios: what disturbs the machine disturbs both.
            ratios[path] = statistics.median(
                one.count.rate / other.count.rate
                for one, other in zip(
                    measured[f"{path} {full.name}"], measured[f"{path} {bench.site.name}"], strict=True
                )
            )
            rows.append(_row(step, await _size(full), path, empty=empty, filled=filled, ratio=ratios[path]))
        bench.say(f"{step:,} finished jobs: creates {ratios['POST']:.0%}, reads {ratios['GET']:.0%} of empty")
    sections = [_section(rows, ratios, there)]
    await clean(bench.site)
    await clean(full, earliest(datetime.now(UTC) - LIVE))
    flown = await renders_in_flight.fly(bench, full, bench.options.in_flight, since=earliest(datetime.now(UTC) - LIVE))
    name = f"{flown.jobs:,}, with {there:,} finished"
    sections.append(
        Section("P6 with finished jobs in the tables", "As P6.", renders_in_flight.HEADINGS, [flown.row(name)])
    )
    await full.api.stop()
    return sections


async def _original(site: Site) -> str:
    """A job that ended well, with a webhook that was delivered."""
    async with Peer.running("receiver") as receiver, Client.of(site) as client:
        port = await receiver.ask({"listen": "127.0.0.1", "mode": "well"})
        await site.worker.start()
        job = await client.create(webhook_url=f"http://127.0.0.1:{port}/", metadata={"order": "100000000"})
        await client.reached(job["id"], "succeeded")
        while not await receiver.ask({"count": True}):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)
        await site.worker.stop()
        return str(job["id"])


async def _grow(bench: Bench, site: Site, original: str, there: int, to: int) -> None:
    began = time.perf_counter()
    spread, middle = Spread.past(STEPS[-1], FIRST_COPY), (there + to) // 2

    async def load(numbers: range) -> None:
        connection = await site.connect()
        try:
            await copy(connection, as_uuid(original), numbers, spread)
        finally:
            await connection.close()

    halves = ((there, middle), (middle, to))
    await asyncio.gather(*(load(range(FIRST_COPY + start, FIRST_COPY + end)) for start, end in halves))
    connection = await site.connect()
    await settle(connection)
    await connection.close()
    bench.say(f"{to - there:,} finished jobs more, in {time.perf_counter() - began:.0f} s")


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


def _section(rows: list[list[str]], ratios: dict[str, float], there: int) -> Section:
    intro = (
        f"Two databases in one cluster, each with an API process of its own; creates (with a key) and reads of running "
        f"jobs, c = {CALLERS}, in turns. The finished jobs are copies of a real one with its submission, "
        f"events, files, "
        "webhook delivery and key, spread over 19 days. In brackets the empty one's CPU in the same rounds; the last "
        "column is the median of the rounds' own ratios of the rates."
    )
    return Section(
        "P3: growth",
        intro,
        HEADINGS,
        rows,
        verdicts=[
            Verdict("P3", f"creates with {there:,} finished jobs, of empty", ratios["POST"] * 100, 90, None, " %"),
            Verdict("P3", "… reads", ratios["GET"] * 100, 90, None, " %"),
        ],
    )
