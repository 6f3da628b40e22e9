"""P5: time from the end of a render to the webhook, with polling and with callbacks."""

import asyncio
import random
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from benchmarks.child_processes import Peer
from benchmarks.load_generator import percentile
from benchmarks.report import Section
from benchmarks.rows.latency import ledger
from benchmarks.session import Bench, Client
from benchmarks.stats import TargetResult

JOBS = 100
INTERVAL = 1.0
#: Render times are random, so that renders are not in phase with polls. Pauses keep the stack nearly idle.
SHORTEST, LONGEST = 1.0, 4.0
PAUSE_SECONDS = 0.15
TIMEOUT_SECONDS = 60
METHODS: dict[str, dict[str, Any]] = {
    "polling": {"model": "bench/second", "seconds": 4, "size": "1280x720"},
    "a callback": {"model": "kling/kling-2.6", "seconds": 5, "size": "1280x720"},
}


async def measure(bench: Bench) -> list[Section]:
    """Measure both methods, one after the other."""
    lags: dict[str, list[float]] = {}
    await bench.site.worker.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(bench.site.worker.stop)
        receiver = await stack.enter_async_context(Peer.running("receiver"))
        port = await receiver.ask({"listen": "127.0.0.1", "mode": "well"})
        client = await stack.enter_async_context(Client.of(bench.site))
        for name, fields in METHODS.items():
            warm = await client.create(**fields)
            await client.reached(warm["id"], "succeeded")
            lags[name] = await _lags(bench, client, receiver, {**fields, "webhook_url": f"http://127.0.0.1:{port}/"})
    return [_section(lags)]


async def _lags(bench: Bench, client: Client, receiver: Peer, fields: dict[str, Any]) -> list[float]:
    run = random.randbytes(4).hex()
    prompts: dict[str, str] = {}
    for number in range(JOBS):
        prompt = f"a quiet sea {run} {number} [slow:{random.uniform(SHORTEST, LONGEST):.3f}]"
        prompts[(await client.create(**fields, prompt=prompt))["id"]] = prompt
        await asyncio.sleep(random.uniform(0, 2 * PAUSE_SECONDS))
    received: dict[str, float] = {}
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while prompts.keys() - received.keys():
            await asyncio.sleep(0.2)
            received |= {subject: at for subject, at, _ in await receiver.ask({"take": True})}
    finished = {
        entry["prompt"]: datetime.fromisoformat(entry["finished_at"])
        for entry in await ledger(bench)
        if entry["finished_at"]
    }
    return [(at - finished[prompts[job]].timestamp()) * 1000 for job, at in received.items() if job in prompts]


def _section(lags: dict[str, list[float]]) -> Section:
    intro = (
        f"{JOBS} renders each, of a random {SHORTEST:g} to {LONGEST:g} s, a few at a time. Measured from the end "
        f"recorded upstream to the last byte of the webhook: detecting the end, copying the video, checking it, "
        f"the commit, the signed POST. Polling is every {INTERVAL:g} s (± 20 %), so half of that is expected for "
        "detection; the callback is Kling's, with polls every 30 s."
    )
    polled, called = (statistics.median(lags[name]) for name in METHODS)
    return Section(
        "P5: upstream finished → webhook received",
        intro,
        ["detected by", "p50 ms", "p95 ms", "p99 ms", "shortest"],
        [[name, *_figures(lags[name])] for name in METHODS],
        targets=[
            TargetResult("P5", "finished → webhook, with a callback, p50", called, 100, 40, " ms", "less"),
            TargetResult(
                "P5",
                f"… polling every {INTERVAL:g} s, p50",
                polled,
                INTERVAL * 500 + 100,
                INTERVAL * 500 + 40,
                " ms",
                "less",
            ),
        ],
    )


def _figures(values: Sequence[float]) -> list[str]:
    return [*(f"{percentile(values, share):.0f}" for share in (0.5, 0.95, 0.99)), f"{min(values):.0f}"]
