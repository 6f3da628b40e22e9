"""The public schemas of files."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from app.files.records import StoredFile
from app.ids import Prefix, encode
from app.media.info import FileKind
from app.web.schema_types import Int32, Int64
from app.web.uploads import MAX_NAME

Name = Annotated[str, Field(max_length=MAX_NAME, description="What you call the file. Nothing is derived from it.")]


class FileFromUrl(BaseModel):
    """A file to fetch: at once, and only once."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2048, description="A public `https` URL. It must respond within 30 s.")
    name: Name | None = None


class File(BaseModel):
    """A file of yours, to be used as an input of jobs."""

    id: str = Field(examples=["file_01h455vb4pex5vsknk084sn02q"])
    # Open, as codes are; and Go's generator has one namespace for the members of all enums.
    kind: str = Field(
        description="Determined from the bytes. New kinds may be added.",
        json_schema_extra={"x-extensible-enum": [known.value for known in FileKind]},
        examples=["image"],
    )
    name: str | None = Field(examples=["photo.jpg"])
    content_type: str = Field(description="Determined from the bytes.", examples=["image/jpeg"])
    size_bytes: Int64
    sha256: str = Field(description="SHA-256 of the file, in hexadecimal; also its ETag.", pattern="^[0-9a-f]{64}$")
    width: Int32 | None = Field(description="Pixels, as displayed; null for a sound.")
    height: Int32 | None = Field(description="Pixels, as displayed; null for a sound.")
    seconds: float | None = Field(description="The length in seconds; null for a picture.")
    frame_rate: float | None = Field(description="Frames per second; null unless it is a video.")
    has_audio: bool
    created_at: datetime
    expires_at: datetime = Field(description="When the file is deleted. Giving the same bytes again renews it.")
    content_url: str = Field(description="URL of the content; needs an API key with `files:read`.")

    @classmethod
    def of(cls, file: StoredFile, content_url: str) -> Self:
        return cls(
            id=encode(Prefix.FILE, file.id),
            kind=file.format.kind.value,
            name=file.name,
            content_type=file.format.content_type,
            size_bytes=file.size_bytes,
            sha256=file.sha256.hex(),
            width=file.width,
            height=file.height,
            seconds=file.seconds,
            frame_rate=file.frame_rate,
            has_audio=file.has_audio,
            created_at=file.created_at,
            expires_at=file.expires_at,
            content_url=content_url,
        )
