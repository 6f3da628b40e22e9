"""The values that the asset code works with."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


class Kind(StrEnum):
    """What an asset of a job is."""

    FILM = "film"
    POSTER = "poster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A film on its way in, and what was ordered.

    ``chunks`` is read once. ``expected_bytes`` is their announced sum, after any unpacking; None where nobody told.
    ``width`` and ``height`` are pixels.
    """

    job_id: UUID
    account_id: UUID
    chunks: AsyncIterator[bytes]
    expected_bytes: int | None
    seconds: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAsset:
    """A file that lies in the storage and has no row yet.

    ``seconds`` and ``frame_rate`` are None for a still picture. A deviation is a mapping of ``field``, ``requested``
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
    """A row. Past ``expires_at`` the file is about to be deleted; at ``deleted_at`` it was."""

    created_at: datetime
    expires_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A film that was taken in, to be recorded. It is not always what was ordered: see its deviations."""

    film: NewAsset
    poster: NewAsset

    @property
    def deviations(self) -> Sequence[Mapping[str, Any]]:
        return self.film.deviations
