"""P1 and P2: durable creates and reads of single jobs while no worker runs; ceilings in the same rounds."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from PIL import Image

from app.ids import Prefix, decode, new_id
from benchmarks.bulk_jobs import Spread, copied_ids, copy, delete_jobs, vacuum
from benchmarks.load_generator import MARK, Plan
from benchmarks.report import Section, throughput_headings, throughput_row
from benchmarks.resource_meter import Meter
from benchmarks.rows import ceilings, rivals
from benchmarks.session import PROMPT, Bench, Client
from benchmarks.stack import ACCOUNT, Site
from benchmarks.stats import Measured, TargetResult, Typical

JOBS = 1_000
PARTS = ("api", "postgres")
BODY = {
    "model": "bench/video",
    "prompt": f"{PROMPT}, take {MARK}",
    "seconds": 4,
    "size": "1280x720",
    "metadata": {"order": MARK, "customer": "c-20481"},
    "webhook_url": "http://127.0.0.1:9/videos/done",
}
#: A model that takes a first and a last frame; nothing serves it here.
FRAMED = {"model": "runway/veo3.1"}
WITH_INPUTS = "`POST /v1/jobs`, two `file_id`"
POST, GET = "`POST /v1/jobs`", "`GET /v1/jobs/{id}`"
INTRO = (
    f"One API process with default settings (log level `info`, written to a file); no worker runs, so this measures "
    f"only the API and Postgres. Each create has a unique prompt, a webhook URL and metadata; the 202 is sent after "
    f"the commit (`fsync` and `synchronous_commit` on). Reads are round-robin over {JOBS:,} jobs of the given state, "
    f"which are row-by-row copies of a real one. Jobs created in a window are deleted after it."
)
TITLES = {
    "ceilings": (
        "Ceilings of the parts",
        "In the same rounds, by the same generator; CPU under `api` is that of the named process (asyncpg: client).",
    ),
    "rivals": (
        "LiteLLM's proxy",
        "One process with a key and its default log, without a database: it relays to the same sandbox.",
    ),
    "p1": ("P1: durable creates", INTRO),
    "p2": ("P2: reads of a job", "As P1."),
}


@dataclass(frozen=True, slots=True)
class StoredJobs:
    """Ids of jobs to read, by state."""

    ids: Mapping[str, Sequence[str]]


def creates(
    site: Site, callers: int, seconds: float, *, keyed: bool = False, more: Mapping[str, Any] | None = None
) -> Plan:
    """A window of creates; ``more`` are further fields of the body."""
    headers = {**site.headers, **({"Idempotency-Key": f"bench-{MARK}"} if keyed else {})}
    return Plan(
        site.api.port,
        ["/v1/jobs"],
        "POST",
        headers,
        json.dumps({**BODY, **(more or {})}),
        expect=202,
        callers=callers,
        seconds=seconds,
    )


def reads(site: Site, ids: Sequence[str], callers: int, seconds: float) -> Plan:
    """A window of reads, round-robin."""
    return Plan(
        site.api.port, [f"/v1/jobs/{one}" for one in ids], headers=site.headers, callers=callers, seconds=seconds
    )


async def store_jobs(
    site: Site, *, states: Sequence[str] = ("queued", "running", "succeeded"), number: int = JOBS
) -> StoredJobs:
    """Fill an empty site with jobs of each state. Its worker is started for that and stopped afterwards."""
    originals: dict[str, UUID] = {}
    async with Client.of(site) as client:
        await site.worker.start()
        if "succeeded" in states:
            done = await client.create()
            await client.reached(done["id"], "succeeded")
            originals["succeeded"] = as_uuid(done["id"])
        if "running" in states:
            going = await client.create(model="bench/endless")
            await client.reached(going["id"], "rendering", "running")
            originals["running"] = as_uuid(going["id"])
        await site.worker.stop()
        if "queued" in states:
            originals["queued"] = as_uuid((await client.create())["id"])
    connection = await site.connect()
    try:
        spread, ids = Spread.now(), {}
        for state, original in originals.items():
            await copy(connection, original, range(1, number + 1), spread)
            ids[state] = copied_ids(original, range(1, number + 1), spread)
        await vacuum(connection)
    finally:
        await connection.close()
    return StoredJobs(ids)


def as_uuid(job_id: str) -> UUID:
    """The UUID of a public id."""
    found = decode(Prefix.JOB, job_id)
    assert found is not None
    return found


def creating(
    bench: Bench,
    site: Site,
    meter: Meter,
    callers: int,
    *,
    keyed: bool = False,
    more: Mapping[str, Any] | None = None,
) -> Callable[[], Awaitable[Measured]]:
    """A window of creates, whose jobs are deleted afterwards."""

    async def window() -> Measured:
        since = new_id()
        measured = await bench.window(creates(site, callers, bench.options.seconds, keyed=keyed, more=more), meter)
        connection = await site.connect()
        try:
            await delete_jobs(connection, since)
        finally:
            await connection.close()
        return measured

    return window


def reading(
    bench: Bench, site: Site, meter: Meter, ids: Sequence[str], callers: int
) -> Callable[[], Awaitable[Measured]]:
    """A window of reads."""
    return lambda: bench.window(reads(site, ids, callers, bench.options.seconds), meter)


Windows = dict[tuple[str, str, int], Callable[[], Awaitable[Measured]]]


async def measure(bench: Bench, figures: Sequence[str]) -> list[Section]:
    """Measure P1 and P2, the ceilings and LiteLLM, all interleaved."""
    async with AsyncExitStack() as stack:
        windows: Windows = {}
        if "ceilings" in figures:
            found = await stack.enter_async_context(ceilings.windows(bench, bench.site, json.dumps(BODY)))
            windows |= {("ceilings", name, ceilings.CALLERS): window for name, window in found.items()}
        if "rivals" in figures:
            windows |= await stack.enter_async_context(rivals.windows(bench))
        stored_jobs = await store_jobs(bench.site)
        windows |= _ours(bench, stored_jobs, await _framed(bench.site), figures)
        named = {"|".join(map(str, key)): window for key, window in windows.items()}
        for name in [name for name in named if name.endswith("|16")]:
            await named[name]()  # warm-up: code paths, statements, pools
        measured = await bench.interleaved(named)
    connection = await bench.site.connect()
    await delete_jobs(connection)
    await connection.close()
    return _sections({key: Typical.of(measured["|".join(map(str, key))]) for key in windows})


async def _framed(site: Site) -> Mapping[str, Any]:
    """What a create has that begins with one picture and ends with another one."""
    key = await site.another_key(ACCOUNT, ["files:write"])
    async with Client.of(site, key) as client:
        frames = [await client.upload(Image.new("RGB", (1280, 720), color)) for color in ("teal", "navy")]
    roles = ("first_frame", "last_frame")
    return {**FRAMED, "inputs": [{"role": role, "file_id": file} for role, file in zip(roles, frames, strict=True)]}


def _ours(bench: Bench, stored_jobs: StoredJobs, framed: Mapping[str, Any], figures: Sequence[str]) -> Windows:
    windows: Windows = {}
    site = bench.site
    meter = bench.meter(api=site.api.process)
    if "p1" in figures:
        windows["p1", POST, 16] = creating(bench, site, meter, 16)
        windows["p1", WITH_INPUTS, 16] = creating(bench, site, meter, 16, more=framed)
        for callers in (1, 16, 64):
            windows["p1", f"{POST}, Idempotency-Key", callers] = creating(bench, site, meter, callers, keyed=True)
    if "p2" in figures:
        for callers in (1, 16, 64):
            windows["p2", f"{GET}, running", callers] = reading(bench, site, meter, stored_jobs.ids["running"], callers)
        for state in ("queued", "succeeded"):
            windows["p2", f"{GET}, {state}", 16] = reading(bench, site, meter, stored_jobs.ids[state], 16)
    return windows


def _sections(typical: Mapping[tuple[str, str, int], Typical]) -> list[Section]:
    found = []
    for figure, (title, intro) in TITLES.items():
        rows = [
            [*throughput_row(name, callers, one, PARTS), *_ratios(figure, callers, one, typical)]
            for (of, name, callers), one in typical.items()
            if of == figure
        ]
        if rows:
            headings = [*throughput_headings(PARTS), "of FastAPI alone", "against LiteLLM"]
            found.append(Section(title, intro, headings, rows, targets=_targets(figure, typical)))
    return found


def _ratios(
    figure: str, callers: int, one: Typical, typical: Mapping[tuple[str, str, int], Typical]
) -> tuple[str, str]:
    framework = typical.get(("ceilings", ceilings.FRAMEWORK, callers))
    rival = typical.get(("rivals", rivals.PATHS[figure], callers)) if figure in rivals.PATHS else None
    return f"{one.rate / framework.rate:.0%}" if framework else "–", f"{one.rate / rival.rate:.0f} ×" if rival else "–"


def _targets(figure: str, typical: Mapping[tuple[str, str, int], Typical]) -> list[TargetResult]:
    targets = []
    post, get = typical.get(("p1", POST, 16)), typical.get(("p2", f"{GET}, running", 16))
    if figure == "p1" and post is not None:
        targets = [
            TargetResult("P1", f"durable {POST}, c = 16, per second", post.rate, 1500, 2500),
            TargetResult("P1", "… p99", post.p99, 30, unit=" ms", better="less", digits=1),
        ]
        framed = typical["p1", WITH_INPUTS, 16].rate / post.rate
        targets.append(TargetResult("P1", "… with two `file_id` inputs, of that", 100 * framed, 60, unit=" %"))
        rival = typical.get(("rivals", rivals.PATHS["p1"], 16))
        if rival is not None:
            targets.append(TargetResult("P1", "… against LiteLLM", post.rate / rival.rate, 20, 40, " ×", digits=1))
    if figure == "p2" and get is not None:
        targets = [
            TargetResult("P2", f"{GET}, c = 16, per second", get.rate, 1800, 2500),
            TargetResult("P2", "… p99", get.p99, 30, unit=" ms", better="less", digits=1),
        ]
    return targets
