"""Ingest of videos: spool to disk, count, probe, then store the video with its poster.

Every step is idempotent: object keys derive from the job, and a second copy replaces the first.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import structlog

from app.assets.records import Incoming, Kind, NewAsset, Stored
from app.failpoints import Failpoint, failpoint
from app.ids import Prefix, encode, new_id
from app.infra.metrics import STORED_BYTES
from app.media.errors import TooBig, TookTooLong, Truncated
from app.media.info import PosterInfo, VideoInfo
from app.media.probe_pool import ProbePool
from app.media.spool import Spool, Spooled
from app.media.storage import Storage
from app.settings import AssetSettings

LENGTH_TOLERANCE_SECONDS = 0.5
LENGTH_TOLERANCE_PART = 0.1

log = structlog.get_logger()


class Ingest:
    """Copies videos from a provider into the storage."""

    def __init__(self, storage: Storage, settings: AssetSettings) -> None:
        self._storage = storage
        self._settings = settings
        self._spool = Spool(settings.spool, settings.min_free_bytes)
        self._probe_pool = ProbePool(cpu_seconds=settings.probe_cpu_seconds)

    def prepare(self) -> None:
        """Prepare the spool and remove files left by killed processes. Blocks.

        Raises:
            SettingsError: the spool directory cannot be used.
        """
        left = self._spool.prepare()
        if left:
            log.info("spool cleared", files=left)

    def close(self) -> None:
        """Stop the idle probe processes."""
        self._probe_pool.close()

    async def take_in(self, incoming: Incoming) -> Stored:
        """Copy one video into the storage in constant memory. See :meth:`AssetService.take_in`."""
        expected = incoming.expected_bytes or 0
        self._check_size(expected)
        self._storage.require_room(expected)
        self._probe_pool.warm()
        with self._spool.file(expected) as spooled:
            limit = asyncio.timeout(self._settings.fetch_timeout)
            try:
                async with limit:
                    await spooled.receive(incoming.chunks, self._check_size)
            except TimeoutError:
                if not limit.expired():
                    raise  # raised by ``chunks``, not by this limit
                raise TookTooLong(
                    f"The video did not arrive within {timedelta(seconds=self._settings.fetch_timeout)}.",
                    f"{spooled.size} bytes received",
                ) from None
            if incoming.expected_bytes not in {None, spooled.size}:
                raise Truncated(
                    "The video did not arrive whole.", f"{spooled.size} of {incoming.expected_bytes} bytes received"
                )
            await failpoint(Failpoint.STORE_SPOOLED)
            video, poster = await self._probe_pool.examine(spooled.path, retried=incoming.retried)
            return await self._keep(incoming, spooled, video, poster)

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise TooBig(f"The video is larger than {self._settings.max_bytes} bytes.")

    async def _keep(self, incoming: Incoming, spooled: Spooled, video: VideoInfo, poster: PosterInfo) -> Stored:
        stored = Stored(video=_video_asset(incoming, spooled, video), poster=_poster_asset(incoming, poster))
        await self._storage.put(stored.video.object_key, spooled.path, stored.video.content_type)
        await self._storage.put(stored.poster.object_key, poster.jpeg, stored.poster.content_type)
        await failpoint(Failpoint.STORE_PUT)
        STORED_BYTES.inc(stored.video.size_bytes + stored.poster.size_bytes)
        log.info(
            "video ingested",
            job=encode(Prefix.JOB, incoming.job_id),
            bytes=stored.video.size_bytes,
            seconds=video.seconds,
            deviations=stored.deviations,
        )
        return stored


def _video_asset(incoming: Incoming, spooled: Spooled, video: VideoInfo) -> NewAsset:
    return NewAsset(
        id=new_id(),
        account_id=incoming.account_id,
        job_id=incoming.job_id,
        kind=Kind.VIDEO,
        object_key=_key(incoming, f"video.{video.container}"),
        content_type=video.container.content_type,
        size_bytes=spooled.size,
        sha256=spooled.sha256,
        width=video.width,
        height=video.height,
        codec=video.codec,
        seconds=video.seconds,
        frame_rate=video.frame_rate,
        has_audio=video.has_audio,
        deviations=_deviations(incoming, video),
    )


def _poster_asset(incoming: Incoming, poster: PosterInfo) -> NewAsset:
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


def _deviations(incoming: Incoming, video: VideoInfo) -> list[Mapping[str, Any]]:
    """The differences from the request. The video is already paid for, so it is stored in any case."""
    deviations: list[Mapping[str, Any]] = []
    tolerance = max(LENGTH_TOLERANCE_SECONDS, LENGTH_TOLERANCE_PART * incoming.seconds)
    if abs(video.seconds - incoming.seconds) > tolerance:
        deviations.append({"field": "seconds", "requested": incoming.seconds, "actual": video.seconds})
    requested, actual = f"{incoming.width}x{incoming.height}", f"{video.width}x{video.height}"
    if requested != actual:
        deviations.append({"field": "size", "requested": requested, "actual": actual})
    return deviations
