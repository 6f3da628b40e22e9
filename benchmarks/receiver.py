"""The receiver of webhooks: a process of its own that notes when each came, and behaves as each place is told to.

Commands: ``{"listen": host, "mode": "well" | "hang"}`` → the port; ``{"take": true}`` → all arrivals since the last
time as ``[[subject's id, Unix time, host], …]``; ``{"count": true}`` → how many there are to take.
"""

import asyncio
import json
import time
from typing import Any

import uvloop

from benchmarks.http_server import Asked, Connection, obey, reply

WELL = reply(204)


class Receiver:
    """Every place that listens, and what came."""

    def __init__(self) -> None:
        self._arrivals: list[tuple[str, float, str]] = []

    async def obey(self, command: dict[str, Any]) -> Any:
        if "listen" in command:
            answer = self._hang if command["mode"] == "hang" else self._note
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: Connection(answer), command["listen"], 0, backlog=1024)
            return server.sockets[0].getsockname()[1]
        if "count" in command:
            return len(self._arrivals)
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def _note(self, asked: Asked) -> bytes:
        now = time.time()
        self._arrivals.append((json.loads(asked.body)["data"]["id"], now, asked.host))
        return WELL

    def _hang(self, _asked: Asked) -> None:
        return None


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(obey(Receiver().obey))
