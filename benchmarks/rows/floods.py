"""S9: one account floods the API: how much longer do the requests of another one take beside it?"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import median
from urllib.parse import urlsplit

import psutil

from app.ids import new_id
from benchmarks.child_processes import Generator, Peer
from benchmarks.load_generator import MARK, Count, Plan
from benchmarks.report import Section
from benchmarks.rows.throughput import BODY, creates, reads, store_jobs
from benchmarks.rows.whole_jobs import clean
from benchmarks.session import PROMPT, Bench, Client
from benchmarks.stack import Site
from benchmarks.stats import TargetResult

#: Of the other account: so many requests per second over so many connections.
RATE, CALLERS = 100, 8
WINDOW_SECONDS = 6.0
#: How long a flood swells before anything is measured beside it: to open its connections is a burst of its own.
SWELL_SECONDS = 4.0
CONNECTIONS, OPEN_CONNECTIONS = 200, 1500
#: Bytes of a prompt that is too long, in a body that is almost too large.
LARGE = 250_000
ALONE = "none"
#: A flood comes from other machines: its generator gives way to all that is measured here. Still it takes what CPU time
#: is left, so what is measured without a flood is measured beside a process that does the same.
NICENESS = 15
BUSY = "while True: pass"


async def measure(bench: Bench) -> list[Section]:
    """Measure creates and reads of one account, alone and beside each flood of another."""
    site = bench.site
    stored = await store_jobs(site, states=["running"])
    key = await site.another_key("flooder")
    floods = _floods(site, key, await _paths(site, key))
    counts: dict[tuple[str, str], list[Count]] = {}
    async with Peer.running("load_generator") as peer:
        peer.process.nice(NICENESS)
        for number in range(bench.options.rounds):
            for name in [ALONE, *floods][:: -1 if number % 2 else 1]:
                since = new_id()
                async with _flooded(Generator(peer), floods.get(name)):
                    for what, plan in _measured(site, stored.ids["running"]).items():
                        counts.setdefault((name, what), []).append(await bench.generator.run(plan))
                        bench.say(f"{what} beside {name}: p99 {counts[name, what][-1].p99:.1f} ms")
                await clean(site, since)
    await clean(site)
    return [_section(counts, [ALONE, *floods])]


async def _paths(site: Site, key: str) -> Mapping[str, str]:
    """Of the flooder: a ``running`` job, and the ``content`` of a stored video."""
    async with Client.of(site, key) as client:
        await site.worker.start()
        done = await client.reached((await client.create())["id"], "succeeded")
        running = await client.create(model="bench/endless")
        await client.reached(running["id"], "rendering", "running")
        await site.worker.stop()
    return {
        "running": f"/v1/jobs/{running['id']}",
        "content": urlsplit(done["assets"]["video"]["content_url"]).path,
    }


def _floods(site: Site, key: str, paths: Mapping[str, str]) -> dict[str, Plan]:
    """Each connection sends the next request as soon as it has a response, whatever that is."""
    headers = {"Authorization": f"Bearer {key}"}
    read = Plan(site.api.port, [paths["running"]], headers=headers, expect=None, callers=CONNECTIONS)
    create = replace(read, method="POST", targets=["/v1/jobs"], body=json.dumps(BODY))
    replay = json.dumps({**BODY, "prompt": PROMPT, "metadata": {}})
    return {
        "creates": create,
        "replays": replace(create, body=replay, headers={**headers, "Idempotency-Key": "the same"}),
        "uploads": replace(create, body=json.dumps({**BODY, "prompt": "a" * LARGE})),
        "reads": read,
        "lists": replace(read, targets=["/v1/jobs?limit=100"]),
        "downloads": replace(read, targets=[paths["content"]]),
        "event streams": replace(read, targets=[f"{paths['running']}/events"], callers=OPEN_CONNECTIONS),
        "waits": replace(read, headers={**headers, "Prefer": "wait=50"}, callers=OPEN_CONNECTIONS),
        "made-up keys": replace(read, headers={"Authorization": f"Bearer fgk_{MARK}"}),
    }


def _measured(site: Site, ids: Sequence[str]) -> dict[str, Plan]:
    plans = {"create": creates(site, CALLERS, WINDOW_SECONDS), "read": reads(site, ids, CALLERS, WINDOW_SECONDS)}
    return {what: replace(plan, rate=RATE) for what, plan in plans.items()}


@asynccontextmanager
async def _flooded(generator: Generator, flood: Plan | None) -> AsyncIterator[None]:
    """A flood that outlasts the block's windows."""
    if flood is None:
        busy = await asyncio.create_subprocess_exec(sys.executable, "-c", BUSY)
        try:
            psutil.Process(busy.pid).nice(NICENESS)
            yield
        finally:
            busy.kill()
            await busy.wait()
        return
    seconds = SWELL_SECONDS + 2 * (WINDOW_SECONDS + 1)
    flooding = asyncio.create_task(generator.run(replace(flood, seconds=seconds)))
    await asyncio.sleep(SWELL_SECONDS)
    yield
    await flooding


def _section(counts: Mapping[tuple[str, str], Sequence[Count]], floods: Sequence[str]) -> Section:
    p99 = {key: median(count.p99 for count in found) for key, found in counts.items()}
    ratios = {key: value / p99[ALONE, key[1]] for key, value in p99.items()}
    rows = [
        [name, *(cell for what in ("create", "read") for cell in _cells(counts[name, what], ratios[name, what]))]
        for name in floods
    ]
    worst = {what: max(ratio for (_, of), ratio in ratios.items() if of == what) for what in ("create", "read")}
    return Section(
        "S9: one account's flood",
        f"One API process. An account creates, then reads, {RATE} times a second over {CALLERS} connections, while "
        f"another one floods it over {CONNECTIONS} connections ({OPEN_CONNECTIONS:,} for streams and waits), each of "
        "which sends again at once, whatever the response was. The flood's generator gives way to everything else; "
        "beside no flood, a process that does nothing takes as much CPU time.",
        ["flood", "create p50 ms", "p99 ms", "× alone", "read p50 ms", "p99 ms", "× alone"],
        rows,
        targets=[
            TargetResult("S9", f"p99 of another account's {what}s, worst", ratio, 2, None, " ×", "less", digits=1)
            for what, ratio in worst.items()
        ],
    )


def _cells(counts: Sequence[Count], ratio: float) -> tuple[str, str, str]:
    p50, p99 = (median(getattr(count, name) for count in counts) for name in ("p50", "p99"))
    return f"{p50:.1f}", f"{p99:.1f}", f"{ratio:.1f} ×"
