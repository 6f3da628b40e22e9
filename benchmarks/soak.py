"""``make soak MINUTES=60``: a long mixed load at a modest rate, to detect growth of memory, files or tables.

Samples are written to a CSV file as they are taken. The run passes if no request failed, every job ended as expected,
every webhook arrived, ``filmgate doctor`` reports no problem, and usage in the last quarter does not exceed that in the
first by more than the limits.
"""

import argparse
import asyncio
import csv
import os
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import asyncpg
import psutil
import uvloop

from benchmarks.child_processes import Peer
from benchmarks.mixed_load import LoadStats, MixedLoad
from benchmarks.report import table
from benchmarks.session import Bench, Options, opened
from benchmarks.stack import Code, workplace
from benchmarks.trend import Limit, trends

RESULTS = Path(__file__).parent / "results"
SAMPLE_SECONDS = 15.0
END_SECONDS = 120.0
NICE = 10  # lower priority than other processes on the machine
PROCESS_LIMITS = {
    "RSS MB": Limit(0.10, 8),
    "fds": Limit(0.10, 10),
    "threads": Limit(0, 4),
    "CPU %": Limit(0.20, 5),
    "tasks": Limit(0.20, 10),
}
LIMITS = {
    **{f"{part} {name}": limit for part in ("api", "worker") for name, limit in PROCESS_LIMITS.items()},
    "postgres connections": Limit(0, 4),
    "valkey MB": Limit(0.10, 2),
    "schedule MB": Limit(0.25, 1),
    "watches MB": Limit(0.25, 1),
    "jobs live": Limit(0.25, 20),
    "valkey keys": Limit(0.25, 20),
}
_TABLES = """
    SELECT relname, n_live_tup::float8 AS live, n_dead_tup::float8 AS dead,
        pg_total_relation_size(relid)::float8 / 1048576 AS mb
    FROM pg_stat_user_tables
"""


class Sampler:
    """Samples the resource usage of all parts."""

    def __init__(self, bench: Bench, connection: asyncpg.Connection) -> None:
        self._bench = bench
        self._connection = connection
        self._cpu: dict[str, tuple[float, float]] = {}

    async def sample(self) -> dict[str, float]:
        """Take one sample: all figures by name."""
        figures: dict[str, float] = {}
        site = self._bench.site
        for name, process in (("api", site.api.process), ("worker", site.worker.process)):
            figures |= self._process(name, process)
        for name, part in (("api", site.api), ("worker", site.worker)):
            figures[f"{name} tasks"] = await self._tasks(part.port)
        figures["sandbox RSS MB"] = self._bench.stack.sandbox.process.memory_info().rss / 2**20
        postgres = psutil.Process(self._bench.stack.postgres.process.pid)
        figures["postgres processes"] = len(postgres.children(recursive=True))
        figures["postgres connections"] = await self._connection.fetchval("SELECT count(*) FROM pg_stat_activity")
        live = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
        figures["jobs live"] = await self._connection.fetchval(live)
        for row in await self._connection.fetch(_TABLES):
            name = row["relname"]
            figures |= {f"{name} MB": row["mb"], f"{name} rows": row["live"], f"{name} dead rows": row["dead"]}
        return figures | await self._valkey()

    def _process(self, name: str, process: psutil.Process) -> dict[str, float]:
        times, now = process.cpu_times(), time.perf_counter()
        used = times.user + times.system
        before, then = self._cpu.get(name, (used, now - 1))
        self._cpu[name] = used, now
        return {
            f"{name} RSS MB": process.memory_info().rss / 2**20,
            f"{name} USS MB": process.memory_full_info().uss / 2**20,
            f"{name} fds": process.num_fds(),
            f"{name} threads": process.num_threads(),
            f"{name} CPU %": (used - before) / (now - then) * 100,
        }

    async def _tasks(self, port: int) -> float:
        url = f"http://127.0.0.1:{port}/metrics"
        async with aiohttp.request("GET", url, headers=self._bench.site.headers) as reply:
            reply.raise_for_status()
            lines = (await reply.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("filmgate_tasks "))

    async def _valkey(self) -> dict[str, float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._bench.stack.valkey.port)
        writer.write(b"INFO memory\r\nDBSIZE\r\n")
        size = int((await reader.readline())[1:])
        info = (await reader.readexactly(size + 2)).decode()
        keys = int((await reader.readline())[1:])
        writer.close()
        used = next(line for line in info.splitlines() if line.startswith("used_memory:"))
        return {"valkey MB": int(used.partition(":")[2]) / 2**20, "valkey keys": keys}


