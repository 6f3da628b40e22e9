"""A small, cheap HTTP/1.1 server for webhook receivers and upstreams of the harness."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

LONGEST_LINE = CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    method: str
    path: str
    body: bytes
    port: int
    host: str


#: Returns the whole response as bytes, a file to send, or None for no response at all.
Handler = Callable[[Request], bytes | Path | None]


def reply(status: int, body: bytes = b"", content_type: str = "application/json") -> bytes:
    """A whole response with headers."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """Keep-alive, no pipelining, bodies by content-length only."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._place = ("", 0)
        self._writable = asyncio.Event()
        self._writable.set()
        self._sending: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class does not inherit from it
        self._place = transport.get_extra_info("sockname")[:2]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].decode("latin-1")
        body_at, length = end + 4, _length(head)
        if len(self._buffer) < body_at + length:
            return
        method, path, _ = head.split(" ", 2)
        body, self._buffer = self._buffer[body_at : body_at + length], self._buffer[body_at + length :]
        assert self._transport is not None
        response = self._handle(Request(method, path, body, self._place[1], self._place[0]))
        if isinstance(response, Path):
            self._sending = asyncio.create_task(self._send(response))
        elif response is not None:
            self._transport.write(response)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._sending is not None:
            self._sending.cancel()

    async def _send(self, path: Path) -> None:
        assert self._transport is not None
        with path.open("rb") as file:  # from the page cache
            size = os.fstat(file.fileno()).st_size
            head = f"HTTP/1.1 200 X\r\nContent-Type: video/mp4\r\nContent-Length: {size}\r\n\r\n"
            self._transport.write(head.encode())
            while chunk := file.read(CHUNK):
                self._transport.write(chunk)
                await self._writable.wait()


def _length(head: str) -> int:
    at = head.lower().find("\r\ncontent-length:")
    return int(head[at + 17 :].split("\r\n", 1)[0]) if at >= 0 else 0


async def serve_commands(handle: Callable[[dict[str, Any]], Awaitable[Any]]) -> None:
    """Handle commands, which are lines of JSON on standard input, until it closes; prints each result as JSON."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await handle(json.loads(line))), flush=True)
