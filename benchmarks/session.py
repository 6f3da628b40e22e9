"""One run: the stack, the load generator and the tools shared by all measurements."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from PIL import Image

from benchmarks.child_processes import Generator, Peer
from benchmarks.load_generator import Count, Plan
from benchmarks.resource_meter import Meter
from benchmarks.stack import Code, Site, Stack
from benchmarks.stats import Measured

PROMPT = "a purple elephant dancing on a blue beach ball at dawn, shot on 35 mm video, seen from a slowly rising crane"


@dataclass(frozen=True, slots=True)
class Options:
    """The size of a run. ``seconds`` is the length of one window."""

    seconds: float = float(os.environ.get("BENCH_SECONDS", "2.5"))
    rounds: int = 3
    in_flight: int = 10_000
    most_jobs: int = 1_000_000
    code: Code = field(default_factory=Code)


@dataclass(frozen=True, slots=True)
class Bench:
    """The tools of a measurement. ``site`` is the gateway with an empty database. Its worker is stopped between
    measurements; a measurement that starts it stops it."""

    options: Options
    stack: Stack
    site: Site
    generator: Generator
    upstream: Peer

    def say(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def meter(self, **parts: psutil.Process | Sequence[psutil.Process]) -> Meter:
        """A meter of the given parts and of Postgres, Valkey and the sandbox."""
        shared = {
            "postgres": psutil.Process(self.stack.postgres.process.pid),
            "valkey": psutil.Process(self.stack.valkey.process.pid),
            "sandbox": self.stack.sandbox.process,
        }
        return Meter(
            {name: [one] if isinstance(one, psutil.Process) else one for name, one in {**parts, **shared}.items()}
        )

    async def window(self, plan: Plan, meter: Meter) -> Measured:
        """Run one window of load and measure its CPU time.

        Raises:
            WindowInvalid: a request failed.
        """
        return await self.measured(self.generator.run(plan), meter)

    async def measured(self, load: Awaitable[Count], meter: Meter) -> Measured:
        """Run any load that returns a count and measure its CPU time."""
        before = meter.read()
        count = await load
        return Measured(count, meter.read().since(before).each(count.total))

    async def interleaved(
        self, windows: Mapping[str, Callable[[], Awaitable[Measured]]], rounds: int | None = None
    ) -> dict[str, list[Measured]]:
        """Run every window once per round, in alternating order, so that drift affects all alike."""
        measured: dict[str, list[Measured]] = {name: [] for name in windows}
        for number in range(rounds or self.options.rounds):
            for name in list(windows)[:: -1 if number % 2 else 1]:
                measured[name].append(await windows[name]())
        return measured


class Client:
    """A convenient client for single requests to a site; not for load."""

    def __init__(self, session: aiohttp.ClientSession, name: str) -> None:
        self._session = session
        self._name = name

    @classmethod
    @asynccontextmanager
    async def of(cls, site: Site, key: str | None = None) -> AsyncIterator["Client"]:
        url = f"http://127.0.0.1:{site.api.port}"
        headers = {"Authorization": f"Bearer {key}"} if key else site.headers
        async with aiohttp.ClientSession(url, headers=headers) as session:
            yield cls(session, f"{site.code.root}, {site.name}")

    async def create(self, **fields: Any) -> dict[str, Any]:
        body = {"model": "bench/video", "prompt": PROMPT, **fields}
        headers = {"Idempotency-Key": os.urandom(12).hex()}
        async with self._session.post("/v1/jobs", json=body, headers=headers) as reply:
            job: dict[str, Any] = await reply.json()
            if reply.status != 202:
                raise RuntimeError(f"HTTP {reply.status}: {job}")
            return job

    async def upload(self, picture: Image.Image) -> str:
        """The id of a file with this picture, as a PNG."""
        content = BytesIO()
        picture.save(content, "PNG")
        form = aiohttp.FormData()
        form.add_field("file", content.getvalue(), filename="picture.png")
        async with self._session.post("/v1/files", data=form) as reply:
            file: dict[str, Any] = await reply.json()
            if reply.status not in {200, 201}:
                raise RuntimeError(f"HTTP {reply.status}: {file}")
            return str(file["id"])

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
                raise RuntimeError(f"a job of {self._name} did not reach {phases}: {job}")
            await asyncio.sleep(0.05)
        return job


@asynccontextmanager
async def opened(directory: Path, options: Options) -> AsyncIterator[Bench]:
    """Start everything except the worker."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Peer.running("fake_upstream"))
        port = int(await upstream.read())
        generator = await stack.enter_async_context(Generator.running())
        running = await stack.enter_async_context(Stack(directory, port).running())
        site = await running.site("filmgate", options.code)
        await site.api.start()
        yield Bench(options, running, site, generator, upstream)
