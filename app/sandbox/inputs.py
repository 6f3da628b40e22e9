"""Pictures and videos that a create gives: what they are, what they are for, and which ones a provider accepts."""

import base64
import binascii
import dataclasses
import ipaddress
import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from app.sandbox.frame_rate import FPS

MEBIBYTE = 1024 * 1024
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})
VIDEO_TYPES = frozenset({"video/mp4", "video/quicktime", "video/webm", "video/ogg"})


class Role(StrEnum):
    """What an input is for."""

    FIRST_FRAME = "first_frame"
    LAST_FRAME = "last_frame"
    REFERENCE_IMAGE = "reference_image"
    REFERENCE_VIDEO = "reference_video"
    SOURCE_VIDEO = "source_video"

    @property
    def is_video(self) -> bool:
        return self in {Role.REFERENCE_VIDEO, Role.SOURCE_VIDEO}


class Operation(StrEnum):
    """What happens to a source video."""

    EXTEND = "extend"
    EDIT = "edit"


@dataclass(frozen=True, slots=True)
class Input:
    """One input that was read; its bytes are kept in a file. ``frames`` is a video's length at the sandbox's rate."""

    role: Role
    path: Path
    sha256: str
    content_type: str
    width: int
    height: int
    operation: Operation | None = None
    frames: int = 0

    @property
    def key(self) -> str:
        """What the rendered video depends on."""
        return f"{self.role}/{self.operation or ''}/{self.sha256}"

    def as_json(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "sha256": self.sha256,
            "content_type": self.content_type,
            "width": self.width,
            "height": self.height,
        }


@dataclass(frozen=True, slots=True)
class InputSource:
    """An input as the request names it: bytes with their declared type, or a URL to fetch.

    ``field`` is the field of the request, for error messages.
    """

    role: Role
    field: str
    content: bytes | None = dataclasses.field(default=None, repr=False)
    content_type: str | None = None
    url: str | None = None
    operation: Operation | None = None


class InvalidInput(Exception):
    """An input that cannot be fetched or used."""

    def __init__(self, source: InputSource, reason: str) -> None:
        super().__init__(reason)
        self.source = source
        self.reason = reason


@dataclass(frozen=True, slots=True)
class InputRules:
    """Which inputs a provider accepts, and how it fetches URLs.

    head_first: a HEAD comes before the GET.
    typed: the declared type, or the Content-Type of the URL, must be an accepted one and match the bytes.
    length_required: the reply to a URL must have a Content-Length.
    min_side, max_ratio: limits of a picture's shape, in pixels and as longer side by shorter side.
    """

    image_bytes: int = 16 * MEBIBYTE
    video_bytes: int = 32 * MEBIBYTE
    image_types: frozenset[str] = IMAGE_TYPES
    video_types: frozenset[str] = VIDEO_TYPES
    head_first: bool = False
    typed: bool = True
    length_required: bool = False
    min_side: int = 1
    max_ratio: float = math.inf

    def types(self, role: Role) -> frozenset[str]:
        return self.video_types if role.is_video else self.image_types

    def limit(self, role: Role) -> int:
        return self.video_bytes if role.is_video else self.image_bytes


def source_video(inputs: tuple[Input, ...]) -> Input | None:
    return next((item for item in inputs if item.role is Role.SOURCE_VIDEO), None)


def total_seconds(seconds: float, inputs: tuple[Input, ...]) -> float:
    """The length of the video: an edit is as long as its source, an extension is longer by ``seconds``."""
    source = source_video(inputs)
    if source is None:
        return seconds
    new = round(seconds * FPS) if source.operation is Operation.EXTEND else 0
    return (source.frames + new) / FPS


def decode_data_uri(uri: str) -> tuple[bytes, str] | None:
    """The content and the media type of a data URI; None if it is malformed."""
    head, comma, body = uri.partition(",")
    scheme, _, options = head.partition(":")
    if not comma or scheme.lower() != "data":
        return None
    media_type, *parameters = options.lower().split(";")
    if "base64" not in parameters:
        return unquote_to_bytes(body), media_type
    try:
        return base64.b64decode(body, validate=True), media_type
    except (binascii.Error, ValueError):
        return None


def is_fetchable(url: str, *, addresses: bool = True) -> bool:
    """Whether a URL may be fetched: https, and in the sandbox also plain http to this machine.

    ``addresses``: whether the host may be an IP address; loopback always may.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or not host:
        return False
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return parts.scheme == "https" and (addresses or address is None)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
