"""The ceiling of storing: a plain aiohttp download into a file. ``{"url": …, "file": …}`` → number of bytes."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from benchmarks.http_server import serve_commands


async def fetch(command: dict[str, Any]) -> int:
    """Download one video."""
    size = 0
    with Path(command["file"]).open("wb", buffering=1024 * 1024) as file:  # noqa: ASYNC230  # deliberately the simplest code
        async with aiohttp.request("GET", command["url"]) as reply:
            assert reply.status == 200
            async for chunk in reply.content.iter_any():
                size += file.write(chunk)
    return size


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_commands(fetch))
