"""R17: 500 impatient clients and an API that is restarted: how soon after the storm are all of them served?"""

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from app.embedded.processes import LOCALHOST
from benchmarks.child_processes import WindowInvalid
from benchmarks.report import Section
from benchmarks.rows.whole_jobs import clean
from benchmarks.session import PROMPT, Bench
from benchmarks.stack import Site
from benchmarks.stats import TargetResult, spread

CLIENTS = 500
TIMEOUT_SECONDS = 5
STORM_SECONDS = 10
RESTART_AFTER_SECONDS = 3
#: Between two tries of a client: it knows no back-off.
PAUSE_SECONDS = 0.05
GIVE_UP_SECONDS = 120


@dataclass
class Storm:
    """What became of it. ``outcomes`` counts tries; ``calm_after`` is seconds from the last new order to the last 202.

    ``health`` is the longest response of ``/healthz`` in seconds, but for the restart.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, set[str]] = field(default_factory=dict)
    calm_after: float = 0
    away: float = 0
    health: float = 0


async def measure(bench: Bench) -> list[Section]:
    """Measure some storms."""
    storms = []
    for _ in range(bench.options.rounds):
        await clean(bench.site)
        storms.append(await _storm(bench.site))
        bench.say(f"all served {storms[-1].calm_after:.1f} s after the storm: {dict(storms[-1].outcomes)}")
    await clean(bench.site)
    return [_section(storms)]


async def _storm(site: Site) -> Storm:
    storm = Storm()
    ends = time.monotonic() + STORM_SECONDS
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    url = f"http://{LOCALHOST}:{site.api.port}"
    async with (
        aiohttp.ClientSession(url, headers=site.headers, connector=connector, timeout=timeout) as session,
        asyncio.timeout(STORM_SECONDS + GIVE_UP_SECONDS),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(_restart(site, storm))
        probing = group.create_task(_probe(session, storm))
        clients = [group.create_task(_client(session, storm, ends)) for _ in range(CLIENTS)]
        await asyncio.wait(clients)
        probing.cancel()
    storm.calm_after = time.monotonic() - ends
    twice = [key for key, ids in storm.jobs.items() if len(ids) > 1]
    connection = await site.connect()
    try:
        stored = await connection.fetchval("SELECT count(*) FROM jobs")
    finally:
        await connection.close()
    if twice or stored != len(storm.jobs):
        raise WindowInvalid(f"{len(storm.jobs)} keys made {stored} jobs, {len(twice)} keys more than one")
    return storm


async def _restart(site: Site, storm: Storm) -> None:
    await asyncio.sleep(RESTART_AFTER_SECONDS)
    began = time.monotonic()
    site.api.process.send_signal(signal.SIGKILL)
    await site.api.stop()
    await site.api.start()
    storm.away = time.monotonic() - began


async def _probe(session: aiohttp.ClientSession, storm: Storm) -> None:
    while True:
        began = time.monotonic()
        try:
            async with session.get("/healthz"):
                storm.health = max(storm.health, time.monotonic() - began)
        except (TimeoutError, aiohttp.ClientError):
            storm.outcomes["health away"] += 1
        await asyncio.sleep(PAUSE_SECONDS)


async def _client(session: aiohttp.ClientSession, storm: Storm, ends: float) -> None:
    """Order after order until the storm ends, each with its key and until it is accepted."""
    while time.monotonic() < ends:
        key = os.urandom(12).hex()
        for tries in itertools.count():
            if tries:
                await asyncio.sleep(PAUSE_SECONDS)
            job_id = await _try(session, storm, key)
            if job_id is not None:
                storm.jobs.setdefault(key, set()).add(job_id)
                break


async def _try(session: aiohttp.ClientSession, storm: Storm, key: str) -> str | None:
    body = {"model": "bench/video", "prompt": PROMPT}
    try:
        async with session.post("/v1/jobs", json=body, headers={"Idempotency-Key": key}) as reply:
            found = await reply.json()
    except TimeoutError:
        storm.outcomes["time-out"] += 1
        return None
    except aiohttp.ClientError:
        storm.outcomes["no connection"] += 1
        return None
    storm.outcomes[str(reply.status)] += 1
    return str(found["id"]) if reply.status == 202 else None


def _section(storms: list[Storm]) -> Section:
    intro = (
        f"For {STORM_SECONDS} s, {CLIENTS} clients create job after job, each with its Idempotency-Key, a time-out of "
        f"{TIMEOUT_SECONDS} s and no back-off; after {RESTART_AFTER_SECONDS} s the API is killed and started again. "
        "Every key must have made one job."
    )
    rows = [
        [
            f"{len(storm.jobs):,}",
            f"{storm.away:.1f}",
            f"{storm.calm_after:.1f}",
            f"{storm.health * 1000:.0f}",
            ", ".join(f"{name}: {count:,}" for name, count in storm.outcomes.most_common()),
        ]
        for storm in storms
    ]
    longest, health = (max(getattr(storm, name) for storm in storms) for name in ("calm_after", "health"))
    return Section(
        "R17: a storm of clients",
        intro,
        ["jobs", "API away s", "all served s after its end", "longest health ms", "tries"],
        rows,
        outro=f"Spread ± {spread([storm.calm_after for storm in storms]) / 2:.0%}.",
        targets=[
            TargetResult("R17", "all served after a storm, longest", longest, 10, None, " s", "less", digits=1),
            TargetResult("R17", "… health beside it, longest", health, 1, None, " s", "less", digits=2),
        ],
    )
