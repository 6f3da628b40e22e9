"""The films that exist, and those being made: a cache in a directory, filled by one or two threads."""

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


class FilmsClosed(Exception):
    """The process is going down; no film is made any more."""


@dataclass(frozen=True, slots=True)
class Film:
    """A finished film and its poster. ``content`` is set where it is served from memory."""

    path: Path
    poster: Path
    content: bytes | None = field(default=None, repr=False)


@dataclass(slots=True)
class Making:
    """A film on its way; ``progress`` is from 0 to 1."""

    progress: float = 0.0
    done: Future[Film] = field(default_factory=Future)

    async def film(self) -> Film:
        """Wait for it.

        Raises:
            FilmsClosed, OSError: it will not come.
        """
        return await asyncio.shield(asyncio.wrap_future(self.done))


class Films:
    """Makes each film once. Use :meth:`close` at the end: it waits no longer than one frame takes."""

    def __init__(self, directory: Path | None) -> None:
        self._named = directory
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._makings: dict[Shot, Making] = {}
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="film")

    def order(self, shot: Shot) -> Making:
        """Begin to make a film, or join the making of an equal one."""
        making = self._makings.get(shot)
        if making is None or (making.done.done() and making.done.exception() is not None):
            making = self._makings[shot] = Making()
            self._pool.submit(self._make, shot, making)
        return making

    @cached_property
    def instant(self) -> Film:
        """One small film, kept in memory."""
        film = self._film(INSTANT, Making())
        return Film(film.path, film.poster, film.path.read_bytes())

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        for making in self._makings.values():
            if not making.done.done():
                making.done.set_exception(FilmsClosed())
        if self._temporary is not None:
            self._temporary.cleanup()

    @cached_property
    def _directory(self) -> Path:
        if self._named is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="filmgate-sandbox-")
            return Path(self._temporary.name)
        self._named.mkdir(parents=True, exist_ok=True)
        return self._named

    def _make(self, shot: Shot, making: Making) -> None:
        try:
            making.done.set_result(self._film(shot, making))
        except Stopped:
            making.done.set_exception(FilmsClosed())
        except Exception as error:  # noqa: BLE001  # whoever waits for the film gets to see it
            making.done.set_exception(error)

    def _film(self, shot: Shot, making: Making) -> Film:
        key = f"{VERSION}\0{shot.text}".encode("utf-8", "surrogatepass")
        name = f"{hashlib.sha256(key).hexdigest()[:24]}-{shot.width}x{shot.height}-{shot.seconds:g}s"
        film = Film(self._directory / f"{name}.mp4", self._directory / f"{name}.webp")
        if film.path.exists() and film.poster.exists():
            making.progress = 1.0
            return film
        unfinished = Film(self._directory / f"{name}.mp4.part", self._directory / f"{name}.webp.part")
        for share in render(shot, unfinished.path, unfinished.poster, self._stop):
            making.progress = share
        unfinished.poster.replace(film.poster)
        unfinished.path.replace(film.path)
        return film
