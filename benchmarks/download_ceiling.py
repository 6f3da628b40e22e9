"""The ceiling of storing: aiohttp's bytes into a file as they come. ``{"url": …, "file": …}`` → how many."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from benchmarks.http_server import obey


async def fetch(command: dict[str, Any]) -> int:
    """Copy one film."""
    size = 0
    with Path(command["file"]).open("wb", buffering=1024 * 1024) as file:  # noqa: ASYNC230  # plain
        async with aiohttp.request("GET", command["url"]) as reply:
            assert reply.status == 200
            async for chunk in reply.content.iter_any():
                size += file.write(chunk)
    return size


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(obey(fetch))
