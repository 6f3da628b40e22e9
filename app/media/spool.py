"""Temporary files on local disk that hold videos while they are received and probed.

A file is locked while in use and deleted afterwards. An unlocked file was left by a killed process.
"""

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from app.media.errors import StorageFull, of_os_error
from app.settings import SettingsError

PREFIX = "filmgate-"
SUFFIX = ".spool"
BLOCK_BYTES = 1024 * 1024


class Spooled:
    """A file being received. ``size`` and ``sha256`` cover the bytes written so far."""

    def __init__(self, file: IO[bytes], min_free_bytes: int) -> None:
        self._file = file
        self._min_free_bytes = min_free_bytes
        self._hash = hashlib.sha256()
        self.path = Path(file.name)
        self.size = 0

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()

    def write(self, data: bytes) -> None:
        """Append and flush. Blocks: call it in a thread.

        Raises:
            StorageFull: no space, or less than ``min_free_bytes`` would stay free.
            StorageUnavailable: the write failed.
        """
        require_room(self.path.parent, len(data), self._min_free_bytes)
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise of_os_error(error) from error
        self._hash.update(data)
        self.size += len(data)

    async def receive(self, chunks: AsyncIterator[bytes], check: Callable[[int], None]) -> None:
        """Write in blocks of 1 MiB, each while the next one is received. ``check`` raises if the size is too large.

        Starting a thread for every small chunk would cost more than the write itself.
        """
        held: list[bytes] = []
        size = total = 0
        writing: asyncio.Future[None] | None = None
        try:
            async for chunk in chunks:
                held.append(chunk)
                size += len(chunk)
                total += len(chunk)
                check(total)
                if size >= BLOCK_BYTES:
                    if writing is not None:
                        await writing
                    writing = asyncio.ensure_future(asyncio.to_thread(self.write, b"".join(held)))
                    held, size = [], 0
            if writing is not None:
                await writing
            await asyncio.to_thread(self.write, b"".join(held))
        finally:
            if writing is not None:
                writing.cancel()  # its result is no longer needed

    async def chunks(self) -> AsyncIterator[bytes]:
        """What the file holds now, by whichever process it was written, in blocks of 1 MiB."""
        with await asyncio.to_thread(self.path.open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, BLOCK_BYTES):
                yield chunk


class Spool:
    """A directory of spooled files. Several processes may share it."""

    def __init__(self, directory: Path | None, min_free_bytes: int) -> None:
        self.directory = directory or Path(tempfile.gettempdir())
        self._min_free_bytes = min_free_bytes

    def prepare(self) -> int:
        """Make the directory and remove files left by killed processes; returns their number.

        Raises:
            SettingsError: the directory cannot be made or used.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            left = [path for path in self.directory.glob(f"{PREFIX}*{SUFFIX}") if _remove_if_abandoned(path)]
            proof = self._locked_file()
            with suppress(FileNotFoundError):  # a worker that starts at the same moment may have removed it
                proof.close()
        except OSError as error:
            raise SettingsError(
                f"assets.spool: {self.directory} cannot be used: {error.strerror}; name a directory that the process "
                "may write to"
            ) from error
        return len(left)

    @contextmanager
    def file(self, expected_bytes: int) -> Iterator[Spooled]:
        """A new empty file with space for ``expected_bytes``; deleted at the end of the block.

        Raises:
            StorageFull, StorageUnavailable: the file cannot be made.
        """
        require_room(self.directory, expected_bytes, self._min_free_bytes)
        try:
            file = self._locked_file()
        except OSError as error:
            raise of_os_error(error) from error
        try:
            yield Spooled(file, self._min_free_bytes)
        finally:
            with suppress(OSError):  # a failed write fails again here; the data is discarded
                file.close()

    def _locked_file(self) -> IO[bytes]:
        while True:
            file = tempfile.NamedTemporaryFile(prefix=PREFIX, suffix=SUFFIX, dir=self.directory)  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file
            # Another process removed it as abandoned in the instant before it was locked.
            with suppress(FileNotFoundError):
                file.close()


def require_room(directory: Path, size: int, min_free_bytes: int) -> None:
    """Check that ``min_free_bytes`` of the file system stay free after ``size`` more bytes.

    Raises:
        StorageFull: they would not.
        StorageUnavailable: the free space cannot be read.
    """
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise of_os_error(error) from error
    if free - size < min_free_bytes:
        raise StorageFull(f"{directory} has {free} bytes free; {size} are needed and {min_free_bytes} must stay")


def _remove_if_abandoned(path: Path) -> bool:
    with suppress(FileNotFoundError, PermissionError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # its writer is alive
        path.unlink()
        return True
    return False
