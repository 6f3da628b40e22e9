"""P4: time from the create to the upstream, one job at a time on an idle stack."""

import asyncio
import random
import statistics
import time
from datetime import datetime

import aiohttp

from benchmarks.load_generator import percentile
from benchmarks.report import Section
from benchmarks.session import Bench, Client
from benchmarks.stats import TargetResult

JOBS = 100
#: The pause between two jobs is random, so that they are not in phase with timers of the product.
PAUSE_SECONDS = 0.2


async def measure(bench: Bench) -> list[Section]:
    """Measure the milliseconds from sending the request to its acceptance by the sandbox."""
    times, response_times = await sample(bench, JOBS)
    row = [f"{value:.0f}" for value in (percentile(times, 0.5), percentile(times, 0.95), percentile(times, 0.99))]
    intro = (
        f"{JOBS} jobs, each created a random pause after the end of the previous one. Measured from sending the "
        "request until the upstream records the job in its ledger (one machine, one clock)."
    )
    return [
        Section(
            "P4: create → upstream has it",
            intro,
            ["from → to", "p50 ms", "p95 ms", "p99 ms", "longest"],
            [
                ["create → upstream has it", *row, f"{max(times):.0f}"],
                [
                    "create → 202",
                    *(f"{percentile(response_times, share):.0f}" for share in (0.5, 0.95, 0.99)),
                    f"{max(response_times):.0f}",
                ],
            ],
            targets=[
                TargetResult("P4", "create → upstream has it, p50", statistics.median(times), 60, 20, " ms", "less"),
                TargetResult("P4", "… p99", percentile(times, 0.99), 150, None, " ms", "less"),
            ],
        )
    ]


async def sample(bench: Bench, jobs: int) -> tuple[list[float], list[float]]:
    """Milliseconds from create to upstream, and from create to its response, for each of ``jobs`` jobs."""
    began: dict[str, float] = {}
    response_times: list[float] = []
    run = random.randbytes(4).hex()
    await bench.site.worker.start()
    try:
        async with Client.of(bench.site) as client:
            await client.reached((await client.create())["id"], "succeeded")  # warm-up
            for number in range(jobs):
                await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))
                prompt = f"a quiet sea {run} {number}"
                began[prompt] = time.time()
                job = await client.create(prompt=prompt)
                response_times.append((time.time() - began[prompt]) * 1000)
                await client.reached(job["id"], "succeeded")
    finally:
        await bench.site.worker.stop()
    accepted = {entry["prompt"]: datetime.fromisoformat(entry["accepted_at"]) for entry in await ledger(bench)}
    return [(accepted[prompt].timestamp() - began[prompt]) * 1000 for prompt in began], response_times


async def ledger(bench: Bench) -> list[dict[str, str]]:
    """All jobs that the sandbox has accepted."""
    async with aiohttp.request("GET", f"http://127.0.0.1:{bench.stack.sandbox.port}/ledger") as reply:
        entries: list[dict[str, str]] = (await reply.json())["entries"]
        return entries
