"""An upstream in OpenAI's words that costs next to nothing: its jobs never end, or they end at once with a large film.

``/v1`` is the endless one. It notes when each job is asked about, so that it can tell how late polls are. ``/large/v1``
hands out one file for every job. Commands: ``{"polls": true}`` → how many since the last time, and the seconds between
two looks at the same job; ``{"film": path}`` → what ``/large`` hands out.
"""

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.http_server import Asked, Connection, obey, reply


class Upstream:
    """The answers, and the notes."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._gaps: list[float] = []
        self._polls = 0
        self._film: Path | None = None

    async def listen(self) -> int:
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self.answer), "127.0.0.1", 0, backlog=1024
        )
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def obey(self, command: dict[str, Any]) -> Any:
        if "film" in command:
            self._film = Path(command["film"]) if command["film"] else None
            return True
        polls, gaps = self._polls, self._gaps
        self._polls, self._gaps = 0, []
        if command["polls"] == "forget":
            self._seen.clear()
        return {"polls": polls, "gaps": gaps}

    def answer(self, asked: Asked) -> bytes | Path:
        if asked.path.startswith("/large/"):
            return self._large(asked)
        if asked.method == "POST":
            return reply(200, _video(f"video_{uuid.uuid4().hex}", "queued", 0))
        name = asked.path.rpartition("/")[2]
        now = time.perf_counter()
        self._polls += 1
        before = self._seen.get(name)
        if before is not None:
            self._gaps.append(now - before)
        self._seen[name] = now
        return reply(200, _video(name, "in_progress", 0))

    def _large(self, asked: Asked) -> bytes | Path:
        if asked.path.endswith("/content"):
            return self._film or reply(404)
        if asked.method == "POST":
            return reply(200, _video(f"video_{uuid.uuid4().hex}", "queued", 0))
        return reply(200, _video(asked.path.rpartition("/")[2], "completed", 100))


def _video(name: str, status: str, progress: int) -> bytes:
    return json.dumps(
        {
            "id": name,
            "object": "video",
            "model": "sandbox-film",
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
    await obey(upstream.obey)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
