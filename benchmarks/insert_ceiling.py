"""The ceiling of Postgres: single inserts, each with its commit, on several asyncpg connections.

Commands: ``{"url": …, "callers": …, "seconds": …}`` → a :class:`~benchmarks.load_generator.Count`.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict
from typing import Any

import asyncpg
import uvloop

from benchmarks.load_generator import Count, counted, cpu

TABLE = "CREATE TABLE IF NOT EXISTS bench_inserts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, row jsonb)"
ROW = json.dumps({"prompt": "a purple elephant " * 30})
WARMUP_SECONDS = 0.3


async def run(url: str, callers: int, seconds: float) -> Count:
    """Run one window."""
    connections = [await asyncpg.connect(url) for _ in range(callers)]
    await connections[0].execute(TABLE)
    times: list[float] = []
    total = 0
    began, used = time.perf_counter(), cpu()
    measured = began + WARMUP_SECONDS
    until = measured + seconds

    async def insert(connection: asyncpg.Connection) -> None:
        nonlocal total
        statement = await connection.prepare("INSERT INTO bench_inserts (row) VALUES ($1)")
        while (sent := time.perf_counter()) < until:
            await statement.fetch(ROW)
            now = time.perf_counter()
            total += 1
            if measured <= now <= until:
                times.append(now - sent)

    await asyncio.gather(*map(insert, connections))
    share = (cpu() - used) / (time.perf_counter() - began)
    await connections[0].execute("TRUNCATE bench_inserts")
    for connection in connections:
        await connection.close()
    return counted(times, total, seconds, share)


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            fields: dict[str, Any] = json.loads(line)
            print(json.dumps(asdict(runner.run(run(**fields)))), flush=True)


if __name__ == "__main__":
    main()
