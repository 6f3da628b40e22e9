"""Results of probing a video."""

from dataclasses import dataclass, field
from enum import StrEnum


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
