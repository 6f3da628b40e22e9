"""P8: films of 1 GB, handed out and stored, beside the fastest plain way to do either, in the same rounds."""

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
from benchmarks.stats import Verdict

MEBIBYTE = 2**20
SIZE = 1024 * MEBIBYTE
SAMPLE_SECONDS = 0.02
PATIENCE_SECONDS = 120


@dataclass(slots=True)
class Moved:
    """One film moved: seconds, CPU seconds and by how many MB a process with its children grew at most meanwhile."""

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
async def moving(process: psutil.Process) -> AsyncIterator[Moved]:
    """Watch a process from now until the block ends."""
    moved, before, at_first, peak = Moved(), tree_cpu(process), _resident(process), 0.0
    over = asyncio.Event()

    async def look() -> None:
        nonlocal peak
        while not over.is_set():
            peak = max(peak, _resident(process))
            await asyncio.sleep(SAMPLE_SECONDS)

    looking = asyncio.create_task(look())
    began = time.perf_counter()
    yield moved
    moved.seconds = moved.seconds or time.perf_counter() - began
    over.set()
    await looking
    moved.cpu, moved.grown = tree_cpu(process) - before, peak - at_first


def _resident(process: psutil.Process) -> float:
    return float(process.memory_info().rss / MEBIBYTE)


def make_film(directory: Path) -> Path:
    """A real small film with a ``free`` box of padding behind it: 1 GB that plays. Blocks."""
    film = directory / "large.mp4"
    for _ in render(Shot("a large film", 640, 360, 4), film, directory / "large.webp", threading.Event()):
        pass
    padding = SIZE - film.stat().st_size
    with film.open("ab") as file:
        file.write(padding.to_bytes(4, "big") + b"free")
        block = os.urandom(MEBIBYTE)
        left = padding - 8
        while left:
            left -= file.write(block[:left])
    return film


async def measure(bench: Bench) -> list[Section]:
    """Store first, then hand out what was stored."""
    film = await asyncio.to_thread(make_film, bench.stack.directory)
    await bench.upstream.ask({"film": str(film)})
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
            job, moved = await _store(bench, client, hook)
            stored.append(moved)
            jobs.append(job)
        target = f"/v1/assets/{jobs[-1]['assets']['film']['id']}/content"
        ours = Plan(bench.site.api.port, [target], headers=bench.site.headers, callers=1, requests=1)
        other = Plan(plain.port, [f"/file?path={film}"], callers=1, requests=1)
        await bench.generator.run(ours)
        served, sent = [], []
        for _ in range(bench.options.rounds):
            served.append(await _download(bench, ours, bench.site.api.process))
            sent.append(await _download(bench, other, plain.process))
    await clean(bench.site)
    await bench.upstream.ask({"film": None})
    film.unlink()
    return [_section(stored, fetched, served, sent)]


async def _store(bench: Bench, client: Client, hook: str) -> tuple[dict[str, Any], Moved]:
    async with moving(bench.site.worker.process) as moved:
        job = await client.create(model="bench/large", webhook_url=hook, seconds=4, size="640x360")
        job = await client.reached(job["id"], "succeeded", "failed", within=PATIENCE_SECONDS)
    if job["status"] != "succeeded" or job["assets"]["film"]["size_bytes"] != SIZE:
        raise RuntimeError(f"the large film was not stored: {job}")
    return job, moved


async def _fetch(bench: Bench, fetcher: Peer) -> Moved:
    target = bench.stack.directory / "fetched.mp4"
    async with moving(fetcher.process) as moved:
        url = f"http://127.0.0.1:{bench.stack.upstream_port}/large/v1/videos/x/content"
        await fetcher.ask({"url": url, "file": str(target)})
    await asyncio.to_thread(target.unlink)
    return moved


async def _download(bench: Bench, plan: Plan, process: psutil.Process) -> Moved:
    async with moving(process) as moved:
        count = await bench.generator.run(plan)
        moved.seconds = count.seconds
    return moved


def _section(stored: list[Moved], fetched: list[Moved], served: list[Moved], sent: list[Moved]) -> Section:
    lines = {
        "stored by the worker: create → succeeded": stored,
        "ceiling: aiohttp `iter_any` → file": fetched,
        "`GET /v1/assets/{id}/content`": served,
        "ceiling: Starlette's file answer, chunks of 1 MiB": sent,
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
        "A film of 1 GB that plays (padded with a `free` box), on loopback. Storing takes in all that a job "
        "needs: buying, "
        "noticing, the copy, the checksum, the check that it plays, the poster, the second copy into the store; the "
        "ceiling only writes it to a file. CPU is that of the process with its children; growth is the "
        "highest resident "
        "memory of the process itself against the one before."
    )
    verdicts = [
        Verdict(
            "P8",
            "content of 1 GB, MB/s, of Starlette's own",
            _middle(served, "rate") / _middle(sent, "rate") * 100,
            60,
            80,
            " %",
        ),
        Verdict("P8", "… API grows by", max(one.grown for one in served), 50, None, " MB", "less"),
        Verdict(
            "P8",
            "storing 1 GB, MB per CPU-second, of aiohttp → file",
            _middle(stored, "per_cpu") / _middle(fetched, "per_cpu") * 100,
            60,
            80,
            " %",
        ),
        Verdict("P8", "… worker grows by", max(one.grown for one in stored), 50, None, " MB", "less"),
    ]
    headings = ["way", "MB per second", "MB per CPU-second", "grows by MB"]
    return Section("P8: films of 1 GB", intro, headings, rows, verdicts=verdicts)


def _middle(all_: Sequence[Moved], figure: str) -> float:
    return float(statistics.median(getattr(one, figure) for one in all_))
