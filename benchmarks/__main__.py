"""``make bench``: how fast this machine runs the main job, with an instant upstream; writes results/LATEST.md."""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop
from aiohttp import web
from sqlalchemy import text

from app.db import Database
from app.embedded.stack import Part, Stack
from app.embedded.workspace import Ports, Workspace
from app.settings import DatabaseSettings
from benchmarks.load import Window, median, window

RESULTS = Path(__file__).parent / "results" / "LATEST.md"
ROUNDS = 3
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
LATENCY_JOBS = 60
IN_FLIGHT = 1000
POLL_INTERVAL = 0.5  # of the development configuration
ORDER = {"model": "default", "prompt": "a purple elephant", "seconds": 1, "size": "640x360"}


class BenchWorkspace(Workspace):
    """The development configuration, without its small limits."""

    def configure(self, ports: Ports, *, database_url: str, redis_url: str) -> None:
        super().configure(ports, database_url=database_url, redis_url=redis_url)
        text = self.configuration.read_text().replace("max_concurrent = 10", "max_concurrent = 100000")
        self.configuration.write_text(text.replace('log_format = "console"', 'log_format = "json"'))


@asynccontextmanager
async def stack(directory: Path) -> AsyncIterator[Stack]:
    """The stack of `make dev` with an instant upstream."""
    os.environ["FILMGATE_LOG_LEVEL"] = "warning"
    workspace = BenchWorkspace(directory / ".filmgate")
    ports = Ports.free()
    running = Stack(workspace, ports)
    running.sandbox = Part(
        "sandbox", ("--port", str(ports.sandbox), "--no-render"), ports.sandbox, "/healthz", workspace
    )
    async with running.running(lambda said: print(f"{said} …")):
        yield running


