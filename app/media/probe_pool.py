"""Probes media in subprocesses, so a file that hangs or crashes the decoder cannot take the worker down.

A subprocess is reused for the next video and killed after ``IDLE_SECONDS`` without one. CPU time and wall time of each
video are limited, and videos that are probed again never take all slots. See docs/decisions/009.
"""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import structlog

from app.media.decode_budget import CPU_SECONDS
from app.media.errors import MediaError, NotPlayable, ProbeExhausted, StorageFull, StorageUnavailable, TooBig
from app.media.info import Container, Conversion, FileFormat, FileInfo, PosterInfo, Task, VideoInfo

#: Wall time limit for one video. Probing an hour of video takes seconds; the CPU time has a smaller limit.
PROBE_SECONDS = 120.0
#: An idle subprocess is killed after this time.
IDLE_SECONDS = 60.0
#: Videos probed concurrently.
PROCESSES = 2
#: Of these, videos whose first probe failed: they leave a slot for fresh ones.
RETRIES = PROCESSES - 1
MAX_METADATA_BYTES = 64 * 1024
MAX_POSTER_BYTES = 16 * 1024 * 1024
MODULE = "app.media.probe_process"
#: The environment variables passed to the subprocess; none of them holds a secret.
VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
REJECTIONS: Mapping[str, type[NotPlayable | TooBig]] = {
    "NotPlayable": NotPlayable,
    "ProbeExhausted": ProbeExhausted,
    "TooBig": TooBig,
}
STORAGE_ERRORS: Mapping[str, type[StorageFull | StorageUnavailable]] = {
    "StorageFull": StorageFull,
    "StorageUnavailable": StorageUnavailable,
}

#: The header of a request, as :mod:`app.media.probe_process` reads it.
REQUEST = struct.Struct("!BI")
Found = TypeVar("Found")
Number = TypeVar("Number", int, float)

log = structlog.get_logger()


