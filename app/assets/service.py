"""Ingests, serves and expires stored videos and posters."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets import repository, schemas
from app.assets.ingest import Ingest
from app.assets.records import Incoming, Stored, StoredAsset
from app.clock import Clock, utc_now
from app.errors import Gone, NotFound
from app.ids import Prefix, decode, encode
from app.infra.db import Database
from app.media.errors import StorageError
from app.media.signing import UrlSigner
from app.media.storage import Storage
from app.settings import AssetSettings
from app.web.forwarded import path_prefix

NO_ASSET = "There is no such asset."

log = structlog.get_logger()


class AssetService:
    """``url_keys`` sign URLs and nothing else; ``public_url`` is the API's own, where it is configured."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: AssetSettings,
        *,
        url_keys: Sequence[bytes],
        public_url: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self.storage = storage
        self._retention = timedelta(days=settings.retention_days)
        self._ingest = Ingest(storage, settings)
        self._signer = UrlSigner(url_keys, timedelta(seconds=settings.url_ttl), clock)
        self._public_url = (public_url or "").rstrip("/")
        self._clock = clock

    # For the worker ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Call once per process, before the first :meth:`take_in`. Blocks.

        Raises:
            SettingsError: the spool directory cannot be used.
        """
        self._ingest.prepare()

    def close(self) -> None:
        """Call once per process, after the last :meth:`take_in`."""
        self._ingest.close()

    async def take_in(self, incoming: Incoming) -> Stored:
        """Copy a video into the storage, check that it plays, make its poster. Writes nothing to the database.

        Idempotent, and safe to cancel. Exceptions of ``incoming.chunks`` propagate unchanged.

        Raises:
            StorageError: the storage failed; the video may be fine.
            VideoRejected: the video is at fault; ``retryable``: another copy may be accepted.
        """
        return await self._ingest.take_in(incoming)

    async def record(self, conn: AsyncConnection, stored: Stored) -> list[StoredAsset]:
        """Write the rows in the caller's transaction and return them: the video, then the poster.

        Recording a job again keeps its assets' ids.
        """
        now = self._clock()
        return await repository.put(
            conn, [stored.video, stored.poster], created_at=now, expires_at=now + self._retention
        )

    async def expire(self, limit: int) -> int:
        """Delete at most ``limit`` expired files; returns how many this call deleted.

        Safe to run in several workers at once: deleting twice is harmless, and only one of them counts the file. A file
        that the storage fails to delete is retried by a later call.
        """
        now = self._clock()
        async with self._database.read() as conn:
            due = await repository.expired(conn, now, limit)
        count = 0
        for asset in due:
            try:
                await self.storage.delete(asset.object_key)
            except StorageError as error:
                log.warning("expired asset not deleted", asset=encode(Prefix.ASSET, asset.id), error=error.detail)
                continue
            async with self._database.begin() as conn:
                count += await repository.mark_deleted(conn, asset.id, now)
        return count

    async def check(self) -> None:
        """Check that the storage can be written to; for readiness.

        Raises:
            StorageError: it cannot.
        """
        await self.storage.check()

    # For callers ------------------------------------------------------------------------------------------------------

    async def get(self, account_id: UUID, asset_id: str) -> StoredAsset:
        """An account's asset, by its public id.

        Raises:
            NotFound: no such asset, or another account's.
            Gone: its retention period has ended.
        """
        return await self._get(decode(Prefix.ASSET, asset_id), account_id)

    async def get_signed(self, asset_id: str, expires: str, signature: str) -> StoredAsset:
        """The asset that a signed URL names.

        Raises:
            Forbidden: the signature is invalid, or the URL has expired.
            NotFound, Gone: as in :meth:`get`.
        """
        identifier = decode(Prefix.ASSET, asset_id)
        if identifier is not None:
            self._signer.check(identifier, expires, signature)
        return await self._get(identifier, None)

    async def of_jobs(self, conn: AsyncConnection, job_ids: Collection[UUID]) -> dict[UUID, list[StoredAsset]]:
        """Each job's assets: the video, then the poster. Does not check ownership."""
        found = defaultdict(list)
        for asset in await repository.of_jobs(conn, job_ids):
            found[asset.job_id].append(asset)
        return dict(found)

    def show(self, asset: StoredAsset, *, signed: bool = False) -> schemas.Asset:
        """The public form of an asset, with URLs for the client of the request that is worked on."""
        return schemas.Asset.of(asset, self._content_url(asset), self.sign(asset) if signed else None)

    def sign(self, asset: StoredAsset) -> str:
        """A URL that gives access to the asset without a key until it expires."""
        return f"{self._content_url(asset)}?{self._signer.query(asset.id, asset.expires_at)}"

    async def _get(self, asset_id: UUID | None, account_id: UUID | None) -> StoredAsset:
        if asset_id is None:
            raise NotFound(NO_ASSET)
        async with self._database.read() as conn:
            asset = await repository.get(conn, asset_id)
        if asset is None or account_id not in {None, asset.account_id}:
            raise NotFound(NO_ASSET)
        if asset.deleted_at is not None or asset.expires_at <= self._clock():
            raise Gone("The file was deleted when its retention ended.")
        return asset

    def _content_url(self, asset: StoredAsset) -> str:
        return f"{self._public_url or path_prefix.get()}/v1/assets/{encode(Prefix.ASSET, asset.id)}/content"