async def soak(options: Options, minutes: float, rate: float, name: str) -> bool:
    """Run the soak and write its report; returns whether it passed."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.csv"
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(workplace())
        bench = await stack.enter_async_context(opened(directory, options))
        receiver = await stack.enter_async_context(Peer.running("receiver"))
        await bench.site.worker.start()
        port = await receiver.ask({"listen": "127.0.0.1", "mode": "well"})
        url = f"http://127.0.0.1:{bench.site.api.port}"
        session = await stack.enter_async_context(aiohttp.ClientSession(url, headers=bench.site.headers))
        connection = await bench.site.connect()
        stack.push_async_callback(connection.close)
        load = MixedLoad(session, f"http://127.0.0.1:{port}/done", rate)
        samples = await _run_sampled(load, Sampler(bench, connection), minutes * 60, file)
        problems = await _check_jobs(connection, load.stats, receiver)
        problems += await _run_doctor(bench)
    problems += [f"{what}: {count} times" for what, count in load.stats.failed.items()]
    found = trends(samples, LIMITS)
    problems += [f"{trend.name} grew from {trend.first:,.1f} to {trend.last:,.1f}" for trend in found if trend.grew]
    done = ", ".join(f"{count:,} × {what}" for what, count in load.stats.done.most_common())
    result = "Passed: no growth, no failures." if not problems else "FAILED:"
    lines = [
        f"# Soak of {minutes:g} minutes, {rate:g} creates per second",
        "",
        f"Done: {done}. {len(samples)} samples, in {file.name}.",
        "",
        *table(
            ["figure", "first quarter (median)", "last quarter", "change", ""],
            [trend.row() for trend in found if trend.first or trend.last],
        ),
        "",
        result,
        *(f"* {problem}" for problem in problems),
        "",
    ]
    file.with_suffix(".md").write_text("\n".join(lines))
    print("\n".join(lines))
    return not problems


async def _run_sampled(load: MixedLoad, sampler: Sampler, seconds: float, file: Path) -> list[Mapping[str, float]]:
    samples: list[Mapping[str, float]] = []
    every = min(SAMPLE_SECONDS, seconds / 12)
    working = asyncio.create_task(load.run(seconds))
    began = time.perf_counter()
    with file.open("w", newline="") as output:
        writer: csv.DictWriter[str] | None = None
        while not working.done():
            await asyncio.wait({working}, timeout=every)
            sample = await sampler.sample()
            samples.append(sample)
            writer = writer or csv.DictWriter(output, ["seconds", *sample])
            if len(samples) == 1:
                writer.writeheader()
            writer.writerow({"seconds": round(time.perf_counter() - began, 1), **sample})
            output.flush()
    await working
    # The last sample is taken after the load has stopped, so it is not comparable.
    return samples[:-1]


async def _check_jobs(connection: asyncpg.Connection, stats: LoadStats, receiver: Peer) -> list[str]:
    """Wait for the last jobs; returns problems with the results of jobs and with webhooks."""
    until = time.monotonic() + END_SECONDS
    owed = "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'"
    live = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
    while time.monotonic() < until and await connection.fetchval(f"SELECT ({live}) + ({owed})"):  # noqa: ASYNC110  # another process
        await asyncio.sleep(1)
    problems = []
    if left := await connection.fetchval(live):
        problems.append(f"{left} jobs have not ended {END_SECONDS:g} s after the load")
    count = await connection.fetchval("SELECT count(*) FROM jobs")
    if count != len(stats.created):
        problems.append(f"{len(stats.created)} jobs were acknowledged, {count} exist")
    videos = sum(stats.created.values())
    succeeded = await connection.fetchval("SELECT count(*) FROM jobs WHERE state = 'succeeded'")
    if succeeded < videos:
        problems.append(f"{videos} jobs should have produced a video, {succeeded} did")
    notified = {subject for subject, _, _ in await receiver.ask({"take": True})}
    if missing := stats.created.keys() - notified:
        problems.append(f"no webhook arrived for {len(missing)} jobs")
    return problems


async def _run_doctor(bench: Bench) -> list[str]:
    try:
        await bench.site.command("doctor")
    except RuntimeError as error:
        return [str(error)]
    return []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=10, help="creates per second; other requests are in proportion")
    parser.add_argument("--name", default="SOAK", help="name of the files in benchmarks/results")
    parser.add_argument("--code", type=Path, default=Code().root, help="another checkout to run")
    chosen = parser.parse_args()
    os.nice(NICE)
    options = Options(code=Code(chosen.code.resolve()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        passed = runner.run(soak(options, chosen.minutes, chosen.rate, chosen.name))
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
