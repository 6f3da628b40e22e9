"""Value types of files."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.ids import new_id
from app.media.info import FileFormat, FileInfo
from app.media.spool import Spooled


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file that was received and inspected. ``name`` is what its caller calls it; nothing is derived from it.

    ``derived_from`` is the file that it shows as it was sent.
    """

    id: UUID
    account_id: UUID
    derived_from: UUID | None
    name: str | None
    format: FileFormat
    size_bytes: int
    sha256: bytes
    width: int | None
    height: int | None
    seconds: float | None
    frame_rate: float | None
    has_audio: bool

    @property
    def object_key(self) -> str:
        return f"{self.account_id}/files/{self.id}.{self.format}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile(NewFile):
    """A row of ``files``. Deleted soon after ``expires_at``."""

    created_at: datetime
    expires_at: datetime


def received(
    account_id: UUID, derived_from: UUID | None, name: str | None, spooled: Spooled, info: FileInfo
) -> NewFile:
    """A new file, as received and inspected."""
    return NewFile(
        id=new_id(),
        account_id=account_id,
        derived_from=derived_from,
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
