"""What can be done with stored films."""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from app.assets import repository, schemas
from app.assets.errors import StorageError
from app.assets.ingest import Intake
from app.assets.records import Incoming, Stored, StoredAsset
from app.assets.signing import UrlSigner
from app.assets.storage import Storage
from app.clock import Clock, utc_now
from app.errors import Gone, NotFound, Unavailable
from app.ids import Prefix, decode, encode
from app.infra.db import Database
from app.settings import AssetSettings

NO_ASSET = "There is no such asset."

log = structlog.get_logger()


class AssetService:
    """``url_key`` signs URLs and nothing else; ``public_url`` is how clients reach us, where it is known."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: AssetSettings,
        *,
        url_key: bytes,
        public_url: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._storage = storage
        self._retention = timedelta(days=settings.retention_days)
        self._intake = Intake(storage, settings)
        self._signer = UrlSigner(url_key, timedelta(seconds=settings.url_ttl), clock)
        self._public_url = (public_url or "").rstrip("/")
        self._clock = clock

    # For the worker ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Once, before the first :meth:`take_in` of a process. Blocks.

        Raises:
            SettingsError: the spool directory cannot be used.
        """
        self._intake.prepare()

    def close(self) -> None:
        """Once, after the last :meth:`take_in` of a process."""
        self._intake.close()

    async def take_in(self, incoming: Incoming) -> Stored:
        """Copy a film into the storage, check that it plays, make its poster. Nothing is written to the database.

        It may run twice, and it may be cancelled. What ``incoming.chunks`` raises comes through as it is.

        Raises:
            StorageError: our side; the film is as good as before.
            FilmRefused: the film's side; ``retryable`` says whether another copy may be better.
        """
        return await self._intake.take_in(incoming)

    async def record(self, connection: AsyncConnection, stored: Stored) -> list[StoredAsset]:
        """Write the rows in the caller's transaction, and give them back: the film, then the poster.

        A job that was recorded before keeps its assets' ids.
        """
        now = self._clock()
        return await repository.put(
            connection, [stored.film, stored.poster], created_at=now, expires_at=now + self._retention
        )

    async def expire(self, limit: int) -> int:
        """Delete at most ``limit`` files whose retention is over; returns how many this call deleted.

        Several workers may do this at once: deleting twice is harmless, and one of them counts. What the storage
        refuses to delete is left for the next time.
        """
        now = self._clock()
        async with self._database.read() as connection:
            due = await repository.expired(connection, now, limit)
        count = 0
        for asset in due:
            try:
                await self._storage.delete(asset.object_key)
            except StorageError as error:
                log.warning("expired asset not deleted", asset=encode(Prefix.ASSET, asset.id), error=error.detail)
                continue
            async with self._database.begin() as connection:
                count += await repository.mark_deleted(connection, asset.id, now)
        return count

    async def check(self) -> None:
        """Prove that a film could be kept now; for readiness.

        Raises:
            StorageError: it could not.
        """
        await self._storage.check()

    # For callers ------------------------------------------------------------------------------------------------------

    async def get(self, account_id: UUID, asset_id: str) -> StoredAsset:
        """An account's asset, by its public id.

        Raises:
            NotFound: no such asset, or another account's.
            Gone: its retention is over.
        """
        return await self._get(decode(Prefix.ASSET, asset_id), account_id)

    async def get_signed(self, asset_id: str, expires: str, signature: str) -> StoredAsset:
        """The asset that a signed URL names.

        Raises:
            Forbidden: the signature is not ours, or its time is over.
            NotFound, Gone: as in :meth:`get`.
        """
        identifier = decode(Prefix.ASSET, asset_id)
        if identifier is not None:
            self._signer.check(identifier, expires, signature)
        return await self._get(identifier, None)

    async def of_jobs(self, connection: AsyncConnection, job_ids: Collection[UUID]) -> dict[UUID, list[schemas.Asset]]:
        """The assets of each of these jobs as callers see them: the film, then the poster. Ownership is not checked."""
        found = defaultdict(list)
        for asset in await repository.of_jobs(connection, job_ids):
            found[asset.job_id].append(self.show(asset))
        return dict(found)

    def show(self, asset: StoredAsset, *, signed: bool = False) -> schemas.Asset:
        """An asset as its owner sees it."""
        return schemas.Asset.of(asset, self._content_url(asset), self.sign(asset) if signed else None)

    def sign(self, asset: StoredAsset) -> str:
        """A URL that anybody can read the asset with, for a while."""
        return f"{self._content_url(asset)}?{self._signer.query(asset.id, asset.expires_at)}"

    async def open(self, asset: StoredAsset, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to, not with, ``end``, in chunks of at most 1 MiB; memory stays flat.

        The first chunk is read before this returns, so that what is wrong can still be said.

        Raises:
            Unavailable: the storage does not hand them out now.
        """
        chunks = self._storage.read(asset.object_key, start, end)
        try:
            first = await anext(chunks)
        except StorageError as error:
            log.error("asset not readable", asset=encode(Prefix.ASSET, asset.id), error=error.detail)  # noqa: TRY400
            raise Unavailable(error.message) from error
        return _with_first(first, chunks)

    async def _get(self, asset_id: UUID | None, account_id: UUID | None) -> StoredAsset:
        if asset_id is None:
            raise NotFound(NO_ASSET)
        async with self._database.read() as connection:
            asset = await repository.get(connection, asset_id)
        if asset is None or account_id not in {None, asset.account_id}:
            raise NotFound(NO_ASSET)
        if asset.deleted_at is not None or asset.expires_at <= self._clock():
            raise Gone("The file was deleted when its retention ended.")
        return asset

    def _content_url(self, asset: StoredAsset) -> str:
        return f"{self._public_url}/v1/assets/{encode(Prefix.ASSET, asset.id)}/content"


async def _with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
