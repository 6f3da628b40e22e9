"""P8: storing and serving videos of 1 GB, compared with the fastest plain code for each, in the same rounds."""

import asyncio
import os
import statistics
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from app.sandbox.picture import Shot
from app.sandbox.render import render
from benchmarks.child_processes import Peer
from benchmarks.load_generator import Plan
from benchmarks.report import Section
from benchmarks.resource_meter import tree_cpu
from benchmarks.rows import ceilings
from benchmarks.rows.whole_jobs import clean
from benchmarks.session import Bench, Client
from benchmarks.stats import TargetResult

MEBIBYTE = 2**20
SIZE = 1024 * MEBIBYTE
SAMPLE_SECONDS = 0.02
TIMEOUT_SECONDS = 120


@dataclass(slots=True)
class Transfer:
    """One transfer: seconds, CPU seconds of a process with its children, and its maximum growth in MB."""

    seconds: float = 0.0
    cpu: float = 0.0
    grown: float = 0.0

    @property
    def rate(self) -> float:
        """MB per second."""
        return SIZE / MEBIBYTE / self.seconds

    @property
    def per_cpu(self) -> float:
        """MB per CPU-second."""
        return SIZE / MEBIBYTE / max(self.cpu, 0.01)


@asynccontextmanager
async def measured_transfer(process: psutil.Process) -> AsyncIterator[Transfer]:
    """Measure a process until the block ends."""
    transfer, before, at_first, peak = Transfer(), tree_cpu(process), _resident(process), 0.0
    over = asyncio.Event()

    async def look() -> None:
        nonlocal peak
        while not over.is_set():
            peak = max(peak, _resident(process))
            await asyncio.sleep(SAMPLE_SECONDS)

    looking = asyncio.create_task(look())
    began = time.perf_counter()
    yield transfer
    transfer.seconds = transfer.seconds or time.perf_counter() - began
    over.set()
    await looking
    transfer.cpu, transfer.grown = tree_cpu(process) - before, peak - at_first


def _resident(process: psutil.Process) -> float:
    return float(process.memory_info().rss / MEBIBYTE)


def make_video(directory: Path) -> Path:
    """Create a playable video of 1 GB: a small one, padded with a ``free`` box. Blocks."""
    video = directory / "large.mp4"
    for _ in render(Shot("a large video", 640, 360, 4), video, directory / "large.webp", threading.Event()):
        pass
    padding = SIZE - video.stat().st_size
    with video.open("ab") as file:
        file.write(padding.to_bytes(4, "big") + b"free")
        block = os.urandom(MEBIBYTE)
        left = padding - 8
        while left:
            left -= file.write(block[:left])
    return video


async def measure(bench: Bench) -> list[Section]:
    """Measure storing, then serving the stored video."""
    video = await asyncio.to_thread(make_video, bench.stack.directory)
    await bench.upstream.ask({"video": str(video)})
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Peer.running("receiver"))
        fetcher = await stack.enter_async_context(Peer.running("download_ceiling"))
        plain = ceilings.server(bench, "framework")
        await plain.start()
        stack.push_async_callback(plain.stop)
        client = await stack.enter_async_context(Client.of(bench.site))
        hook = f"http://127.0.0.1:{await receiver.ask({'listen': '127.0.0.1', 'mode': 'well'})}/"
        await bench.site.worker.start()
        stack.push_async_callback(bench.site.worker.stop)
        await client.reached((await client.create())["id"], "succeeded")
        stored, fetched, jobs = [], [], []
        for _ in range(bench.options.rounds):
            fetched.append(await _fetch(bench, fetcher))
            job, transfer = await _store(bench, client, hook)
            stored.append(transfer)
            jobs.append(job)
        target = f"/v1/assets/{jobs[-1]['assets']['video']['id']}/content"
        ours = Plan(bench.site.api.port, [target], headers=bench.site.headers, callers=1, requests=1)
        other = Plan(plain.port, [f"/file?path={video}"], callers=1, requests=1)
        await bench.generator.run(ours)
        served, sent = [], []
        for _ in range(bench.options.rounds):
            served.append(await _download(bench, ours, bench.site.api.process))
            sent.append(await _download(bench, other, plain.process))
    await clean(bench.site)
    await bench.upstream.ask({"video": None})
    video.unlink()
    return [_section(stored, fetched, served, sent)]


async def _store(bench: Bench, client: Client, hook: str) -> tuple[dict[str, Any], Transfer]:
    async with measured_transfer(bench.site.worker.process) as transfer:
        job = await client.create(model="bench/large", webhook_url=hook, seconds=4, size="640x360")
        job = await client.reached(job["id"], "succeeded", "failed", within=TIMEOUT_SECONDS)
    if job["status"] != "succeeded" or job["assets"]["video"]["size_bytes"] != SIZE:
        raise RuntimeError(f"the large video was not stored: {job}")
    return job, transfer


async def _fetch(bench: Bench, fetcher: Peer) -> Transfer:
    target = bench.stack.directory / "fetched.mp4"
    async with measured_transfer(fetcher.process) as transfer:
        url = f"http://127.0.0.1:{bench.stack.upstream_port}/large/v1/videos/x/content"
        await fetcher.ask({"url": url, "file": str(target)})
    await asyncio.to_thread(target.unlink)
    return transfer


async def _download(bench: Bench, plan: Plan, process: psutil.Process) -> Transfer:
    async with measured_transfer(process) as transfer:
        count = await bench.generator.run(plan)
        transfer.seconds = count.seconds
    return transfer


def _section(stored: list[Transfer], fetched: list[Transfer], served: list[Transfer], sent: list[Transfer]) -> Section:
    lines = {
        "stored by the worker: create → succeeded": stored,
        "ceiling: aiohttp `iter_any` → file": fetched,
        "`GET /v1/assets/{id}/content`": served,
        "ceiling: Starlette's file response, chunks of 1 MiB": sent,
    }
    rows = [
        [
            name,
            *(f"{_middle(all_, figure):,.0f}" for figure in ("rate", "per_cpu")),
            f"{max(one.grown for one in all_):.0f}",
        ]
        for name, all_ in lines.items()
    ]
    intro = (
        "A playable video of 1 GB (padded with a `free` box), on loopback. Storing includes everything that a job "
        "needs: the submission, detecting the end, the copy, the checksum, the playability check, the poster, the "
        "second copy into the store; the ceiling only writes a file. CPU is that of the process with its children; "
        "growth is the maximum resident memory of the process itself minus the initial one."
    )
    targets = [
        TargetResult(
            "P8",
            "serving 1 GB, MB/s, relative to Starlette",
            _middle(served, "rate") / _middle(sent, "rate") * 100,
            60,
            80,
            " %",
        ),
        TargetResult("P8", "… API grows by", max(one.grown for one in served), 50, None, " MB", "less"),
        TargetResult(
            "P8",
            "storing 1 GB, MB per CPU-second, relative to aiohttp → file",
            _middle(stored, "per_cpu") / _middle(fetched, "per_cpu") * 100,
            60,
            80,
            " %",
        ),
        TargetResult("P8", "… worker grows by", max(one.grown for one in stored), 50, None, " MB", "less"),
    ]
    headings = ["path", "MB per second", "MB per CPU-second", "growth in MB"]
    return Section("P8: videos of 1 GB", intro, headings, rows, targets=targets)


def _middle(all_: Sequence[Transfer], figure: str) -> float:
    return float(statistics.median(getattr(one, figure) for one in all_))
