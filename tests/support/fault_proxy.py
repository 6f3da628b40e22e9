"""A TCP proxy that does to two processes what networks do, when it is told to.

``FaultProxy`` spoils replies; ``CommitCutter`` stands before Postgres and cuts a connection exactly at a COMMIT.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum, StrEnum, auto
from typing import Self

from app.embedded.processes import LOCALHOST, free_port

CHUNK = 65_536
DRIP_SECONDS = 0.05  # between two bytes
LATE_SECONDS = 1.7
PAGE = b"<!doctype html><title>Just a moment</title><h1>Checking your browser</h1>"
GARBAGE = b"\x16\x03\x01 this is no HTTP\r\n\r\n\x00"
#: COMMIT as a simple query, or inside a Parse message behind the statement's name; or the jobs of a create, which are
#: one statement, committed by itself.
COMMIT = re.compile(rb"Q[\s\S]{4}COMMIT|P[\s\S]{4}[^\0]*\0COMMIT|\"deadline_seconds\": ")


class Mode(StrEnum):
    """What becomes of the bytes that pass."""

    PASS = "pass"
    REFUSE = "refuse"  # nobody listens
    BLACK_HOLE = "black hole"  # it connects; what is sent arrives nowhere
    LATE = "late request"  # what is posted arrives after whoever sent it has given up
    LOSE_REPLY = "lose the reply"  # the request arrives; the connection ends before a byte of the reply
    CUT = "cut"  # reset in the middle of the reply
    TRUNCATE = "truncate"  # closed in the middle of the reply, as if that were all
    DRIP = "drip"  # the reply comes, byte by byte
    GARBAGE = "garbage"  # the request arrives; what comes back is no HTTP
    UNAVAILABLE = "503"  # the request arrives; what comes back is a load balancer's error …
    PAGE = "HTML page"  # … or its page


def _http(status: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(PAGE)}\r\nConnection: close\r\n\r\n"
    return head.encode() + PAGE


INSTEAD = {Mode.GARBAGE: GARBAGE, Mode.UNAVAILABLE: _http("503 Service Unavailable"), Mode.PAGE: _http("200 OK")}


class Severed(Exception):
    """This connection is over, on both sides."""


class Link:
    """One connection through the proxy. ``doomed``: it ends as soon as the other side answers."""

    def __init__(self, client: asyncio.StreamWriter, target: asyncio.StreamWriter) -> None:
        self.client = client
        self.target = target
        self.doomed = False

    def sever(self) -> None:
        """Reset both sides."""
        for writer in (self.client, self.target):
            if (inner := writer.get_extra_info("socket")) is not None and inner.fileno() >= 0:
                inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class FaultProxy:
    """Stands before ``target``, a port of this machine, and lets everything pass until it is switched.

    ``struck`` is set once something did not pass as it was, since the last switch.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()  # not one that the system gives away while nobody listens
        self.struck = asyncio.Event()
        self._target = target
        self._mode = Mode.PASS
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], Link] = {}

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stop_listening()
        self.sever()
        await asyncio.gather(*list(self._links), return_exceptions=True)

    async def switch(self, mode: Mode) -> None:
        """From now on do this, to the connections that there are as well."""
        self._mode = mode
        self.struck.clear()
        if mode is Mode.REFUSE:
            await self._stop_listening()
            self.sever()
        elif self._server is None:
            await self._listen()

    def sever(self) -> None:
        """Reset every connection that there is."""
        for link in self._links.values():
            link.sever()

    # What subclasses change -------------------------------------------------------------------------------------------

    async def request(self, data: bytes, link: Link) -> bytes:
        """What to pass on of bytes on their way to the target."""
        del link
        if self._mode is Mode.BLACK_HOLE:
            self.struck.set()
            return b""
        if self._mode is Mode.LATE and data.startswith(b"POST "):
            self.struck.set()
            await asyncio.sleep(LATE_SECONDS)
        return data

    async def reply(self, data: bytes, link: Link) -> bytes:
        """What to pass on of bytes on their way back.

        Raises:
            Severed: nothing, and nothing more.
        """
        mode = self._mode
        if mode in {Mode.PASS, Mode.LATE}:
            return data
        self.struck.set()
        if mode is Mode.BLACK_HOLE:
            return b""
        if mode is Mode.DRIP:
            for byte in data:
                link.client.write(bytes((byte,)))
                await asyncio.sleep(DRIP_SECONDS)
                if self._mode is not Mode.DRIP or link.client.is_closing():
                    break
            raise Severed
        if mode in INSTEAD:
            link.client.write(INSTEAD[mode])
        elif mode in {Mode.CUT, Mode.TRUNCATE}:
            link.client.write(data[: len(data) // 2])
        if mode in INSTEAD or mode is Mode.TRUNCATE:
            await link.client.drain()
            link.client.close()
        raise Severed

    # How bytes get from one side to the other -------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOCALHOST, self.port)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            target_reader, target = await asyncio.open_connection(LOCALHOST, self._target)
        except OSError:
            client.transport.abort()
            return
        link = self._links[task] = Link(client, target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, target, self.request, link))
                group.create_task(self._pump(target_reader, client, self.reply, link))
        except* (Severed, OSError):
            pass
        finally:
            del self._links[task]
            if not client.is_closing():
                link.sever()
            for writer in (client, target):
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        spoil: Callable[[bytes, Link], Awaitable[bytes]],
        link: Link,
    ) -> None:
        while data := await reader.read(CHUNK):
            writer.write(await spoil(data, link))
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


class Side(Enum):
    """On which side of a COMMIT a connection is cut."""

    BEFORE = auto()  # Postgres never hears of it
    AFTER = auto()  # Postgres has committed, and nobody hears of that


class CommitCutter(FaultProxy):
    """Before Postgres: the connection over which a chosen COMMIT passes is cut right there."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._side = Side.BEFORE
        self._passing = 0
        self._cut = asyncio.Event()

    def cut(self, side: Side, passing: int = 1) -> asyncio.Event:
        """Cut at the COMMIT that comes as the ``passing``-th from now on; set when that has happened."""
        self._side, self._passing, self._cut = side, passing, asyncio.Event()
        return self._cut

    def spare(self) -> None:
        """Cut no more."""
        self._passing = 0

    async def request(self, data: bytes, link: Link) -> bytes:
        if self._passing and COMMIT.search(data):
            self._passing -= 1
            if not self._passing and self._side is Side.BEFORE:
                self._sever(link)
            link.doomed = not self._passing
        return await super().request(data, link)

    async def reply(self, data: bytes, link: Link) -> bytes:
        if link.doomed:
            self._sever(link)
        return await super().reply(data, link)

    def _sever(self, link: Link) -> None:
        self._cut.set()
        link.sever()
        raise Severed
