"""Why a film could not be taken in, kept or read.

AssetError
├── StorageError
│   ├── StorageUnavailable   the store or the spool cannot be used now              retryable
│   └── StorageFull          no room, or less than is to stay free                  retryable
└── FilmRefused
    ├── TooBig               more bytes, pixels, seconds or pictures than allowed   final
    ├── Truncated            fewer or more bytes than were announced                retryable
    ├── TookTooLong          it did not arrive within the time for one copy         retryable
    └── NotPlayable          not a film, or one that is damaged                     retryable

A damaged film is retryable because the copy may be at fault; whoever tries again counts the tries.
"""

import errno
from typing import ClassVar

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class AssetError(Exception):
    """Base. ``message`` is safe to show to any caller; ``detail`` is for operators; ``retryable``: again may help."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(f"{message} {detail}" if detail else message)
        self.message = message
        self.detail = detail


class StorageError(AssetError):
    """Something is wrong on our side of the copy."""


class StorageUnavailable(StorageError):
    def __init__(self, detail: str) -> None:
        super().__init__("The film storage is not available.", detail)


class StorageFull(StorageError):
    def __init__(self, detail: str) -> None:
        super().__init__("The film storage is full.", detail)


class FilmRefused(AssetError):
    """What came is not a film that we keep."""


class TooBig(FilmRefused):
    retryable = False


class Truncated(FilmRefused):
    pass


class TookTooLong(FilmRefused):
    pass


class NotPlayable(FilmRefused):
    """``reason`` continues the sentence "The film cannot be played: …"."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"The film cannot be played: {reason}.", detail)
        self.reason = reason


def of_os_error(error: OSError) -> StorageError:
    """The operating system's refusal in our words."""
    return StorageFull(str(error)) if error.errno in FULL else StorageUnavailable(str(error))
