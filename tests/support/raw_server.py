"""An HTTP server of bare sockets, for what no HTTP server would do: it says exactly these bytes, or none."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto


class Then(Enum):
    """What happens after the answer's bytes."""

    KEEP = auto()  # the connection stays open for the next request
    CLOSE = auto()
    HANG = auto()  # nothing, as long as the server runs


@dataclass(frozen=True, slots=True)
class Say:
    """One answer. ``unheard``: the connection ends before anything of the request is read."""

    data: bytes = b""
    then: Then = Then.CLOSE
    unheard: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """One request as it came. ``headers`` have lower-case names."""

    line: str
    headers: dict[str, str]
    body: bytes


def reply(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> Say:
    """A whole, ordinary answer."""
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers))
    return Say(head.encode() + b"\r\n\r\n" + body, Then.KEEP)


class RawServer:
    """Answers from a script. ``connections`` counts what was accepted, ``heard`` holds the requests."""

    def __init__(self) -> None:
        self.connections = 0
        self.heard: list[Heard] = []
        self.port = 0
        self._script: deque[Say] = deque()
        self._last: Say | None = None
        self._news = asyncio.Condition()
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def will_say(self, *answers: Say) -> None:
        """Set the script; the last answer is repeated for ever."""
        self._script = deque(answers)

    async def wait_for(self, requests: int) -> list[Heard]:
        """Return once so many requests have come in all."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.heard) >= requests)
        return self.heard

    async def close(self) -> None:
        """End every connection that is still open."""
        for connection in self._open:
            connection.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self._script and self._script[0].unheard:
            self._script.popleft()
            return False
        await self._hear(reader)
        if self._script:
            self._last = self._script.popleft()
        answer = self._last
        assert answer is not None, "nothing to say"
        writer.write(answer.data)
        await writer.drain()
        if answer.then is Then.HANG:
            await asyncio.Event().wait()
        return answer.then is Then.KEEP

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        async with self._news:
            self.heard.append(Heard(line, headers, body))
            self._news.notify_all()


@asynccontextmanager
async def running_raw_server(*answers: Say) -> AsyncIterator[RawServer]:
    """A raw server on a free loopback port."""
    raw = RawServer()
    raw.will_say(*answers)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        await raw.close()
        await server.wait_closed()
