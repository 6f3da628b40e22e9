"""Results of probing a video."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class Task(IntEnum):
    """What a probe process does with a file."""

    PROBE = 0
    INSPECT = 1
    CONVERT = 2
    STILL = 3


class Container(StrEnum):
    """The accepted file formats. The value is the file name's extension."""

    MP4 = "mp4"
    QUICKTIME = "mov"
    WEBM = "webm"
    MATROSKA = "mkv"

    @property
    def content_type(self) -> str:
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    Container.MP4: "video/mp4",
    Container.QUICKTIME: "video/quicktime",
    Container.WEBM: "video/webm",
    Container.MATROSKA: "video/x-matroska",
}


class FileKind(StrEnum):
    """What a file that a caller gives is."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


class FileFormat(StrEnum):
    """The formats of files that callers give. The value is the file name's extension."""

    JPEG = "jpg"
    PNG = "png"
    WEBP = "webp"
    MP4 = "mp4"
    QUICKTIME = "mov"
    WEBM = "webm"
    MATROSKA = "mkv"
    MP3 = "mp3"
    WAV = "wav"
    M4A = "m4a"

    @property
    def content_type(self) -> str:
        return _FILE_TYPES[self]

    @property
    def kind(self) -> FileKind:
        return FileKind(self.content_type.partition("/")[0])


_FILE_TYPES = {
    FileFormat.JPEG: "image/jpeg",
    FileFormat.PNG: "image/png",
    FileFormat.WEBP: "image/webp",
    **{FileFormat(container): content_type for container, content_type in _CONTENT_TYPES.items()},
    FileFormat.MP3: "audio/mpeg",
    FileFormat.WAV: "audio/wav",
    FileFormat.M4A: "audio/mp4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """Properties of a file that a caller gives. Pixels are as displayed; None where the kind has no such property."""

    format: FileFormat
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    frame_rate: float | None = None
    has_audio: bool = False


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a picture is to become: its centre, scaled to cover ``width`` × ``height`` pixels, as displayed."""

    format: FileFormat
    width: int
    height: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Properties of a video. ``codec`` is FFmpeg's name (``h264``, ``hevc``, ``av1``, ``vp9``); sizes are in pixels."""

    container: Container
    codec: str
    width: int
    height: int
    seconds: float
    frame_rate: float
    has_audio: bool


@dataclass(frozen=True, slots=True)
class PosterInfo:
    """A JPEG frame of a video."""

    jpeg: bytes = field(repr=False)
    width: int
    height: int
