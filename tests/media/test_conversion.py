"""A picture is made what a provider gets: upright, of the size and the format that is asked for, and nothing beside."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from app.media.errors import NotPlayable
from app.media.images import convert
from app.media.info import Conversion, FileFormat

SIZE = (96, 64)
RED = (200, 30, 30)
PLENTY = 10_000_000


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    return saved(Image.new("RGB", SIZE, RED).convert(mode), "JPEG", **options)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    target = BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def with_exif(turned: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = turned, "a camera"
    return saved(Image.new("RGB", SIZE, RED), "JPEG", exif=exif)


def with_text() -> bytes:
    said = PngImagePlugin.PngInfo()
    said.add_text("Author", "somebody")
    return saved(Image.new("RGB", SIZE, RED), "PNG", pnginfo=said)


def half_clear() -> bytes:
    image = Image.new("RGBA", SIZE, (*RED, 255))
    image.paste((0, 0, 0, 0), (0, 0, 48, 64))
    return saved(image, "PNG")


def deep() -> bytes:
    return saved(Image.new("I;16", SIZE, 0x8000), "PNG")


def converted(tmp_path: Path, content: bytes, wanted: Conversion) -> Image.Image | None:
    """The picture that is written; None if nothing had to be."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    if not convert(source, target, wanted):
        assert not target.exists()
        return None
    with Image.open(target) as image:
        image.load()
        return image


def to(format_: FileFormat, size: tuple[int, int] = SIZE, max_bytes: int = PLENTY) -> Conversion:
    return Conversion(format_, *size, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        (jpeg(), FileFormat.JPEG),
        (saved(Image.new("RGB", SIZE, RED), "PNG"), FileFormat.PNG),
        (saved(Image.new("RGB", SIZE, RED), "WEBP"), FileFormat.WEBP),
        (jpeg(progressive=True), FileFormat.JPEG),
        (jpeg("L"), FileFormat.JPEG),
    ],
    ids=["JPEG", "PNG", "WebP", "progressive", "grey"],
)
def test_what_is_as_asked_is_not_written_anew(tmp_path: Path, content: bytes, format_: FileFormat) -> None:
    assert converted(tmp_path, content, to(format_)) is None


@pytest.mark.parametrize("make", [with_exif, with_text], ids=lambda make: make.__name__)
def test_what_was_written_beside_the_pixels_is_gone(tmp_path: Path, make: Callable[[], bytes]) -> None:
    content = make()
    format_ = FileFormat.JPEG if content[:2] == b"\xff\xd8" else FileFormat.PNG
    image = converted(tmp_path, content, to(format_))
    assert image is not None
    assert not image.getexif()
    assert "Author" not in image.info
    assert b"somebody" not in (tmp_path / "target").read_bytes()
    assert b"a camera" not in (tmp_path / "target").read_bytes()


@pytest.mark.parametrize("turned", range(2, 9))
def test_a_picture_is_turned_upright(tmp_path: Path, turned: int) -> None:
    """By EXIF's orientation: the corner that was the upper left one is somewhere else."""
    size = (64, 96) if turned >= 5 else SIZE
    image = converted(tmp_path, with_exif(turned), to(FileFormat.JPEG, size))
    assert image is not None
    assert image.size == size


@pytest.mark.parametrize(
    ("content", "color"),
    [
        (jpeg("CMYK"), RED),  # which no provider is known to read, and PNG and WebP cannot hold
        (saved(Image.new("RGB", SIZE, RED).quantize(4), "PNG"), RED),
        (deep(), (128, 128, 128)),
        (saved(Image.new("1", SIZE, 1), "PNG"), (255, 255, 255)),
        (saved(Image.new("LA", SIZE, (90, 255)), "PNG"), (90, 90, 90)),
    ],
    ids=["CMYK", "palette", "16 bits", "black and white", "grey with alpha"],
)
@pytest.mark.parametrize("format_", [FileFormat.JPEG, FileFormat.PNG, FileFormat.WEBP])
def test_every_kind_of_pixels_can_be_scaled_and_keeps_its_colour(
    tmp_path: Path, content: bytes, color: tuple[int, int, int], format_: FileFormat
) -> None:
    image = converted(tmp_path, content, to(format_, (32, 32)))
    assert image is not None
    assert image.size == (32, 32)
    shown = image.convert("RGB").getpixel((16, 16))
    assert isinstance(shown, tuple)
    assert max(abs(one - other) for one, other in zip(shown, color, strict=True)) < 16


def test_what_is_transparent_becomes_white_in_a_format_without_alpha(tmp_path: Path) -> None:
    image = converted(tmp_path, half_clear(), to(FileFormat.JPEG))
    assert image is not None
    left, right = image.getpixel((8, 32)), image.getpixel((88, 32))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert min(left) > 240
    assert max(right[1:]) < 60


def test_a_picture_is_cut_around_its_centre(tmp_path: Path) -> None:
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste(RED, (100, 0, 200, 100))
    image = converted(tmp_path, saved(wide, "PNG"), to(FileFormat.PNG, (50, 50)))
    assert image is not None
    for corner in ((2, 25), (47, 25)):
        shown = image.getpixel(corner)
        assert isinstance(shown, tuple)
        assert max(abs(one - other) for one, other in zip(shown, RED, strict=True)) < 4


def test_a_picture_becomes_small_enough_or_is_refused(tmp_path: Path) -> None:
    noise = Image.effect_noise((400, 400), 100)
    small = converted(tmp_path, saved(noise, "PNG"), to(FileFormat.JPEG, (400, 400), 20_000))
    assert small is not None
    assert small.size == (200, 200)
    assert (tmp_path / "target").stat().st_size <= 20_000
    with pytest.raises(NotPlayable, match="at most 500 bytes"):
        converted(tmp_path, saved(noise, "PNG"), to(FileFormat.JPEG, (400, 400), 500))
