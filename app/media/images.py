"""Reads still pictures with Pillow: JPEG, PNG and WebP.

A picture is untrusted. Its size is known from its head and checked before any pixel is decoded; then it is decoded
whole, once, so that a damaged one is refused here and not by a provider that was paid. Everything here blocks, and runs
in a subprocess (:mod:`app.media.probe_process`).
"""

import struct
import warnings
from pathlib import Path
from typing import Final

from PIL import ExifTags, Image, UnidentifiedImageError

from app.media.errors import NotPlayable, TooBig
from app.media.info import FileFormat, FileInfo

MAX_SIDE: Final = 16_384
#: Decoded as RGBA it takes 256 MB.
MAX_PIXELS: Final = 64 * 1024 * 1024
#: By the name of Pillow's plugin. An MPO is a JPEG with further pictures behind it, as some cameras write them.
FORMATS: Final = {
    "JPEG": FileFormat.JPEG,
    "MPO": FileFormat.JPEG,
    "PNG": FileFormat.PNG,
    "WEBP": FileFormat.WEBP,
}
#: Values of EXIF's orientation that lay a picture on its side.
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})


def inspect(path: Path) -> FileInfo:
    """The properties of a picture, as it is displayed.

    Raises:
        NotPlayable: damaged, animated, or of another format.
        TooBig: beyond the limits above; nothing was decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata
        Image.MAX_IMAGE_PIXELS = None  # checked here
        try:
            with Image.open(path, formats=[name for name in FORMATS if name != "MPO"]) as image:
                return _inspected(image)
        except UnidentifiedImageError as error:
            raise NotPlayable("it is not a JPEG, PNG or WebP picture") from error
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise NotPlayable("it is a damaged picture", repr(error)) from error


def _inspected(image: Image.Image) -> FileInfo:
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise TooBig(f"The picture is larger than {MAX_PIXELS} pixels, or {MAX_SIDE} on a side: {width}x{height}.")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise NotPlayable("it is animated; send one picture, or a video")
    image.load()
    sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    return FileInfo(
        format=FORMATS[image.format or ""],
        width=height if sideways else width,
        height=width if sideways else height,
    )
