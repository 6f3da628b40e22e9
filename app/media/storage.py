"""Object storage: a local directory or a bucket. The only module that uses obstore.

Writes are atomic: an object appears whole or not at all. A killed writer may leave parts of an unfinished upload: in a
directory they are removed with the object; in a bucket a lifecycle rule should abort incomplete multipart uploads.
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

from app.media.aws_profile import SUPPORTED, with_profile
from app.media.errors import FULL, StorageError, StorageFull, StorageUnavailable
from app.media.spool import require_room
from app.settings import AssetSettings, SettingsError

CHUNK_BYTES = 1024 * 1024
# A bucket is read several chunks at a time: each request costs money and a round trip. A slow reader holds no
# connection between requests.
BUCKET_READ_BYTES = 4 * 1024 * 1024
PART_BYTES = 5 * 1024 * 1024  # the minimum of S3, which allows at most 10,000 parts
PARTS_AT_ONCE = 2
FILE_MODE = 0o644  # an API that runs as another user can read it
# Errors of hardlink_to where hard links are not possible.
NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})
CHECK_KEY = "filmgate-check"
PROOF_SECONDS = 10
SCHEMES = frozenset({"s3", "gs", "az"})

CLIENT = {"connect_timeout": "5s", "timeout": "60s"}
RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
# Options of the HTTP client; all others are the store's.
CLIENT_OPTIONS = frozenset({
    "allow_http", "allow_invalid_certificates", "connect_timeout", "http1_only", "http2_only", "pool_idle_timeout",
    "pool_max_idle_per_host", "proxy_ca_certificate", "proxy_excludes", "proxy_url", "read_timeout",
    "root_certificate", "timeout", "user_agent",
})  # fmt: skip
#: In the URL at which an instance asks for the keys of its role: the last resort.
INSTANCE_ROLE = "/latest/api/token"
_ENDPOINT_VARIABLE = re.compile(r"^(AWS|AZURE|GOOGLE)_(\w+_)?ENDPOINT(_\w+)?$")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class Storage:
    """Writes, reads and deletes objects. Keys are relative paths such as ``account/job/video.mp4``."""

    def __init__(self, store: ObjectStore, directory: Path | None, min_free_bytes: int) -> None:
        self._store = store
        self._directory = directory
        self._min_free_bytes = min_free_bytes
        self._proven_at: float | None = None

    @classmethod
    def open(cls, settings: AssetSettings) -> "Storage":
        """Open the store of the settings. A local directory is created; a bucket is not contacted yet.

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
        """Write an object, replacing any existing one.

        Raises:
            StorageFull, StorageUnavailable: the object is unchanged.
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
        """The bytes from ``start`` to ``end``, exclusive, in chunks of at most 1 MiB.

        Raises:
            StorageUnavailable: also when the object is missing or shorter.
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
        """Delete an object. A missing one is no error.

        Raises:
            StorageUnavailable: the object may still exist.
        """
        with _translated():
            with suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)
            if self._directory is not None:
                await asyncio.to_thread(_remove_leftovers, self._directory, key)

    async def check(self) -> None:
        """Check that the store can be written to, by writing an empty object.

        A success is cached for ten seconds: readiness probes are frequent, and each write to a bucket costs money.

        Raises:
            StorageFull, StorageUnavailable: the write failed; see the detail.
        """
        now = asyncio.get_running_loop().time()
        if self._proven_at is None or now - self._proven_at > PROOF_SECONDS:
            await self.put(CHECK_KEY, b"", "application/octet-stream")
            self._proven_at = now

    def require_room(self, size: int) -> None:
        """Check that a local directory has space for ``size`` bytes; a bucket always has.

        Raises:
            StorageFull: no space, or less than ``min_free_bytes`` would stay free.
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
    if url.startswith("s3:"):
        options = with_profile(options)
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
    """Map an error of the store. obstore gives the errno of the operating system only in its text."""
    number = _OS_ERROR.search(str(error))
    if number and int(number[1]) in FULL:
        return StorageFull(_words(error))
    if isinstance(error, OSError) and error.errno in FULL:
        return StorageFull(_words(error))
    return StorageUnavailable(_words(error))


def _words(error: Exception) -> str:
    """The message on one line, without the debug output that obstore appends."""
    text = " ".join(str(error).partition("\n\nDebug source:")[0].split())[:500]
    return f"no credentials for the bucket: {SUPPORTED} ({text})" if INSTANCE_ROLE in text else text


async def _place(directory: Path, key: str, source: Path) -> None:
    """Hard-link a file into ``directory``; copy it only where no hard link is possible, as across file systems."""
    path = directory / key
    part = path.with_name(f"{path.name}#{secrets.token_hex(8)}")
    linking = asyncio.ensure_future(asyncio.to_thread(_link_or_copy, source, part))
    try:
        await asyncio.shield(linking)
    except asyncio.CancelledError:
        linking.add_done_callback(lambda _: part.unlink(missing_ok=True))  # a thread cannot be cancelled
        raise
    await asyncio.to_thread(part.replace, path)
    await asyncio.to_thread(_make_durable, directory, key)


def _link_or_copy(source: Path, part: Path) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            part.hardlink_to(source)
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            shutil.copyfile(source, part)  # in the kernel, where supported
        part.chmod(FILE_MODE)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _make_durable(directory: Path, key: str) -> None:
    """Flush the file and its directories to disk: a recorded video must survive a power failure."""
    path = directory / key
    while path != directory.parent:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path = path.parent


def _remove_leftovers(directory: Path, key: str) -> None:
    """Delete parts left by killed writers (``key#1`` beside the object) and directories that are now empty."""
    path = directory / key
    for part in path.parent.glob(f"{path.name}#*"):
        part.unlink(missing_ok=True)
    with suppress(OSError):  # stops at the first directory that is not empty
        while (path := path.parent) != directory:
            path.rmdir()
