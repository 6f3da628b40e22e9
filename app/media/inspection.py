"""Inspects a file that a caller gives: what it is, decided by its bytes, and whether it can be read.

Names and declared types are not believed. Everything here blocks, and runs in a subprocess
(:mod:`app.media.probe_process`).
"""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Final

from app.media import containers, images, sounds, video
from app.media.decode_budget import DecodeBudget
from app.media.errors import NotPlayable
from app.media.info import FileFormat, FileInfo

HEAD_BYTES: Final = 64
UNKNOWN: Final = "it is none of the accepted formats: JPEG, PNG, WebP; MP4, QuickTime, WebM, Matroska; MP3, WAV, M4A"
_PICTURES: Final = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)
#: Pictures in the container of MP4, as telephones write them.
_STILLS: Final = re.compile(rb"....ftyp(avif|avis|heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)
_SOUNDS: Final = {
    FileFormat.WAV: re.compile(rb"RIFF....WAVE", re.DOTALL),
    # An ID3 tag, or the first frame: eleven bits of sync, a version and a layer that exist.
    FileFormat.MP3: re.compile(rb"ID3[\x02-\x04]|\xff[\xf2\xf3\xfa\xfb]", re.DOTALL),
    FileFormat.M4A: re.compile(rb"....ftyp(M4A |M4B |F4A )", re.DOTALL),
}


def inspect(path: Path, budget: DecodeBudget) -> FileInfo:
    """
    Raises:
        NotPlayable: of no accepted format, damaged, animated, or without content. ``reason`` begins with "it".
        TooBig: more pixels or seconds than are accepted.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if _PICTURES.match(head):
        return images.inspect(path)
    for format_, pattern in _SOUNDS.items():
        if pattern.match(head):
            return sounds.inspect(path, format_)
    if _STILLS.match(head):
        raise NotPlayable("it is a HEIC or AVIF picture; send a JPEG, PNG or WebP")
    with path.open("rb") as file:
        try:
            containers.detect(file)
        except NotPlayable:
            raise NotPlayable(UNKNOWN) from None
    found = asdict(video.probe(path, budget))
    format_ = FileFormat(found.pop("container"))
    del found["codec"]
    return FileInfo(format=format_, **found)
