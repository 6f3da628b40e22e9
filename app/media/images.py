"""Reads still pictures with Pillow: JPEG, PNG and WebP.

A picture is untrusted. Its size is known from its head and checked before any pixel is decoded; then it is decoded
whole, once, so that a damaged one is refused here and not by a provider that was paid. Everything here blocks, and runs
in a subprocess (:mod:`app.media.probe_process`).
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from app.media.errors import NotPlayable, TooBig
from app.media.info import Conversion, FileFormat, FileInfo

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
_PLUGINS: Final = {FileFormat.JPEG: "JPEG", FileFormat.PNG: "PNG", FileFormat.WEBP: "WEBP"}
#: What a picture needs to be shown in its colours; everything else that is written beside the pixels is left out.
_KEPT: Final = frozenset({"icc_profile"})
#: What a file of the format has anyway, and what says nothing of who made it.
_HARMLESS: Final = _KEPT | {
    *("jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "gamma", "srgb", "chromaticity"),
    *("progressive", "progression", "transparency", "interlace", "loop", "background", "timestamp", "duration"),
}
#: Of a JPEG, tried in order until it is small enough.
QUALITIES: Final = (95, 85, 70)
#: How often its sides are halved when that is not enough.
MOST_HALVINGS: Final = 2
#: Values of EXIF's orientation that lay a picture on its side.
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})


def inspect(path: Path) -> FileInfo:
    """The properties of a picture, as it is displayed.

    Raises:
        NotPlayable: damaged, animated, or of another format.
        TooBig: beyond the limits above; nothing was decoded.
    """
    with _opened(path) as image:
        return _inspected(image)


def convert(path: Path, target: Path, conversion: Conversion) -> bool:
    """Write a picture anew: upright, as asked, and without what a camera or a program wrote beside the pixels.

    Returns False, and writes nothing, if it is all that already.

    Raises:
        NotPlayable: also if it cannot be made as small as ``max_bytes``.
        TooBig: as :func:`inspect`.
    """
    with _opened(path) as image:
        _decode(image)
        if _is_as_asked(image, conversion) and path.stat().st_size <= conversion.max_bytes:
            return False
        upright = ImageOps.exif_transpose(_with_full_colors(image))
        size = conversion.width, conversion.height
        if upright.size != size:
            upright = ImageOps.fit(upright, size, Image.Resampling.LANCZOS)
        _save(upright, target, conversion)
        return True


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata
        Image.MAX_IMAGE_PIXELS = None  # checked here
        try:
            with Image.open(path, formats=[name for name in FORMATS if name != "MPO"]) as image:
                yield image
        except UnidentifiedImageError as error:
            raise NotPlayable("it is not a JPEG, PNG or WebP picture") from error
        except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise NotPlayable("it is a damaged picture", repr(error)) from error


def _is_as_asked(image: Image.Image, conversion: Conversion) -> bool:
    return (
        FORMATS[image.format or ""] is conversion.format
        and image.format != "MPO"
        and image.mode != "CMYK"
        and image.size == (conversion.width, conversion.height)
        and not image.getexif()
        and not image.info.keys() - _HARMLESS
    )


def _with_full_colors(image: Image.Image) -> Image.Image:
    """In a mode that can be scaled and written in every format."""
    if image.mode == "CMYK":  # of printers; its profile says nothing of other colours
        image.info.pop("icc_profile", None)
        return image.convert("RGB")
    if image.mode in {"P", "PA", "LA", "1"}:
        return image.convert("RGBA")
    if image.mode.startswith("I"):  # 16 bits
        return image.point(lambda value: value / 256).convert("L")
    return image


def _save(image: Image.Image, target: Path, conversion: Conversion) -> None:
    kept = {name: value for name, value in image.info.items() if name in _KEPT}
    image.info = {}
    if conversion.format is FileFormat.JPEG:
        image = image if image.mode in {"L", "RGB"} else _without_alpha(image)
    lossy = conversion.format is not FileFormat.PNG
    for shrunk in range(MOST_HALVINGS + 1):
        if shrunk:
            image = image.reduce(2)
        for quality in QUALITIES if lossy else QUALITIES[:1]:
            options: dict[str, Any] = {"quality": quality} if lossy else {"optimize": False}
            image.save(target, format=_PLUGINS[conversion.format], **options, **kept)
            if target.stat().st_size <= conversion.max_bytes:
                return
    raise NotPlayable(f"it cannot be written with at most {conversion.max_bytes} bytes; send a smaller picture")


def _without_alpha(image: Image.Image) -> Image.Image:
    """On white, where it is transparent."""
    if image.mode == "RGBA":
        below = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(below, image)
    return image.convert("RGB")


def _inspected(image: Image.Image) -> FileInfo:
    width, height = image.size
    _decode(image)
    sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    return FileInfo(
        format=FORMATS[image.format or ""],
        width=height if sideways else width,
        height=width if sideways else height,
    )


def _decode(image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise TooBig(f"The picture is larger than {MAX_PIXELS} pixels, or {MAX_SIDE} on a side: {width}x{height}.")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise NotPlayable("it is animated; send one picture, or a video")
    image.load()
