"""Whole jobs, from the create to the stored video and the webhook: maximum rate of one worker, and of two."""

import asyncio
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from uuid import UUID

import psutil

from benchmarks.bulk_jobs import delete_jobs
from benchmarks.child_processes import Generator, Peer
from benchmarks.load_generator import MARK, Plan
from benchmarks.report import Section
from benchmarks.rows.throughput import BODY, creates, reads, store_jobs
from benchmarks.session import Bench
from benchmarks.stack import Part, Site
from benchmarks.stats import spread

#: A round has as many jobs as a worker completes in ``LOAD_SECONDS``, measured in the warm-up, within these bounds.
FEWEST, MOST, LOAD_SECONDS = 200, 2_000, 6
CALLERS = 16
TIMEOUT_SECONDS = 300
PARTS = ("api", "worker", "postgres", "sandbox")


@dataclass(frozen=True, slots=True)
class Whole:
    """A number of jobs from create to webhook. ``cpu`` is milliseconds per job by part."""

    jobs: int
    seconds: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds


async def through(bench: Bench, apis: Sequence[Part], workers: Sequence[Part], jobs: int) -> Whole:
    """Create jobs and wait for the last webhook; the workers must be running."""
    site = bench.site
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Peer.running("receiver"))
        port = await receiver.ask({"listen": "127.0.0.1", "mode": "well"})
        generators = [await stack.enter_async_context(Generator.running()) for _ in apis]
        body = json.dumps({**BODY, "webhook_url": f"http://127.0.0.1:{port}/{MARK}", "seconds": 1, "size": "640x360"})
        plans = [
            Plan(api.port, ["/v1/jobs"], "POST", site.headers, body, 202, CALLERS, requests=jobs // len(apis))
            for api in apis
        ]
        meter = bench.meter(api=_processes(apis), worker=_processes(workers))
        before, began = meter.read(), time.perf_counter()
        await asyncio.gather(*(one.run(plan) for one, plan in zip(generators, plans, strict=True)))
        sent = sum(plan.requests or 0 for plan in plans)
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while await receiver.ask({"count": True}) < sent:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.05)
        seconds = time.perf_counter() - began
        used = meter.read().since(before)
    await clean(site)
    return Whole(sent, seconds, used.each(sent))


def jobs_per_round(rate: float) -> int:
    """The number of jobs for a round of ``LOAD_SECONDS`` at this rate per second; an even number."""
    return max(FEWEST, min(MOST, int(rate * LOAD_SECONDS))) // 2 * 2


async def clean(site: Site, since: UUID | None = None) -> None:
    """Delete all jobs; with ``since``, only jobs with ids from ``since`` on."""
    connection = await site.connect()
    try:
        await delete_jobs(connection, since)
    finally:
        await connection.close()


async def measure(bench: Bench) -> list[Section]:
    """Measure one API and worker, alternately with two of each."""
    site = bench.site
    apis, workers = [site.api, site.another_api()], [site.worker, site.another_worker()]
    wholes: dict[str, list[Whole]] = {"one": [], "two": []}
    rates: dict[str, dict[str, list[float]]] = {what: {"one": [], "two": []} for what in ("creates", "reads")}
    try:
        await apis[1].start()
        stored_jobs = await store_jobs(site, states=["running"])
        for _ in range(bench.options.rounds):
            for name, number in (("one", 1), ("two", 2)):
                rates["reads"][name].append(await _gets(bench, apis[:number], stored_jobs.ids["running"]))
        await clean(site)
        for _ in range(bench.options.rounds):
            for name, number in (("one", 1), ("two", 2)):
                rates["creates"][name].append(await _posts(bench, apis[:number]))
                await clean(site)
        await site.worker.start()
        await through(bench, apis[:1], workers[:1], FEWEST // 2)  # warm-up
        jobs = jobs_per_round((await through(bench, apis[:1], workers[:1], FEWEST // 2)).rate)
        for _ in range(bench.options.rounds):
            wholes["one"].append(await through(bench, apis[:1], workers[:1], jobs))
            await workers[1].start()
            wholes["two"].append(await through(bench, apis, workers, jobs))
            bench.say(f"{wholes['one'][-1].rate:.0f} videos per second with one, {wholes['two'][-1].rate:.0f} with two")
            await workers[1].stop()
    finally:
        for part in (*workers, apis[1]):
            await part.stop()
    videos = {name: [whole.rate for whole in measured] for name, measured in wholes.items()}
    return [_jobs_section(wholes["one"]), _scale_section({**rates, "whole jobs": videos})]


async def _posts(bench: Bench, apis: Sequence[Part]) -> float:
    """Creates per second of all APIs together, with callers divided among them, while no worker runs."""
    plan = creates(bench.site, CALLERS // len(apis), bench.options.seconds)
    return await _together([replace(plan, port=api.port) for api in apis])


async def _gets(bench: Bench, apis: Sequence[Part], ids: Sequence[str]) -> float:
    plan = reads(bench.site, ids, CALLERS // len(apis), bench.options.seconds)
    return await _together([replace(plan, port=api.port) for api in apis])


async def _together(plans: Sequence[Plan]) -> float:
    async with AsyncExitStack() as stack:
        generators = [await stack.enter_async_context(Generator.running()) for _ in plans]
        counts = await asyncio.gather(*(one.run(plan) for one, plan in zip(generators, plans, strict=True)))
        return sum(count.rate for count in counts)


def _processes(parts: Sequence[Part]) -> list[psutil.Process]:
    return [part.process for part in parts]


def _jobs_section(one: Sequence[Whole]) -> Section:
    rates = [whole.rate for whole in one]
    cpu = {part: statistics.median(whole.cpu[part] for whole in one) for part in PARTS}
    intro = (
        f"{one[0].jobs:,} creates in a closed loop of {CALLERS}, an upstream that finishes at once; measured until the "
        "last video is stored and its webhook received. One API, one worker; median of the rounds."
    )
    rows = [
        [
            f"{statistics.median(rates):.0f}",
            f"± {spread(rates) / 2:.0%}",
            *(f"{cpu[part]:.1f}" for part in PARTS),
            f"{sum(cpu.values()):.1f}",
        ]
    ]
    headings = ["videos per second", "spread", *(f"CPU ms/job {part}" for part in PARTS), "total"]
    return Section("Whole jobs: create → stored → webhook", intro, headings, rows)


def _scale_section(rates: Mapping[str, Mapping[str, Sequence[float]]]) -> Section:
    cores = psutil.cpu_count() or 1
    rows = []
    for what, by in rates.items():
        single, double = statistics.median(by["one"]), statistics.median(by["two"])
        rows.append([what, f"{single:,.0f}", f"{double:,.0f}", f"{double / single:.2f} ×"])
    outro = (
        f"Two APIs, two workers, Postgres, the upstream and the generators share {cores} cores here, so the ratio "
        "shows whether a second process slows down the first (a ratio below 1), but not how far they scale. The CPU "
        "per job, above, indicates what more cores would give."
    )
    intro = "The same Postgres and Valkey, callers divided among the APIs; median of alternating rounds."
    headings = ["per second", "1 API, 1 worker", "2 APIs, 2 workers", "ratio"]
    return Section("Two APIs and two workers", intro, headings, rows, outro)
