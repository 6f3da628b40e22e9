"""Has films looked at in processes of their own, so that one that hangs, crashes or eats memory costs only itself.

A process is kept for the next film, and ended when none comes for a while. See docs/decisions/009.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from app.assets.errors import AssetError, NotPlayable, StorageFull, StorageUnavailable, TooBig
from app.assets.media_info import Container, Film, Poster

#: The longest look at one film. An hour of film takes seconds.
LOOK_SECONDS = 300.0
#: A process that has nothing to do is ended after so long.
IDLE_SECONDS = 60.0
#: Films looked at at once.
PROCESSES = 2
MOST_FACTS = 64 * 1024
MOST_JPEG = 16 * 1024 * 1024
MODULE = "app.assets.probe_process"
#: The only variables that the process is given: no secret is among them.
VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
REFUSALS: Mapping[str, type[NotPlayable | TooBig]] = {"NotPlayable": NotPlayable, "TooBig": TooBig}
TROUBLES: Mapping[str, type[StorageFull | StorageUnavailable]] = {
    "StorageFull": StorageFull,
    "StorageUnavailable": StorageUnavailable,
}

log = structlog.get_logger()


class Examiner:
    """The processes of one worker. Nothing is started before the first film comes."""

    def __init__(self, *, look_seconds: float = LOOK_SECONDS, idle_seconds: float = IDLE_SECONDS) -> None:
        self._look_seconds = look_seconds
        self._idle_seconds = idle_seconds
        self._turn = asyncio.Semaphore(PROCESSES)
        self._idle: list[_Process] = []

    def warm(self) -> None:
        """A film is about to come: have a process ready for it."""
        if not self._idle:
            with suppress(OSError):  # it will be said when it matters
                self._keep(_Process())

    async def examine(self, path: Path) -> tuple[Film, Poster]:
        """What a film is, and a still picture of it.

        Raises:
            NotPlayable: also when looking at it took too long, or was more than the process survived.
            TooBig: beyond the bounds of :mod:`app.assets.media`.
            StorageError: our side.
        """
        async with self._turn:
            process = self._taken()
            try:
                async with asyncio.timeout(self._look_seconds):
                    facts, jpeg = await process.ask(path)
                found = _found(facts, jpeg)
            except TimeoutError:
                process.end()
                raise NotPlayable("looking at it takes too long", f"over {self._look_seconds:g} s") from None
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                process.end()
                raise NotPlayable("looking at it failed", repr(error)) from error
            except BaseException:
                process.end()
                raise
            self._keep(process)
        if isinstance(found, AssetError):
            raise found
        return found

    def close(self) -> None:
        """End all that have nothing to do."""
        while self._idle:
            self._idle.pop().end()

    def _taken(self) -> "_Process":
        try:
            return self._idle.pop() if self._idle else _Process()
        except OSError as error:
            raise StorageUnavailable(f"no process to look at films with: {error}") from error

    def _keep(self, process: "_Process") -> None:
        self._idle.append(process)
        process.used += 1
        asyncio.get_running_loop().call_later(self._idle_seconds, self._end_idle, process, process.used)

    def _end_idle(self, process: "_Process", used: int) -> None:
        if process in self._idle and process.used == used:
            self._idle.remove(process)
            process.end()


class _Process:
    """One process, and the socket to it. It ends when we do, whatever ends us; ``used`` counts films."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self.used = 0
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603  # the command is our own
                    [sys.executable, "-I", "-m", MODULE, str(os.getpid())],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={name: os.environ[name] for name in VARIABLES if name in os.environ},
                    start_new_session=True,
                )
            except OSError:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        self._end = weakref.finalize(self, _end, self._process, self._socket)

    async def ask(self, path: Path) -> tuple[dict[str, Any], bytes]:
        """What the process says of a file.

        Raises:
            EOFError, OSError: it is gone.
            ValueError: it speaks nonsense.
        """
        loop, name = asyncio.get_running_loop(), os.fsencode(path)
        await loop.sock_sendall(self._socket, len(name).to_bytes(4, "big") + name)
        head = await self._read(8)
        facts, jpeg = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
        if facts > MOST_FACTS or jpeg > MOST_JPEG:
            raise ValueError("an answer without measure")
        return json.loads(await self._read(facts)), await self._read(jpeg)

    async def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = await asyncio.get_running_loop().sock_recv(self._socket, size - len(data))
            if not more:
                raise EOFError(f"the process ended with {self._process.poll()}")
            data += more
        return bytes(data)

    def end(self) -> None:
        """Kill it. May be called twice."""
        self._end()


def _end(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    process.kill()
    process.wait()


def _found(facts: Mapping[str, Any], jpeg: bytes) -> tuple[Film, Poster] | AssetError:
    """Read with mistrust: a process that was taken over by a film may say anything, and no more than that."""
    if refusal := REFUSALS.get(facts.get("refused", "")):
        return refusal(str(facts["about"]), str(facts["detail"]))
    if trouble := TROUBLES.get(facts.get("refused", "")):
        return trouble(str(facts["detail"]))
    film, poster = facts["film"], facts["poster"]
    return (
        Film(
            container=Container(film["container"]),
            codec=str(film["codec"])[:100],
            width=int(film["width"]),
            height=int(film["height"]),
            seconds=float(film["seconds"]),
            frame_rate=float(film["frame_rate"]),
            has_audio=bool(film["has_audio"]),
        ),
        Poster(jpeg=jpeg, width=int(poster["width"]), height=int(poster["height"])),
    )
