"""Where films are kept: a local directory or a bucket, behind four calls. The one place that knows the object store.

An object appears whole or not at all. A writer that is killed may leave the parts of an unfinished upload: in a
directory they are removed with the object, in a bucket a lifecycle rule should abort incomplete multipart uploads.
"""

import asyncio
import errno
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from app.assets.errors import FULL, StorageError, StorageFull, StorageUnavailable
from app.assets.spool import require_room
from app.settings import AssetSettings, SettingsError

CHUNK_BYTES = 1024 * 1024
# A bucket is asked for several chunks at a time: a request costs money and a round trip. A slow reader holds no
# connection meanwhile.
BUCKET_READ_BYTES = 4 * 1024 * 1024
PART_BYTES = 5 * 1024 * 1024  # the least that S3 takes; 10,000 of them are the most
PARTS_AT_ONCE = 2
FILE_MODE = 0o644  # an API under another user reads what a worker wrote
# What a system says that cannot give a file a second name there.
NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})
CHECK_KEY = "filmgate-check"
PROOF_SECONDS = 10
SCHEMES = frozenset({"s3", "gs", "az"})

CLIENT = {"connect_timeout": "5s", "timeout": "60s"}
RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
# Options of the HTTP client; every other one is the store's own.
CLIENT_OPTIONS = frozenset({
    "allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only", "pool_idle_timeout",
    "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url", "read_timeout",
    "root_certificate", "timeout", "user_agent",
})  # fmt: skip
_ENDPOINT_VARIABLE = re.compile(r"^(AWS|AZURE|GOOGLE)_(\w+_)?ENDPOINT(_\w+)?$")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class Storage:
    """Keep, read and delete objects. Keys are relative paths such as ``account/job/film.mp4``."""

    def __init__(self, store: ObjectStore, directory: Path | None, min_free_bytes: int) -> None:
        self._store = store
        self._directory = directory
        self._min_free_bytes = min_free_bytes
        self._proven_at: float | None = None

    @classmethod
    def open(cls, settings: AssetSettings) -> "Storage":
        """The store that the settings name. A local directory is made; a bucket is not asked yet.

        Raises:
            SettingsError: the URL or an option is not usable, or the directory cannot be made.
        """
        scheme = urlsplit(settings.store).scheme
        if scheme == "file":
            directory = _made_directory(settings)
            return cls(LocalStore(directory), directory, settings.min_free_bytes)
        if scheme in SCHEMES:
            return cls(_bucket(settings.store, settings.store_options), None, settings.min_free_bytes)
        raise SettingsError(f"assets.store: {settings.store!r} is not a file://, s3://, gs:// or az:// URL")

    async def put(self, key: str, content: Path | bytes, content_type: str) -> None:
        """Keep a file under a key, whatever was there before.

        Raises:
            StorageFull, StorageUnavailable: as their names say; nothing has changed.
        """
        with _translated():
            self.require_room(_size(content))
            if self._directory is not None and isinstance(content, Path):
                await _place(self._directory, key, content)
                return
            await obstore.put_async(
                self._store,
                key,
                content,
                attributes={"Content-Type": content_type} if self._directory is None else None,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
            if self._directory is not None:
                await asyncio.to_thread(_make_durable, self._directory, key)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` up to, not with, ``end``, in chunks of at most 1 MiB.

        Raises:
            StorageUnavailable: also when the object is not there, or shorter.
        """
        step = BUCKET_READ_BYTES if self._directory is None else CHUNK_BYTES
        while start < end:
            wanted = min(step, end - start)
            with _translated():
                window = memoryview(await obstore.get_range_async(self._store, key, start=start, length=wanted))
            if len(window) != wanted:
                raise StorageUnavailable(f"{key} is shorter than {end} bytes")
            for offset in range(0, wanted, CHUNK_BYTES):
                yield bytes(window[offset : offset + CHUNK_BYTES])
            start += wanted

    async def delete(self, key: str) -> None:
        """Remove an object. One that is not there is fine.

        Raises:
            StorageUnavailable: it may still be there.
        """
        with _translated():
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)
            if self._directory is not None:
                await asyncio.to_thread(_remove_leftovers, self._directory, key)

    async def check(self) -> None:
        """Prove that a film could be kept now, by writing an empty object.

        A proof holds for ten seconds: whoever may ask may ask often, and a bucket's owner pays for each write.

        Raises:
            StorageFull, StorageUnavailable: it could not; the detail says why.
        """
        now = asyncio.get_running_loop().time()
        if self._proven_at is None or now - self._proven_at > PROOF_SECONDS:
            await self.put(CHECK_KEY, b"", "application/octet-stream")
            self._proven_at = now

    def require_room(self, size: int) -> None:
        """Make sure that a local directory has room for ``size`` bytes; a bucket always has.

        Raises:
            StorageFull: it has not, or less than is to stay free would be left.
        """
        if self._directory is not None:
            require_room(self._directory, size, self._min_free_bytes)


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _made_directory(settings: AssetSettings) -> Path:
    url = urlsplit(settings.store)
    directory = Path(unquote(url.path))
    if url.netloc not in {"", "localhost"} or not directory.is_absolute() or url.query or url.fragment:
        raise SettingsError(f"assets.store: {settings.store!r} is not of the form file:///absolute/path")
    if settings.store_options:
        raise SettingsError("assets.store_options: a local directory has no options; remove them")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"assets.store: {directory} cannot be made: {error.strerror}; make it, or name another"
        ) from error
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(f"assets.store: {directory} may not be written to by this process; change its owner")
    return directory


def _bucket(url: str, options: Mapping[str, str]) -> ObjectStore:
    client = CLIENT | {name: value for name, value in options.items() if name in CLIENT_OPTIONS}
    if _plain_http(options):
        client.setdefault("allow_http", "true")
    config: Any = {name: value for name, value in options.items() if name not in CLIENT_OPTIONS}
    client_options: Any = client
    try:
        return from_url(url, config=config, client_options=client_options, retry_config=RETRIES)
    except (BaseError, ValueError) as error:
        raise SettingsError(f"assets.store, assets.store_options: {_words(error)}") from error


def _plain_http(options: Mapping[str, str]) -> bool:
    """Whether the operator named an endpoint without TLS, in the options or the SDK's environment variables."""
    endpoints = [value for name, value in os.environ.items() if _ENDPOINT_VARIABLE.match(name)]
    endpoints += [value for name, value in options.items() if "endpoint" in name]
    return any(endpoint.startswith("http://") for endpoint in endpoints)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise _translation(error) from error


def _translation(error: Exception) -> StorageError:
    """The store's own words hide the operating system's number in the text."""
    number = _OS_ERROR.search(str(error))
    if number and int(number[1]) in FULL:
        return StorageFull(_words(error))
    if isinstance(error, OSError) and error.errno in FULL:
        return StorageFull(_words(error))
    return StorageUnavailable(_words(error))


def _words(error: Exception) -> str:
    """The message on one line, without the structure that the store appends for its own developers."""
    return " ".join(str(error).partition("\n\nDebug source:")[0].split())[:500]


async def _place(directory: Path, key: str, source: Path) -> None:
    """Give a file its second name, under ``directory``: no byte is copied unless it lies on another file system."""
    path = directory / key
    part = path.with_name(f"{path.name}#{secrets.token_hex(8)}")
    naming = asyncio.ensure_future(asyncio.to_thread(_name_again, source, part))
    try:
        await asyncio.shield(naming)
    except asyncio.CancelledError:
        naming.add_done_callback(lambda _: part.unlink(missing_ok=True))  # a thread cannot be called off
        raise
    await asyncio.to_thread(part.replace, path)
    await asyncio.to_thread(_make_durable, directory, key)


def _name_again(source: Path, part: Path) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            part.hardlink_to(source)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            shutil.copyfile(source, part)  # in the kernel, where it can
        part.chmod(FILE_MODE)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _make_durable(directory: Path, key: str) -> None:
    """A film that is recorded must outlive a power cut: the file and the directories that name it go to disk."""
    path = directory / key
    while path != directory.parent:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path = path.parent


def _remove_leftovers(directory: Path, key: str) -> None:
    """Parts of uploads whose writer was killed lie beside the object as ``key#1``, and empty directories stay."""
    path = directory / key
    for part in path.parent.glob(f"{path.name}#*"):
        part.unlink(missing_ok=True)
    with suppress(OSError):  # the first directory that holds something else
        while (path := path.parent) != directory:
            path.rmdir()