class ProbePool:
    """The probe subprocesses of one worker. The first one starts with the first video."""

    def __init__(
        self,
        *,
        look_seconds: float = PROBE_SECONDS,
        cpu_seconds: float = CPU_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._look_seconds = look_seconds
        self._cpu_seconds = cpu_seconds
        self._idle_seconds = idle_seconds
        self._slots = asyncio.Semaphore(PROCESSES)
        self._retry_slots = asyncio.Semaphore(RETRIES)
        self._idle: list[_Process] = []

    def warm(self) -> None:
        """Start a subprocess ahead of a video that is still being received."""
        if not self._idle:
            with suppress(OSError):  # ``examine`` reports it
                self._release(_Process(self._cpu_seconds))

    async def examine(self, path: Path, *, retried: bool = False) -> tuple[VideoInfo, PosterInfo]:
        """Probe a video and make its poster. ``retried``: not the first try; fresh videos come first.

        Raises:
            ProbeExhausted: it took more CPU time or wall time than one video may take, or much of it to find a fault.
            NotPlayable: also when the subprocess died.
            TooBig: beyond the limits of :mod:`app.media.video`.
            StorageError: the file or a subprocess is not available; the video is not at fault.
        """
        return await self._run(Task.PROBE, os.fsencode(path), _probed, retried=retried)

    async def inspect(self, path: Path) -> FileInfo:
        """What a file that a caller gives is. See :mod:`app.media.inspection`.

        Raises:
            NotPlayable, TooBig, StorageError: as :meth:`examine`.
        """
        return await self._run(Task.INSPECT, os.fsencode(path), _inspected)

    async def convert(self, path: Path, target: Path, conversion: Conversion) -> bool:
        """Write a picture to ``target`` as asked; False if it is so already, and nothing was written.

        Raises:
            NotPlayable, TooBig, StorageError: as :meth:`examine`.
        """
        request = {"path": str(path), "target": str(target), **asdict(conversion)}
        return await self._run(Task.CONVERT, json.dumps(request).encode(), _converted)

    async def still(self, path: Path, target: Path, *, last: bool) -> None:
        """Write the first or the last frame of a video to ``target``, as a PNG.

        Raises:
            NotPlayable, TooBig, StorageError: as :meth:`examine`.
        """
        request = {"path": str(path), "target": str(target), "last": last}
        await self._run(Task.STILL, json.dumps(request).encode(), lambda *_: True)

    async def _run(
        self, task: Task, subject: bytes, parse: Callable[[Mapping[str, Any], bytes], Found], *, retried: bool = False
    ) -> Found:
        async with self._retry_slots if retried else nullcontext(), self._slots:
            process = self._acquire()
            try:
                async with asyncio.timeout(self._look_seconds):
                    metadata, jpeg = await process.run(task, subject)
                rejected = _rejected(metadata)
                found = None if rejected else parse(metadata, jpeg)
            except TimeoutError:
                process.end()
                raise ProbeExhausted("probing it timed out", f"over {self._look_seconds:g} s") from None
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                process.end()
                if process.out_of_cpu_time:
                    detail = f"over {self._cpu_seconds:g} s of CPU"
                    raise ProbeExhausted("decoding it takes too much time", detail) from error
                raise NotPlayable("probing it failed", repr(error)) from error
            except BaseException:
                process.end()
                raise
            self._release(process)
        if found is None:
            raise rejected or NotPlayable("probing it failed")
        return found

    def close(self) -> None:
        """Kill the idle subprocesses."""
        while self._idle:
            self._idle.pop().end()

    def _acquire(self) -> "_Process":
        try:
            return self._idle.pop() if self._idle else _Process(self._cpu_seconds)
        except OSError as error:
            raise StorageUnavailable(f"probe process not started: {error}") from error

    def _release(self, process: "_Process") -> None:
        self._idle.append(process)
        process.used += 1
        asyncio.get_running_loop().call_later(self._idle_seconds, self._end_idle, process, process.used)

    def _end_idle(self, process: "_Process", used: int) -> None:
        if process in self._idle and process.used == used:
            self._idle.remove(process)
            process.end()


class _Process:
    """A probe subprocess and its socket. It dies with this process, even by SIGKILL; ``used`` counts videos."""

    def __init__(self, cpu_seconds: float) -> None:
        self._socket, theirs = socket.socketpair()
        self.used = 0
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603  # a fixed command
                    [sys.executable, "-I", "-m", MODULE, str(os.getpid()), str(cpu_seconds)],
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

    async def run(self, task: Task, subject: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a task and what it is about, and receive the metadata and the poster.

        Raises:
            EOFError, OSError: the subprocess is gone.
            ValueError: the message violates the protocol.
        """
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, REQUEST.pack(task, len(subject)) + subject)
        head = await self._read(8)
        metadata, jpeg = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:], "big")
        if metadata > MAX_METADATA_BYTES or jpeg > MAX_POSTER_BYTES:
            raise ValueError(f"the probe sent too much: {metadata} + {jpeg} bytes")
        return json.loads(await self._read(metadata)), await self._read(jpeg)

    async def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = await asyncio.get_running_loop().sock_recv(self._socket, size - len(data))
            if not more:
                raise EOFError(f"the probe process exited with {self._process.poll()}")
            data += more
        return bytes(data)

    @property
    def out_of_cpu_time(self) -> bool:
        """Whether the timer of its CPU time has ended it. Known after :meth:`end`."""
        return self._process.returncode == -signal.SIGPROF

    def end(self) -> None:
        """Kill it. May be called twice."""
        self._end()


def _end(process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    process.kill()
    process.wait()


def _rejected(metadata: Mapping[str, Any]) -> MediaError | None:
    if rejection := REJECTIONS.get(metadata.get("error", "")):
        return rejection(str(metadata["reason"]), str(metadata["detail"]))
    if storage_error := STORAGE_ERRORS.get(metadata.get("error", "")):
        return storage_error(str(metadata["detail"]))
    return None


def _probed(metadata: Mapping[str, Any], jpeg: bytes) -> tuple[VideoInfo, PosterInfo]:
    """Validate the message: a subprocess exploited by a malicious video may send anything."""
    video, poster = metadata["video"], metadata["poster"]
    return (
        VideoInfo(
            container=Container(video["container"]),
            codec=str(video["codec"])[:100],
            width=int(video["width"]),
            height=int(video["height"]),
            seconds=float(video["seconds"]),
            frame_rate=float(video["frame_rate"]),
            has_audio=bool(video["has_audio"]),
        ),
        PosterInfo(jpeg=jpeg, width=int(poster["width"]), height=int(poster["height"])),
    )


def _inspected(metadata: Mapping[str, Any], _: bytes) -> FileInfo:
    file = metadata["file"]
    return FileInfo(
        format=FileFormat(file["format"]),
        width=_or_none(int, file["width"]),
        height=_or_none(int, file["height"]),
        seconds=_or_none(float, file["seconds"]),
        frame_rate=_or_none(float, file["frame_rate"]),
        has_audio=bool(file["has_audio"]),
    )


def _converted(metadata: Mapping[str, Any], _: bytes) -> bool:
    return bool(metadata["written"])


def _or_none(kind: Callable[[Any], Number], value: Any) -> Number | None:
    return None if value is None else kind(value)
