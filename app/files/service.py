"""Receives, inspects, stores, serves and expires the files that callers give."""

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import structlog

from app.clock import Clock, utc_now
from app.errors import Conflict, NotFound, TooLarge, Unavailable
from app.files import repository
from app.files.data_urls import decoded
from app.files.errors import NotFetched, refused
from app.files.records import NewFile, StoredFile, received
from app.files.repository import Used
from app.files.schemas import File
from app.files.urls import FileUrls
from app.ids import Prefix, decode, encode
from app.infra.db import Database
from app.infra.egress import ForbiddenAddress, GuardedClient, GuardError, InvalidUrl, check_url
from app.media.errors import NotPlayable, StorageError, TooBig
from app.media.info import Conversion, FileInfo
from app.media.probe_pool import ProbePool
from app.media.spool import Spool, Spooled
from app.media.storage import Storage
from app.settings import AssetSettings, FileSettings
from app.web.forwarded import path_prefix
from app.web.pagination import Page, Paging

NO_FILE = "There is no such file."
#: How long a file may take from its row to its object; then it counts as given up.
STORE_WITHIN = timedelta(hours=1)
IN_USE = "A job that has not ended uses this file; cancel the job, or wait for its end."
#: Statuses of a URL after which another try may succeed.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

log = structlog.get_logger()


class Given(NamedTuple):
    """``created``: false if the account had a file with these bytes, which is kept longer now."""

    file: StoredFile
    created: bool


