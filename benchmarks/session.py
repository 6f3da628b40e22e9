"""One run: the stack, the generator, and what every figure needs to measure with."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.child_processes import Generator, Peer
from benchmarks.load_generator import Count, Plan
from benchmarks.resource_meter import Meter
from benchmarks.stack import Code, Site, Stack
from benchmarks.stats import Measured

PROMPT = "a purple elephant dancing on a blue beach ball at dawn, shot on 35 mm film, seen from a slowly rising crane"


@dataclass(frozen=True, slots=True)
class Options:
    """How much of everything. ``seconds`` is the length of one window."""

    seconds: float = float(os.environ.get("BENCH_SECONDS", "2.5"))
    rounds: int = 3
    in_flight: int = 10_000
    most_jobs: int = 1_000_000
    code: Code = field(default_factory=Code)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a figure is measured with. ``site`` is the gateway with an empty database; its worker is at rest between
    figures, and a figure that starts it stops it."""

    options: Options
    stack: Stack
    site: Site
    generator: Generator
    upstream: Peer

    def say(self, words: str) -> None:
        print(f"  {words}", flush=True)

    def meter(self, **parts: psutil.Process | Sequence[psutil.Process]) -> Meter:
        """Of Postgres, Valkey, the sandbox and what is named."""
        shared = {
            "postgres": psutil.Process(self.stack.postgres.process.pid),
            "valkey": psutil.Process(self.stack.valkey.process.pid),
            "sandbox": self.stack.sandbox.process,
        }
        return Meter(
            {name: [one] if isinstance(one, psutil.Process) else one for name, one in {**parts, **shared}.items()}
        )

    async def window(self, plan: Plan, meter: Meter) -> Measured:
        """One window of load, with the CPU that it cost.

        Raises:
            WindowInvalid: a request failed.
        """
        return await self.measured(self.generator.run(plan), meter)

    async def measured(self, load: Awaitable[Count], meter: Meter) -> Measured:
        """Any load that counts itself, with the CPU that it cost."""
        before = meter.read()
        count = await load
        return Measured(count, meter.read().since(before).each(count.total))

    async def interleaved(
        self, windows: Mapping[str, Callable[[], Awaitable[Measured]]], rounds: int | None = None
    ) -> dict[str, list[Measured]]:
        """Every window once in each round, in turns forwards and backwards, so that drift meets all alike."""
        measured: dict[str, list[Measured]] = {name: [] for name in windows}
        for number in range(rounds or self.options.rounds):
            for name in list(windows)[:: -1 if number % 2 else 1]:
                measured[name].append(await windows[name]())
        return measured


class Client:
    """Few requests to a site, in comfort; never for load."""

    def __init__(self, session: aiohttp.ClientSession, name: str) -> None:
        self._session = session
        self._name = name

    @classmethod
    @asynccontextmanager
    async def of(cls, site: Site) -> AsyncIterator["Client"]:
        url = f"http://127.0.0.1:{site.api.port}"
        async with aiohttp.ClientSession(url, headers=site.headers) as session:
            yield cls(session, f"{site.code.root}, {site.name}")

    async def create(self, **order: Any) -> dict[str, Any]:
        body = {"model": "bench/film", "prompt": PROMPT, **order}
        headers = {"Idempotency-Key": os.urandom(12).hex()}
        async with self._session.post("/v1/jobs", json=body, headers=headers) as reply:
            job: dict[str, Any] = await reply.json()
            if reply.status != 202:
                raise RuntimeError(f"HTTP {reply.status}: {job}")
            return job

    async def job(self, job_id: str) -> dict[str, Any]:
        async with self._session.get(f"/v1/jobs/{job_id}") as reply:
            job: dict[str, Any] = await reply.json()
            if reply.status != 200:
                raise RuntimeError(f"HTTP {reply.status}: {job}")
            return job

    async def reached(self, job_id: str, *phases: str, within: float = 60) -> dict[str, Any]:
        """Wait until a job has one of these statuses or phases."""
        until = time.monotonic() + within
        while not {(job := await self.job(job_id))["status"], job["phase"]} & set(phases):
            if time.monotonic() > until or job["finished_at"] is not None:
                raise RuntimeError(f"{self._name} did not bring a job to {phases}: {job}")
            await asyncio.sleep(0.05)
        return job


@asynccontextmanager
async def opened(directory: Path, options: Options) -> AsyncIterator[Bench]:
    """A bench with everything started but the worker."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Peer.running("fake_upstream"))
        port = int(await upstream.hear())
        generator = await stack.enter_async_context(Generator.running())
        running = await stack.enter_async_context(Stack(directory, port).running())
        site = await running.site("filmgate", options.code)
        await site.api.start()
        yield Bench(options, running, site, generator, upstream)
