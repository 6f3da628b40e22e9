"""Value types of files."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.media.info import FileFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file that was received and inspected. ``name`` is what its caller calls it; nothing is derived from it."""

    id: UUID
    account_id: UUID
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