class FileService:
    """``used`` says which files a job uses that has not ended. ``public_url`` is the API's own, if configured."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        settings: FileSettings,
        assets: AssetSettings,
        guarded: GuardedClient,
        *,
        used: Used,
        urls: FileUrls,
        public_url: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self.storage = storage
        self._guarded = guarded
        self._used = used
        self.urls = urls
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

    async def take(
        self,
        account_id: UUID,
        chunks: AsyncIterator[bytes],
        *,
        name: str | None,
        field: str,
        derived_from: UUID | None = None,
    ) -> Given:
        """Receive a file in constant memory, inspect it and store it. ``field`` is where the request names it.

        Raises:
            InvalidRequest: it is no file that is accepted.
            TooLarge: larger than a file may be, or than the room that the account has left.
            Unavailable: it cannot be stored now.
        """
        with self._spooled() as spooled:
            await spooled.receive(chunks, self._check_size)
            return await self._taken(account_id, spooled, name=name, field=field, derived_from=derived_from)

    async def fetch(self, account_id: UUID, url: str, *, name: str | None, field: str = "url") -> Given:
        """As :meth:`take`, of what a URL delivers.

        Raises:
            NotFetched: the URL may not be called, or does not deliver a file in time.
        """
        with self._spooled() as spooled:
            try:
                async with self._guarded.get(url, timeout=self._settings.fetch_timeout) as found:
                    if found.status != 200:
                        message = f"cannot be fetched: it responds with HTTP {found.status}"
                        raise NotFetched(message, field, passing=found.status in _PASSING)
                    await spooled.receive(found.chunks, self._check_size)
            except GuardError as error:
                passing = not isinstance(error, InvalidUrl | ForbiddenAddress)
                raise NotFetched(f"cannot be fetched: {error}", field, passing=passing) from error
            return await self._taken(account_id, spooled, name=name, field=field)

    async def decode(self, account_id: UUID, data_url: str, *, field: str) -> Given:
        """As :meth:`take`, of what a ``data:`` URL holds in base64. Its media type is not believed.

        Raises:
            InvalidRequest: also when it is no such URL.
        """
        data = decoded(data_url)
        if data is None:
            raise refused(field, "must be a data URL in base64, such as data:image/png;base64,iVBORw0KGgo…")
        return await self.take(account_id, _chunks_of(data), name=None, field=field)

    async def converted(self, file: StoredFile, conversion: Conversion, *, field: str) -> StoredFile:
        """A file of the same account with the picture as asked; the same one if it is so already.

        Raises:
            InvalidRequest, TooLarge, Unavailable: as :meth:`take`.
        """
        self._check_size(file.size_bytes)
        async with self._loaded(file.object_key, file.size_bytes) as source:
            with self._spooled() as target:
                with _usable(field):
                    written = await self._probes.convert(source.path, target.path, conversion)
                if not written:
                    return file
                sent = await self.take(
                    file.account_id, target.chunks(), name=file.name, field=field, derived_from=file.id
                )
                return sent.file

    async def still(self, account_id: UUID, object_key: str, size: int, *, last: bool, field: str) -> StoredFile:
        """The first or the last frame of a stored video of the account, as a file.

        Raises:
            InvalidRequest, TooLarge, Unavailable: as :meth:`take`.
        """
        async with self._loaded(object_key, size) as source:
            with self._spooled() as target:
                with _usable(field):
                    await self._probes.still(source.path, target.path, last=last)
                return (await self.take(account_id, target.chunks(), name=None, field=field)).file

    def check_url(self, url: str) -> None:
        """Refuse a URL that can never be fetched.

        Raises:
            InvalidUrl
        """
        check_url(url, self._guarded.settings)

    async def of_ids(self, asked: Collection[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], StoredFile]:
        """Files by pairs of account and file; those that are not there, or have expired, are left out."""
        now = self._clock()
        async with self._database.read() as conn:
            found = await repository.of_ids(conn, {file_id for _, file_id in asked})
        return {pair: file for file in found if file.expires_at > now and (pair := (file.account_id, file.id)) in asked}

    async def content(self, object_key: str, size: int) -> bytes:
        """The bytes of a file, which must be small.

        Raises:
            StorageError: they cannot be read now.
        """
        return b"".join([chunk async for chunk in self.storage.read(object_key, 0, size)])

    async def get_signed(self, token: str) -> StoredFile:
        """The file that a provider fetches.

        Raises:
            NotFound: the token is invalid or has expired, or the file is gone.
        """
        identifier = self.urls.file_of(token)
        if identifier is not None:
            async with self._database.read() as conn:
                for file in await repository.of_ids(conn, [identifier]):
                    return file
        raise NotFound(NO_FILE)

    async def kept(self, account_id: UUID, file_id: UUID) -> StoredFile | None:
        """A file that a job of the account uses: it is there until the job has ended, even if it has expired."""
        async with self._database.read() as conn:
            found = await repository.of_ids(conn, [file_id])
        return next((file for file in found if file.account_id == account_id), None)

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
            Conflict: a job that has not ended uses it.
        """
        identifier = decode(Prefix.FILE, file_id)
        if identifier is not None:
            async with self._database.begin() as conn:
                if await repository.end(conn, account_id, identifier, self._clock()):
                    if await self._used(conn, [identifier]):
                        raise Conflict(IN_USE)  # nothing is committed
                    return
        raise NotFound(NO_FILE)

    async def expire(self, limit: int) -> int:
        """Delete at most ``limit`` expired files; returns how many. A later call retries what cannot be deleted."""
        async with self._database.begin() as conn:
            due = await repository.expired(conn, self._clock(), limit, self._used)
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

    @asynccontextmanager
    async def _loaded(self, object_key: str, size: int) -> AsyncIterator[Spooled]:
        """A stored object as a spooled file."""
        with self._spooled() as spooled:
            await spooled.receive(self.storage.read(object_key, 0, size), lambda _: None)
            yield spooled

    async def _taken(
        self,
        account_id: UUID,
        spooled: Spooled,
        *,
        name: str | None,
        field: str,
        derived_from: UUID | None = None,
    ) -> Given:
        if not spooled.size:
            raise refused(field, "is empty")
        derived = derived_from is not None
        if known := await self._renewed(account_id, spooled.sha256, derived=derived):
            return Given(known, created=False)
        info = await self._inspected(spooled, field)
        return await self._kept(received(account_id, derived_from, name, spooled, info), spooled)

    def _check_size(self, size: int) -> None:
        if size > self._settings.max_bytes:
            raise TooLarge(f"A file may have at most {self._settings.max_bytes} bytes.")

    async def _renewed(self, account_id: UUID, sha256: bytes, *, derived: bool) -> StoredFile | None:
        now = self._clock()
        async with self._database.begin() as conn:
            return await repository.renew(
                conn, account_id, sha256, derived=derived, now=now, expires_at=now + self._retention
            )

    async def _inspected(self, spooled: Spooled, field: str) -> FileInfo:
        with _usable(field):
            return await self._probes.inspect(spooled.path)

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
        if known := await self._renewed(new.account_id, new.sha256, derived=new.derived_from is not None):
            return Given(known, created=False)
        raise Unavailable("The file was deleted while it was stored; send it again.")

    @property
    def _retention(self) -> timedelta:
        return timedelta(days=self._settings.retention_days)


@contextmanager
def _usable(field: str) -> Iterator[None]:
    """What the probe process finds wrong with a file, as the error of the request's field."""
    try:
        yield
    except NotPlayable as error:
        raise refused(field, f"cannot be used: {error.reason}") from error
    except TooBig as error:
        raise refused(field, f"cannot be used. {error.message.rstrip('.')}") from error


async def _chunks_of(data: bytes) -> AsyncIterator[bytes]:
    yield data
