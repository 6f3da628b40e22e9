"""How a film comes in: spooled, counted, checked, then kept together with a poster.

Every step may run twice: the keys follow from the job, and the second copy replaces the first.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import structlog

from app.assets.errors import TooBig, TookTooLong, Truncated
from app.assets.media_info import Film, Poster
from app.assets.probe_pool import Examiner
from app.assets.records import Incoming, Kind, NewAsset, Stored
from app.assets.spool import Spool, Spooled
from app.assets.storage import CHUNK_BYTES, Storage
from app.failpoints import Checkpoint, checkpoint
from app.ids import Prefix, encode, new_id
from app.infra.metrics import STORED_BYTES
from app.settings import AssetSettings

LENGTH_TOLERANCE_SECONDS = 0.5
LENGTH_TOLERANCE_PART = 0.1

log = structlog.get_logger()


class Intake:
    """Takes films in."""

    def __init__(self, storage: Storage, settings: AssetSettings) -> None:
        self._storage = storage
        self._settings = settings
        self._spool = Spool(settings.spool, settings.min_free_bytes)
        self._examiner = Examiner()

    def prepare(self) -> None:
        """Make the spool ready and remove what killed processes left in it. Blocks.

        Raises:
            SettingsError: the spool directory cannot be used.
        """
        left = self._spool.prepare()
        if left:
            log.info("spool cleared", files=left)

    def close(self) -> None:
        """End what was kept for the next film."""
        self._examiner.close()

    async def take_in(self, incoming: Incoming) -> Stored:
        """Copy one film into the storage; memory stays flat. See :meth:`AssetService.take_in`."""
        expected = incoming.expected_bytes or 0
        self._check_size(expected)
        self._storage.require_room(expected)
        self._examiner.warm()
        with self._spool.file(expected) as spooled:
            limit = asyncio.timeout(self._settings.fetch_timeout)
            try:
                async with limit:
                    await self._receive(incoming.chunks, spooled)
            except TimeoutError:
                if not limit.expired():
                    raise  # the sender's own
                raise TookTooLong(
                    f"The film did not arrive within {timedelta(seconds=self._settings.fetch_timeout)}.",
                    f"{spooled.size} bytes came",
                ) from None
            if incoming.expected_bytes not in {None, spooled.size}:
                raise Truncated(
                    "The film did not arrive whole.", f"{spooled.size} of {incoming.expected_bytes} bytes came"
                )
            await checkpoint(Checkpoint.STORE_SPOOLED)
            film, poster = await self._examiner.examine(spooled.path)
            return await self._keep(incoming, spooled, film, poster)

    async def _receive(self, chunks: AsyncIterator[bytes], spooled: Spooled) -> None:
        """Write in pieces of a megabyte, each while the next one comes in.

        A thread for every small chunk would cost more than the writing.
        """
        held: list[bytes] = []
        size = total = 0
        writing: asyncio.Future[None] | None = None
        try:
            async for chunk in chunks:
                held.append(chunk)
                size += len(chunk)
                total += len(chunk)
                self._check_size(total)
                if size >= CHUNK_BYTES:
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(asyncio.to_thread(spooled.write, b"".join(held)))
                    held, size = [], 0
            if writing is not None:
                await writing
            await asyncio.to_thread(spooled.write, b"".join(held))
        finally:
            if writing is not None:
                writing.cancel()  # nobody wants to know any more how it ends

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise TooBig(f"The film is larger than {self._settings.max_bytes} bytes.")

    async def _keep(self, incoming: Incoming, spooled: Spooled, film: Film, poster: Poster) -> Stored:
        stored = Stored(film=_film_asset(incoming, spooled, film), poster=_poster_asset(incoming, poster))
        await self._storage.put(stored.film.object_key, spooled.path, stored.film.content_type)
        await self._storage.put(stored.poster.object_key, poster.jpeg, stored.poster.content_type)
        await checkpoint(Checkpoint.STORE_PUT)
        STORED_BYTES.inc(stored.film.size_bytes + stored.poster.size_bytes)
        log.info(
            "film taken in",
            job=encode(Prefix.JOB, incoming.job_id),
            bytes=stored.film.size_bytes,
            seconds=film.seconds,
            deviations=stored.deviations,
        )
        return stored


def _film_asset(incoming: Incoming, spooled: Spooled, film: Film) -> NewAsset:
    return NewAsset(
        id=new_id(),
        account_id=incoming.account_id,
        job_id=incoming.job_id,
        kind=Kind.FILM,
        object_key=_key(incoming, f"film.{film.container}"),
        content_type=film.container.content_type,
        size_bytes=spooled.size,
        sha256=spooled.sha256,
        width=film.width,
        height=film.height,
        codec=film.codec,
        seconds=film.seconds,
        frame_rate=film.frame_rate,
        has_audio=film.has_audio,
        deviations=_deviations(incoming, film),
    )


def _poster_asset(incoming: Incoming, poster: Poster) -> NewAsset:
    return NewAsset(
        id=new_id(),
        account_id=incoming.account_id,
        job_id=incoming.job_id,
        kind=Kind.POSTER,
        object_key=_key(incoming, "poster.jpg"),
        content_type="image/jpeg",
        size_bytes=len(poster.jpeg),
        sha256=hashlib.sha256(poster.jpeg).digest(),
        width=poster.width,
        height=poster.height,
        codec="mjpeg",
    )


def _key(incoming: Incoming, name: str) -> str:
    return f"{incoming.account_id}/{incoming.job_id}/{name}"


def _deviations(incoming: Incoming, film: Film) -> list[Mapping[str, Any]]:
    """Where the film is not what was ordered. It is paid for, so it is kept all the same."""
    deviations: list[Mapping[str, Any]] = []
    tolerance = max(LENGTH_TOLERANCE_SECONDS, LENGTH_TOLERANCE_PART * incoming.seconds)
    if abs(film.seconds - incoming.seconds) > tolerance:
        deviations.append({"field": "seconds", "requested": incoming.seconds, "actual": film.seconds})
    requested, actual = f"{incoming.width}x{incoming.height}", f"{film.width}x{film.height}"
    if requested != actual:
        deviations.append({"field": "size", "requested": requested, "actual": actual})
    return deviations
