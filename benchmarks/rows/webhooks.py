"""P7: webhooks per second of one worker, to healthy receivers only and with a fifth of them to dead receivers."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle, islice

import asyncpg

from app.embedded.processes import free_port
from benchmarks.bulk_jobs import Spread, copy
from benchmarks.child_processes import Peer
from benchmarks.report import Section
from benchmarks.rows.throughput import as_uuid
from benchmarks.rows.whole_jobs import clean
from benchmarks.session import Bench, Client
from benchmarks.stats import TargetResult, spread

DELIVERIES = 3_000
HOSTS = 16  # of loopback: 127.0.0.1 to 127.0.0.16
DEAD_SHARE = 0.2
DEAD_HOSTS = 4  # half refuse connections, half hang
FIRST_COPY = 20_000_000
TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Delivered:
    """Deliveries to healthy receivers: their number and duration, and CPU milliseconds per delivery."""

    count: int
    seconds: float
    worker: float
    postgres: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


async def measure(bench: Bench) -> list[Section]:
    """Measure healthy receivers alone and beside dead ones, alternately."""
    healthy: list[Delivered] = []
    mixed: list[Delivered] = []
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Peer.running("receiver"))
        well = await _listening(receiver, range(1, HOSTS + 1), "well")
        hanging = await _listening(receiver, range(101, 101 + DEAD_HOSTS // 2), "hang")
        refusing = [f"127.0.0.{201 + number}:{free_port()}" for number in range(DEAD_HOSTS // 2)]
        for _ in range(bench.options.rounds):
            healthy.append(await _deliver(bench, receiver, well, []))
            mixed.append(await _deliver(bench, receiver, well, [*hanging, *refusing]))
            bench.say(f"{healthy[-1].rate:.0f} per second, {mixed[-1].rate:.0f} beside dead receivers")
    return [_section(healthy, mixed)]


async def _listening(receiver: Peer, numbers: range, mode: str) -> list[str]:
    hosts = [f"127.0.0.{number}" for number in numbers]
    return [f"{host}:{await receiver.ask({'listen': host, 'mode': mode})}" for host in hosts]


async def _deliver(bench: Bench, receiver: Peer, well: list[str], dead: list[str]) -> Delivered:
    """Create pending deliveries, start the worker and wait for all deliveries to healthy receivers."""
    site = bench.site
    first = await _delivered_job(bench, receiver, well[0])
    connection = await site.connect()
    try:
        await copy(connection, as_uuid(first), range(FIRST_COPY, FIRST_COPY + DELIVERIES), Spread.now())
        expected = await _make_pending(connection, well, dead)
    finally:
        await connection.close()
    await receiver.ask({"take": True})
    await site.worker.start()
    try:
        meter = bench.meter(worker=site.worker.process)
        before, arrivals = meter.read(), list[tuple[str, float, str]]()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while len(arrivals) < expected:
                await asyncio.sleep(0.1)
                arrivals += await receiver.ask({"take": True})
        used = meter.read().since(before)
    finally:
        await site.worker.stop()
    await clean(site)
    # Measured from the first arrival, to exclude the start of the process.
    times = sorted(at for _, at, _ in arrivals)
    each = used.each(expected)
    return Delivered(expected, times[-1] - times[0], each["worker"], each["postgres"])


async def _delivered_job(bench: Bench, receiver: Peer, host: str) -> str:
    """Create a job whose webhook is delivered, as the original of all copies; returns its id."""
    async with Client.of(bench.site) as client:
        await bench.site.worker.start()
        job = await client.create(webhook_url=f"http://{host}/videos/done")
        await client.reached(job["id"], "succeeded")
        until = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < until and not await receiver.ask({"count": True}):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)
        await bench.site.worker.stop()
        return str(job["id"])


async def _make_pending(connection: asyncpg.Connection, well: list[str], dead: list[str]) -> int:
    """Make all deliveries pending, spread over the receivers; returns how many go to healthy ones."""
    ids = [row["id"] for row in await connection.fetch("SELECT id FROM webhook_deliveries ORDER BY id")]
    every = round(1 / DEAD_SHARE)
    bad, good = cycle(dead), cycle(well)
    hosts = [next(bad) if dead and number % every == 0 else next(good) for number in range(len(ids))]
    await connection.execute("TRUNCATE webhook_attempts")
    await connection.execute(
        """
        UPDATE webhook_deliveries AS delivery
        SET state = 'pending', ended_at = NULL, attempts = 0, next_at = clock_timestamp(), host = place.host,
            url = 'http://' || place.host || '/videos/done'
        FROM unnest($1::uuid[], $2::text[]) AS place (id, host) WHERE delivery.id = place.id
        """,
        ids,
        list(islice(hosts, len(ids))),
    )
    await connection.execute("VACUUM ANALYZE webhook_deliveries")
    return sum(host in set(well) for host in hosts)


def _section(healthy: list[Delivered], mixed: list[Delivered]) -> Section:
    intro = (
        f"{DELIVERIES:,} webhooks due at once to {HOSTS} hosts on loopback, sent by one worker; measured from the "
        f"first to the last arrival at healthy receivers. In the second row {DEAD_SHARE:.0%} go to {DEAD_HOSTS} other "
        "hosts, half of which refuse connections while the others accept the request and never respond."
    )
    middle = [_middle(one) for one in (healthy, mixed)]
    rows = [
        [
            name,
            f"{one.rate:,.0f}",
            f"± {spread([each.rate for each in all_]) / 2:.0%}",
            f"{one.worker:.2f}",
            f"{one.postgres:.2f}",
        ]
        for name, one, all_ in (("all healthy", middle[0], healthy), ("beside dead receivers", middle[1], mixed))
    ]
    return Section(
        "P7: webhook deliveries",
        intro,
        ["receivers", "per second (healthy)", "spread", "CPU ms/op worker", "CPU ms/op Postgres"],
        rows,
        targets=[
            TargetResult("P7", "webhooks per second", middle[0].rate, 500, 1000),
            TargetResult(
                "P7", "… slowdown beside dead receivers", middle[0].rate / middle[1].rate, 2, None, " ×", "less", 2
            ),
        ],
    )


def _middle(all_: list[Delivered]) -> Delivered:
    return sorted(all_, key=lambda one: one.rate)[len(all_) // 2]
