"""A cache of video files in a directory, filled by one or two rendering threads."""

import asyncio
import hashlib
import os
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from app.sandbox.picture import VERSION, Shot
from app.sandbox.render import Stopped, render

THREADS = min(2, os.cpu_count() or 1)
INSTANT = Shot("filmgate", 160, 96, 1)


class VideosClosed(Exception):
    """The process is shutting down and renders no more videos."""


@dataclass(frozen=True, slots=True)
class Video:
    """A finished video and its poster. ``content`` is set if it is served from memory."""

    path: Path
    poster: Path
    content: bytes | None = field(default=None, repr=False)


@dataclass(slots=True)
class PendingVideo:
    """A video being rendered; ``progress`` is from 0 to 1."""

    progress: float = 0.0
    done: Future[Video] = field(default_factory=Future)

    async def video(self) -> Video:
        """Wait for the video.

        Raises:
            VideosClosed: the process is shutting down.
            OSError: the file cannot be written.
        """
        return await asyncio.shield(asyncio.wrap_future(self.done))


class Videos:
    """Renders each video once. Call :meth:`close` at shutdown: it waits for at most one frame per thread."""

    def __init__(self, directory: Path | None) -> None:
        self._named = directory
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._pending: dict[Shot, PendingVideo] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="video")

    def order(self, shot: Shot) -> PendingVideo:
        """Start rendering a video, or return the pending or finished render of the same one."""
        pending = self._pending.get(shot)
        if pending is None or (pending.done.done() and pending.done.exception() is not None):
            pending = self._pending[shot] = PendingVideo()
            self._pool.submit(self._make, shot, pending)
        return pending

    @cached_property
    def instant(self) -> Video:
        """A small video kept in memory."""
        video = self._video(INSTANT, PendingVideo())
        return Video(video.path, video.poster, video.path.read_bytes())

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        for pending in self._pending.values():
            if not pending.done.done():
                pending.done.set_exception(VideosClosed())
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def directory(self) -> Path:
        """Where the files are; it is created with the first one."""
        with self._lock:
            return self._directory

    @cached_property
    def _directory(self) -> Path:
        if self._named is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="filmgate-sandbox-")
            return Path(self._temporary.name)
        self._named.mkdir(parents=True, exist_ok=True)
        return self._named

    def _make(self, shot: Shot, pending: PendingVideo) -> None:
        try:
            pending.done.set_result(self._video(shot, pending))
        except Stopped:
            pending.done.set_exception(VideosClosed())
        except Exception as error:  # noqa: BLE001  # re-raised where the video is awaited
            pending.done.set_exception(error)

    def _video(self, shot: Shot, pending: PendingVideo) -> Video:
        parts = [str(VERSION), shot.text, *(item.key for item in shot.inputs)]
        key = "\0".join(parts).encode("utf-8", "surrogatepass")
        name = f"{hashlib.sha256(key).hexdigest()[:24]}-{shot.width}x{shot.height}-{shot.seconds:g}s"
        video = Video(self.directory / f"{name}.mp4", self.directory / f"{name}.webp")
        if video.path.exists() and video.poster.exists():
            pending.progress = 1.0
            return video
        unfinished = Video(self.directory / f"{name}.mp4.part", self.directory / f"{name}.webp.part")
        for share in render(shot, unfinished.path, unfinished.poster, self._stop):
            pending.progress = share
        unfinished.poster.replace(video.poster)
        unfinished.path.replace(video.path)
        return video
