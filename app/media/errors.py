"""Errors of ingesting, storing and reading videos.

MediaError
├── StorageError
│   ├── StorageUnavailable   the store or the spool is not usable now              retryable
│   └── StorageFull          no space, or less than ``min_free_bytes`` would stay  retryable
└── VideoRejected
    ├── TooBig               more bytes, pixels, seconds or packets than allowed   final
    ├── Truncated            fewer or more bytes than announced                    retryable
    ├── TookTooLong          not received within ``fetch_timeout``                 retryable
    └── NotPlayable          not a video, or a damaged one                         retryable
        └── ProbeExhausted   probing it took much CPU time, or timed out           retryable once

A damaged video is retryable because the copy may be at fault; the caller counts and limits the tries.
"""

import errno
from typing import ClassVar

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class MediaError(Exception):
    """Base. ``message`` is safe to show to any caller; ``detail`` is for operators; ``retryable``: a retry may help."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(f"{message} {detail}" if detail else message)
        self.message = message
        self.detail = detail


class StorageError(MediaError):
    """The store or the spool failed; the video is not at fault."""


class StorageUnavailable(StorageError):
    def __init__(self, detail: str) -> None:
        super().__init__("The video storage is not available.", detail)


class StorageFull(StorageError):
    def __init__(self, detail: str) -> None:
        super().__init__("The video storage is full.", detail)


class VideoRejected(MediaError):
    """The received file is not a video that can be stored."""


class TooBig(VideoRejected):
    retryable = False


class Truncated(VideoRejected):
    pass


class TookTooLong(VideoRejected):
    pass


class NotPlayable(VideoRejected):
    """``reason`` continues the sentence "The video cannot be played: …"."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"The video cannot be played: {reason}.", detail)
        self.reason = reason


class ProbeExhausted(NotPlayable):
    """Probing was expensive and failed. Another copy would cost as much: it is worth one more try."""


def of_os_error(error: OSError) -> StorageError:
    """Map an operating system error to a storage error."""
    return StorageFull(str(error)) if error.errno in FULL else StorageUnavailable(str(error))
