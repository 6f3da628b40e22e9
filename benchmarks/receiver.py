"""A webhook receiver, run as a separate process: records the time of each arrival, or never responds.

Commands: ``{"listen": host, "mode": "well" | "hang"}`` → the port; ``{"take": true}`` → all arrivals since the last
``take`` as ``[[subject id, Unix time, host], …]``; ``{"count": true}`` → the number of arrivals to take.
"""

import asyncio
import json
import time
from typing import Any

import uvloop

from benchmarks.http_server import Connection, Request, reply, serve_commands

WELL = reply(204)


class Receiver:
    """All listening addresses and the recorded arrivals."""

    def __init__(self) -> None:
        self._arrivals: list[tuple[str, float, str]] = []

    async def command(self, command: dict[str, Any]) -> Any:
        if "listen" in command:
            handle = self._hang if command["mode"] == "hang" else self._record
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: Connection(handle), command["listen"], 0, backlog=1024)
            return server.sockets[0].getsockname()[1]
        if "count" in command:
            return len(self._arrivals)
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def _record(self, request: Request) -> bytes:
        now = time.time()
        self._arrivals.append((json.loads(request.body)["data"]["id"], now, request.host))
        return WELL

    def _hang(self, _request: Request) -> None:
        return None


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_commands(Receiver().command))
