"""The sandbox as a process of its own."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.sandbox.server import connected

pytestmark = pytest.mark.servers

PROGRAM = """
import sys
from pathlib import Path
from app.sandbox.main import serve
from app.sandbox.settings import SandboxSettings
serve(SandboxSettings(render_seconds=0.05, data_dir=Path(sys.argv[2])), port=int(sys.argv[1]))
"""
ENOUGH = 120  # seconds; an open stream would hold it indefinitely


async def test_open_streams_and_renders_do_not_hold_the_process(video_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, str(port), str(video_directory))
    try:
        async with asyncio.timeout(ENOUGH), connected(f"http://127.0.0.1:{port}") as client:
            while True:
                try:
                    await client.get("healthz")
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
            path = await client.buy("a fox [huge]")
            await client.wait_until(path)
            long_video = {"prompt": "a fox", "size": "1920x1080", "seconds": "60"}
            await client.post("openai/v1/videos", json=long_video)
            async with client.session.get(f"{path}/content") as stream:
                await stream.content.readexactly(1024)
                process.send_signal(signal.SIGTERM)
                assert await process.wait() in {0, -signal.SIGTERM}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
