"""Where a film waits on local disk while it is checked.

A file here lives as long as the process that writes it: it is locked while in use, and what nobody holds is left from a
process that was killed.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from app.assets.errors import StorageFull, of_os_error
from app.settings import SettingsError

PREFIX = "filmgate-"
SUFFIX = ".spool"


class Spooled:
    """One file on its way in. ``size`` and ``sha256`` are of what was written so far."""

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
        """Append, and be sure that it is in the file. Blocks: call it in a thread.

        Raises:
            StorageFull: there is no room, or less than is to stay free.
            StorageUnavailable: the disk refused.
        """
        require_room(self.path.parent, len(data), self._min_free_bytes)
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise of_os_error(error) from error
        self._hash.update(data)
        self.size += len(data)


class Spool:
    """A directory for such files. Several processes may share it."""

    def __init__(self, directory: Path | None, min_free_bytes: int) -> None:
        self.directory = directory or Path(tempfile.gettempdir())
        self._min_free_bytes = min_free_bytes

    def prepare(self) -> int:
        """Make the directory, remove what killed processes left; returns how many files that were.

        Raises:
            SettingsError: the directory cannot be made or used.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            left = [path for path in self.directory.glob(f"{PREFIX}*{SUFFIX}") if _remove_if_left(path)]
            proof = self._locked_file()
            with suppress(FileNotFoundError):  # a worker that starts at the same moment may take it for a left one
                proof.close()
        except OSError as error:
            raise SettingsError(
                f"assets.spool: {self.directory} cannot be used: {error.strerror}; name a directory that the process "
                "may write to"
            ) from error
        return len(left)

    @contextmanager
    def file(self, expected_bytes: int) -> Iterator[Spooled]:
        """A new empty file with room for so many bytes; gone at the end of the block.

        Raises:
            StorageFull, StorageUnavailable: as their names say.
        """
        require_room(self.directory, expected_bytes, self._min_free_bytes)
        try:
            file = self._locked_file()
        except OSError as error:
            raise of_os_error(error) from error
        try:
            yield Spooled(file, self._min_free_bytes)
        finally:
            with suppress(OSError):  # what could not be written then cannot be written now, and nobody wants it
                file.close()

    def _locked_file(self) -> IO[bytes]:
        while True:
            file = tempfile.NamedTemporaryFile(prefix=PREFIX, suffix=SUFFIX, dir=self.directory)  # noqa: SIM115
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return file
            # Another process took it for a left one in the instant before it was locked.
            with suppress(FileNotFoundError):
                file.close()


def require_room(directory: Path, size: int, min_free_bytes: int) -> None:
    """Make sure that ``size`` more bytes leave so much of the file system free.

    Raises:
        StorageFull: they would not.
        StorageUnavailable: it cannot be told.
    """
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise of_os_error(error) from error
    if free - size < min_free_bytes:
        raise StorageFull(f"{directory} has {free} bytes free; {size} are needed and {min_free_bytes} must stay")


def _remove_if_left(path: Path) -> bool:
    with suppress(FileNotFoundError, PermissionError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # its writer is alive
        path.unlink()
        return True
    return False