class Bench:
    """The measurements, against one running stack."""

    def __init__(self, running: Stack, client: aiohttp.ClientSession, database: Database) -> None:
        self._stack = running
        self._client = client
        self._database = database

    async def submit(self) -> None:
        async with self._client.post("/v1/jobs", json=ORDER) as reply:
            await reply.read()
            if reply.status != 202:
                raise RuntimeError(f"HTTP {reply.status}")

    async def reading(self, job_id: str) -> None:
        async with self._client.get(f"/v1/jobs/{job_id}") as reply:
            await reply.read()
            if reply.status != 200:
                raise RuntimeError(f"HTTP {reply.status}")

    async def throughput(self) -> dict[str, Window]:
        """Submits and status reads with the worker at rest: the API process and Postgres alone."""
        await self._stack.worker.stop()
        job_id = await self.create(ORDER)
        shapes: dict[str, Callable[[int], Any]] = {
            "POST /v1/jobs": lambda callers: window(self.submit, callers=callers, seconds=SECONDS),
            "GET /v1/jobs/{id}": lambda callers: window(lambda: self.reading(job_id), callers=callers, seconds=SECONDS),
        }
        await window(self.submit, callers=16, seconds=1)  # warm-up
        measured: dict[str, list[Window]] = {}
        for _ in range(ROUNDS):
            for name, measure in shapes.items():
                for callers in (1, 16):
                    measured.setdefault(f"{name}, c = {callers}", []).append(await measure(callers))
        await self.forget()
        await self._stack.worker.start()
        return {name: median(windows) for name, windows in measured.items()}

    async def latencies(self) -> dict[str, list[float]]:
        """One job after the other on an idle stack: milliseconds to the upstream, and from there to the webhook."""
        inbox: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

        async def receive(request: web.Request) -> web.Response:
            at = time.time()
            await inbox.put((json.loads(await request.read())["data"]["id"], at))
            return web.Response()

        app = web.Application()
        app.router.add_post("/", receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        to_upstream, to_webhook = [], []
        for _ in range(LATENCY_JOBS):
            began = time.time()
            job_id = await self.create({**ORDER, "webhook_url": url})
            finished, received = await inbox.get()
            assert finished == job_id
            async with self._client.get(f"/v1/jobs/{job_id}/submissions") as reply:
                (submission,) = await reply.json()
            accepted = await self.accepted_at(submission["id"])
            to_upstream.append((accepted - began) * 1000)
            to_webhook.append((received - accepted) * 1000)
        await runner.cleanup()
        return {"create → upstream has it": to_upstream, "upstream finished → webhook received": to_webhook}

    async def in_flight(self) -> dict[str, float]:
        """The worker's memory and CPU with so many renders that never end."""
        process = psutil.Process(self._stack.worker.process.pid)
        idle = process.memory_info().rss
        order = {**ORDER, "prompt": "a purple elephant [never]"}
        for start in range(0, IN_FLIGHT, 50):
            await asyncio.gather(*(self.create(order) for _ in range(start, start + 50)))
        while await self.running() < IN_FLIGHT:  # noqa: ASYNC110  # the worker is another process
            await asyncio.sleep(0.2)
        before, began = process.cpu_times(), time.perf_counter()
        await asyncio.sleep(10)
        after, elapsed = process.cpu_times(), time.perf_counter() - began
        cpu = (after.user + after.system - before.user - before.system) / elapsed
        return {"idle_mb": idle / 2**20, "loaded_mb": process.memory_info().rss / 2**20, "cpu": cpu}

    async def create(self, order: dict[str, Any]) -> str:
        async with self._client.post("/v1/jobs", json=order) as reply:
            assert reply.status == 202, await reply.text()
            job_id: str = (await reply.json())["id"]
            return job_id

    async def accepted_at(self, submission_id: str) -> float:
        url = f"http://127.0.0.1:{self._stack.ports.sandbox}/ledger"
        async with aiohttp.request("GET", url, params={"ref": submission_id}) as reply:
            (entry,) = (await reply.json())["entries"]
        return datetime.fromisoformat(entry["accepted_at"]).timestamp()

    async def running(self) -> int:
        async with self._database.read() as connection:
            return int(await connection.scalar(text("SELECT count(*) FROM jobs WHERE state = 'running'")) or 0)

    async def forget(self) -> None:
        async with self._database.begin() as connection:
            await connection.execute(text("TRUNCATE jobs, schedule, submissions, events, idempotency_keys CASCADE"))


def report(windows: dict[str, Window], latencies: dict[str, list[float]], flight: dict[str, float]) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    packages = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "sqlalchemy", "asyncpg", "uvicorn"))
    machine = (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {packages}. One API process, one worker process, Postgres, Valkey, the upstream "
        "and the load generator share the machine. Instant upstream. Command: `make bench`."
    )
    in_flight = (
        f"One worker with {IN_FLIGHT:,} renders in flight, each polled every {POLL_INTERVAL} s: "
        f"{flight['loaded_mb']:.0f} MB (idle {flight['idle_mb']:.0f} MB), {flight['cpu']:.0%} of a core."
    )
    lines = [
        "# Benchmark",
        "",
        machine,
        "",
        f"Median of {ROUNDS} interleaved windows of {SECONDS:g} s; a window with a failed request is invalid.",
        "",
        "| path | per second | p50 ms | p99 ms | generator's CPU |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {one.rate:,.0f} | {one.p50:.1f} | {one.p99:.1f} | {one.cpu:.0%} |"
            for name, one in windows.items()
        ),
        "",
        f"One job at a time on an idle stack, {LATENCY_JOBS} jobs, polling every {POLL_INTERVAL} s, no callback:",
        "",
        "| from → to | p50 ms | p95 ms |",
        "|---|---|---|",
        *(
            f"| {name} | {statistics.median(times):.0f} | {statistics.quantiles(times, n=20)[18]:.0f} |"
            for name, times in latencies.items()
        ),
        "",
        in_flight,
        "",
    ]
    return "\n".join(lines)


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="filmgate-bench-") as directory:
        async with stack(Path(directory)) as running:
            settings = DatabaseSettings.model_validate({"url": running.postgres.url})
            database = Database.open(settings, application="benchmark")
            headers = {"Authorization": f"Bearer {await running.api_key()}"}
            async with aiohttp.ClientSession(running.url, headers=headers) as client:
                bench = Bench(running, client, database)
                print("Measuring throughput …")
                windows = await bench.throughput()
                print("Measuring latency …")
                latencies = await bench.latencies()
                print("Measuring jobs in flight …")
                flight = await bench.in_flight()
            await database.close()
    result = report(windows, latencies, flight)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(result)
    print(f"\n{result}\nwritten to {RESULTS.relative_to(Path.cwd())}", file=sys.stdout)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
