"""A cheap upstream with OpenAI's API, whose jobs never end, or end at once with a large video.

Jobs of ``/v1`` never end; the times of their polls are recorded to measure how late polls are. ``/large/v1`` serves one
file for every job. Commands: ``{"polls": true}`` → the number of polls since the last command, and the seconds between
two polls of the same job (``"reset"`` instead of ``true`` also clears the recorded times); ``{"video": path}`` sets the
file that ``/large`` serves.
"""

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.http_server import Connection, Request, reply, serve_commands


class Upstream:
    """Handles requests and records polls."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._gaps: list[float] = []
        self._polls = 0
        self._large_file: Path | None = None

    async def listen(self) -> int:
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self.handle), "127.0.0.1", 0, backlog=1024
        )
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def command(self, command: dict[str, Any]) -> Any:
        if "video" in command:
            self._large_file = Path(command["video"]) if command["video"] else None
            return True
        polls, gaps = self._polls, self._gaps
        self._polls, self._gaps = 0, []
        if command["polls"] == "reset":
            self._seen.clear()
        return {"polls": polls, "gaps": gaps}

    def handle(self, request: Request) -> bytes | Path:
        if request.path.startswith("/large/"):
            return self._large(request)
        if request.method == "POST":
            return reply(200, _video(f"video_{uuid.uuid4().hex}", "queued", 0))
        name = request.path.rpartition("/")[2]
        now = time.perf_counter()
        self._polls += 1
        before = self._seen.get(name)
        if before is not None:
            self._gaps.append(now - before)
        self._seen[name] = now
        return reply(200, _video(name, "in_progress", 0))

    def _large(self, request: Request) -> bytes | Path:
        if request.path.endswith("/content"):
            return self._large_file or reply(404)
        if request.method == "POST":
            return reply(200, _video(f"video_{uuid.uuid4().hex}", "queued", 0))
        return reply(200, _video(request.path.rpartition("/")[2], "completed", 100))


def _video(name: str, status: str, progress: int) -> bytes:
    return json.dumps(
        {
            "id": name,
            "object": "video",
            "model": "sandbox-video",
            "status": status,
            "progress": progress,
            "created_at": 1_700_000_000,
            "completed_at": None,
            "expires_at": None,
            "size": "1280x720",
            "seconds": "4",
            "remixed_from_video_id": None,
            "error": None,
        }
    ).encode()


async def main() -> None:
    upstream = Upstream()
    print(json.dumps(await upstream.listen()), flush=True)
    await serve_commands(upstream.command)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
