"""Receives, inspects, stores, serves and expires the files that callers give."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import structlog

from app.clock import Clock, utc_now
from app.errors import FieldError, InvalidRequest, NotFound, TooLarge, Unavailable
from app.files import repository
from app.files.records import NewFile, StoredFile
from app.files.schemas import File
from app.ids import Prefix, decode, encode, new_id
from app.infra.db import Database
from app.infra.egress import GuardedClient, GuardError
from app.media.errors import NotPlayable, StorageError, TooBig
from app.media.info import FileInfo
from app.media.probe_pool import ProbePool
from app.media.spool import Spool, Spooled
from app.media.storage import Storage
from app.settings import AssetSettings, FileSettings
from app.web.forwarded import path_prefix
from app.web.pagination import Page, Paging

NO_FILE = "There is no such file."
#: How long a file may take from its row to its object; then it counts as given up.
STORE_WITHIN = timedelta(hours=1)

log = structlog.get_logger()


class Given(NamedTuple):
    """``created``: false if the account had a file with these bytes, which is kept longer now."""

    file: StoredFile
    created: bool


class FileService:
    """``public_url`` is the API's own, where it is configured."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: FileSettings,
        assets: AssetSettings,
        guarded: GuardedClient,
        *,
        public_url: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self.storage = storage
        self._guarded = guarded
        self._settings = settings
        self._spool = Spool(assets.spool, assets.min_free_bytes)
        self._probes = ProbePool(cpu_seconds=assets.probe_cpu_seconds)
        self._public_url = (public_url or "").rstrip("/")
        self._clock = clock

    def prepare(self) -> None:
        """Call once per process, before the first file. Blocks.

        Raises:
            SettingsError: the spool directory cannot be used.
        """
        self._spool.prepare()

    def close(self) -> None:
        """Call once per process, after the last file."""
        self._probes.close()

    async def take(self, account_id: UUID, chunks: AsyncIterator[bytes], *, name: str | None, field: str) -> Given:
        """Receive a file in constant memory, inspect it and store it. ``field`` is where the request names it.

        Raises:
            InvalidRequest: it is no file that is accepted.
            TooLarge: larger than a file may be, or than the room that the account has left.
            Unavailable: it cannot be stored now.
        """
        with self._spooled() as spooled:
            await spooled.receive(chunks, self._check_size)
            return await self._taken(account_id, spooled, name=name, field=field)

    async def fetch(self, account_id: UUID, url: str, *, name: str | None) -> Given:
        """As :meth:`take`, of what a URL delivers.

        Raises:
            InvalidRequest: also when the URL may not be called, or does not deliver a file in time.
        """
        with self._spooled() as spooled:
            try:
                async with self._guarded.get(url, timeout=self._settings.fetch_timeout) as found:
                    if found.status != 200:
                        raise _refused("url", f"was not delivered: the URL responds with HTTP {found.status}")
                    await spooled.receive(found.chunks, self._check_size)
            except GuardError as error:
                message = str(error)
                raise InvalidRequest(
                    f"`url` cannot be fetched: {message}.", [FieldError("url", "not_fetched", message)]
                ) from error
            return await self._taken(account_id, spooled, name=name, field="url")

    async def get(self, account_id: UUID, file_id: str) -> StoredFile:
        """
        Raises:
            NotFound: no such file, or another account's, or it has expired.
        """
        identifier = decode(Prefix.FILE, file_id)
        if identifier is not None:
            async with self._database.read() as conn:
                if found := await repository.get(conn, account_id, identifier, self._clock()):
                    return found
        raise NotFound(NO_FILE)

    async def page(self, account_id: UUID, page: Paging) -> Page[File]:
        """The account's files, newest first."""
        async with self._database.read() as conn:
            rows = await repository.page(conn, account_id, self._clock(), after=page.after, limit=page.fetch)
        return page.page(rows, lambda file: file.id, self.show)

    async def delete(self, account_id: UUID, file_id: str) -> None:
        """Forget the file at once; its bytes are deleted soon.

        Raises:
            NotFound: as :meth:`get`.
        """
        identifier = decode(Prefix.FILE, file_id)
        if identifier is not None:
            async with self._database.begin() as conn:
                if await repository.end(conn, account_id, identifier, self._clock()):
                    return
        raise NotFound(NO_FILE)

    async def expire(self, limit: int) -> int:
        """Delete at most ``limit`` expired files; returns how many. A later call retries what cannot be deleted."""
        async with self._database.begin() as conn:
            due = await repository.expired(conn, self._clock(), limit)
        count = 0
        for file in due:
            try:
                await self.storage.delete(file.object_key)
            except StorageError as error:
                log.warning("expired file not deleted", file=encode(Prefix.FILE, file.id), error=error.detail)
                continue
            async with self._database.begin() as conn:
                count += await repository.remove(conn, file.id)
        return count

    def show(self, file: StoredFile) -> File:
        """The public form of a file, with URLs for the client of the request that is worked on."""
        prefix = self._public_url or path_prefix.get()
        return File.of(file, f"{prefix}/v1/files/{encode(Prefix.FILE, file.id)}/content")

    @contextmanager
    def _spooled(self) -> Iterator[Spooled]:
        try:
            with self._spool.file(0) as spooled:
                yield spooled
        except StorageError as error:
            log.error("file not stored", error=error.detail)  # noqa: TRY400
            raise Unavailable(error.message) from error

    async def _taken(self, account_id: UUID, spooled: Spooled, *, name: str | None, field: str) -> Given:
        if not spooled.size:
            raise _refused(field, "is empty")
        if known := await self._renewed(account_id, spooled.sha256):
            return Given(known, created=False)
        info = await self._inspected(spooled, field)
        return await self._kept(_new(account_id, name, spooled, info), spooled)

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise TooLarge(f"A file may have at most {self._settings.max_bytes} bytes.")

    async def _renewed(self, account_id: UUID, sha256: bytes) -> StoredFile | None:
        now = self._clock()
        async with self._database.begin() as conn:
            return await repository.renew(conn, account_id, sha256, now=now, expires_at=now + self._retention)

    async def _inspected(self, spooled: Spooled, field: str) -> FileInfo:
        try:
            return await self._probes.inspect(spooled.path)
        except NotPlayable as error:
            raise _refused(field, f"cannot be used: {error.reason}") from error
        except TooBig as error:
            raise _refused(field, f"cannot be used. {error.message.rstrip('.')}") from error

    async def _kept(self, new: NewFile, spooled: Spooled) -> Given:
        """The row is there before the object, so that no object is without one: see :meth:`expire`."""
        async with self._database.begin() as conn:
            begun = await repository.begin(
                conn, new, quota=self._settings.quota_bytes, expires_at=self._clock() + STORE_WITHIN
            )
        if not begun:
            raise TooLarge(f"Files of this account may have {self._settings.quota_bytes} bytes together; delete some.")
        await self.storage.put(new.object_key, spooled.path, new.format.content_type)
        now = self._clock()
        async with self._database.begin() as conn:
            stored = await repository.finish(conn, new, now=now, expires_at=now + self._retention)
        if stored:
            return Given(stored, created=True)
        # The same bytes came twice at once; this copy is deleted when it expires.
        if known := await self._renewed(new.account_id, new.sha256):
            return Given(known, created=False)
        raise Unavailable("The file was deleted while it was stored; send it again.")

    @property
    def _retention(self) -> timedelta:
        return timedelta(days=self._settings.retention_days)


def _new(account_id: UUID, name: str | None, spooled: Spooled, info: FileInfo) -> NewFile:
    return NewFile(
        id=new_id(),
        account_id=account_id,
        name=name,
        format=info.format,
        size_bytes=spooled.size,
        sha256=spooled.sha256,
        width=info.width,
        height=info.height,
        seconds=info.seconds,
        frame_rate=info.frame_rate,
        has_audio=info.has_audio,
    )


def _refused(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"The file {message}.", [FieldError(field, "invalid_file", message)])
