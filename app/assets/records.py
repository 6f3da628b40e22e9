"""Value types of assets."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Kind(StrEnum):
    """The role of an asset in its job."""

    VIDEO = "video"
    POSTER = "poster"

    @classmethod
    def _missing_(cls, value: object) -> "Kind | None":
        # Version 0.1 stored "film"; rows not yet rewritten by migration 202611281510 still hold it.
        return cls.VIDEO if value == "film" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A video to ingest, with the length and size that the job requested.

    ``chunks`` is read once. ``expected_bytes`` is the announced total after decompression; None if not announced.
    ``width`` and ``height`` are in pixels. ``retried``: an earlier try to ingest this video failed.
    """

    job_id: UUID
    account_id: UUID
    chunks: AsyncIterator[bytes]
    expected_bytes: int | None
    seconds: int
    width: int
    height: int
    retried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAsset:
    """A file in the storage that has no row yet.

    ``seconds`` and ``frame_rate`` are None for a poster. A deviation is a mapping of ``field``, ``requested``
    and ``actual``.
    """

    id: UUID
    account_id: UUID
    job_id: UUID
    kind: Kind
    object_key: str
    content_type: str
    size_bytes: int
    sha256: bytes
    width: int
    height: int
    codec: str
    seconds: float | None = None
    frame_rate: float | None = None
    has_audio: bool = False
    deviations: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAsset(NewAsset):
    """A row of ``assets``. The file is deleted soon after ``expires_at``; ``deleted_at`` is when that happened."""

    created_at: datetime
    expires_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An ingested video and its poster, not yet recorded. ``deviations`` lists differences from the request."""

    video: NewAsset
    poster: NewAsset

    @property
    def deviations(self) -> Sequence[Mapping[str, Any]]:
        return self.video.deviations
