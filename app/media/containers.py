"""Detects the container of a video from its first bytes.

FFmpeg's own detection is not used: it accepts playlists and scripts that refer to other files. Detection only selects
the demuxer; whether the file is a video is then the demuxer's decision.
"""

import re
from typing import IO

from app.media.errors import NotPlayable
from app.media.info import Container

EBML = b"\x1a\x45\xdf\xa3"
HEAD_BYTES = 64
#: The most top-level boxes that are read in search of the brand of a file.
MAX_BOXES = 64
#: Box types are four printable characters.
_BOX_TYPE = re.compile(rb"[ -~]{4}")
#: Boxes that QuickTime files without a brand begin with (QuickTime File Format, "Movie files").
_QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})


def detect(file: IO[bytes]) -> Container:
    """The container of a file, which is read from its beginning.

    Raises:
        NotPlayable: it begins like none of the accepted formats.
    """
    head = file.read(HEAD_BYTES)
    if head.startswith(EBML):
        return Container.WEBM if b"webm" in head else Container.MATROSKA
    boxes = _boxes(file)
    if not boxes:
        raise NotPlayable("it is not an MP4, QuickTime, WebM or Matroska file")
    brand = next((brand for kind, brand in boxes if kind == b"ftyp"), None)
    if brand is None:
        plain = all(kind in _QUICKTIME_BOXES for kind, _ in boxes)
        return Container.QUICKTIME if plain else Container.MP4
    return Container.QUICKTIME if brand == b"qt  " else Container.MP4


def _boxes(file: IO[bytes]) -> list[tuple[bytes, bytes]]:
    """Type and first four bytes of the top-level boxes up to ``ftyp``; none if the file does not begin with a box.

    A file may have other boxes before ``ftyp``, or none at all: a fragment begins with ``styp``, ``sidx`` or ``moof``.
    """
    end = file.seek(0, 2)
    found: list[tuple[bytes, bytes]] = []
    position = 0
    while len(found) < MAX_BOXES:
        file.seek(position)
        header = file.read(16)
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        brand = header[8:12]
        if size == 1:
            size, brand = int.from_bytes(header[8:16], "big"), b""
        elif size == 0:
            size = end - position  # the box reaches to the end of the file
        if size < 8 or not _BOX_TYPE.fullmatch(kind) or (not found and position + size > end):
            break
        found.append((kind, brand))
        position += size
        if kind == b"ftyp":
            break
    return found
