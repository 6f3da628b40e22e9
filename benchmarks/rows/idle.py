"""P9 and P10: resource usage of an idle stack, and time to start."""

import asyncio
import statistics
from collections.abc import Callable

from benchmarks.report import Section
from benchmarks.resource_meter import Memory
from benchmarks.session import Bench
from benchmarks.stats import TargetResult

WATCH_SECONDS = 30.0
SETTLE_SECONDS = 3.0
STARTS = 5


async def measure(bench: Bench) -> list[Section]:
    """Measure both on newly started processes."""
    api, worker = bench.site.api, bench.site.worker
    starts: dict[str, list[float]] = {"api": [], "worker": []}
    for _ in range(STARTS):
        for part in (api, worker):
            await part.stop()
            starts[part.name].append(await part.start())
    await asyncio.sleep(SETTLE_SECONDS)
    meter = bench.meter(api=api.process, worker=worker.process)
    before = meter.read()
    await asyncio.sleep(WATCH_SECONDS)
    used = meter.read().since(before)
    memory = {part.name: Memory.of(part.process) for part in (api, worker)}
    await worker.stop()
    return [_idle(used.share, memory), _starts(starts)]


def _idle(share: Callable[[str], float], memory: dict[str, Memory]) -> Section:
    names = ("api", "worker", "postgres", "valkey")
    rows = [
        [
            name,
            f"{share(name):.1%}",
            *(
                [f"{memory[name].rss:.0f}", f"{memory[name].pss:.0f}", f"{memory[name].uss:.0f}"]
                if name in memory
                else ["–"] * 3
            ),
        ]
        for name in names
    ]
    both = sum(map(share, names))
    intro = f"{WATCH_SECONDS:g} s without requests, right after the start; resident, proportional and unique memory."
    return Section(
        "P9: idle stack",
        intro,
        ["process", "of a core", "RSS MB", "PSS MB", "USS MB"],
        rows,
        targets=[
            TargetResult("P9", "idle API, worker, Postgres and Valkey together", both * 100, 3, None, " %", "less", 1),
            TargetResult("P9", "… API's memory", memory["api"].rss, 120, None, " MB", "less"),
            TargetResult("P9", "… worker's memory", memory["worker"].rss, 120, None, " MB", "less"),
        ],
    )


def _starts(starts: dict[str, list[float]]) -> Section:
    middle = {name: statistics.median(times) for name, times in starts.items()}
    rows = [[name, f"{middle[name]:.2f}", f"{min(times):.2f}", f"{max(times):.2f}"] for name, times in starts.items()]
    return Section(
        "P10: start to ready",
        f"From the process start until `/readyz` succeeds, requested every 20 ms; {STARTS} alternating starts each.",
        ["process", "median s", "shortest", "longest"],
        rows,
        targets=[
            TargetResult("P10", "API: start to ready", middle["api"], 2, 1, " s", "less", 2),
            TargetResult("P10", "worker: start to ready", middle["worker"], 2, 1, " s", "less", 2),
        ],
    )
