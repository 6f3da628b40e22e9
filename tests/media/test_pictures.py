"""Sizes and posters are those that players show: turned, and with square pixels."""

import struct
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import pytest
from av.video.frame import VideoFrame

from app.media.video import poster, probe
from tests.support.sample_videos import video

WIDTH, HEIGHT = 64, 34
#: A matrix of 16.16 and 2.30 fixed-point numbers, as in a ``tkhd`` box, which turns clockwise by a quarter.
CLOCKWISE = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)


def on_disk(directory: Path, content: bytes) -> Path:
    path = directory / "video"
    path.write_bytes(content)
    return path


def size(path: Path) -> tuple[int, int]:
    found, made = probe(path), poster(path)
    assert (found.width, found.height) == (made.width, made.height)
    return found.width, found.height


def picture(jpeg: bytes) -> VideoFrame:
    with av.open(BytesIO(jpeg), "r", format="jpeg_pipe") as source:
        return next(source.decode(video=0))


def brightness(jpeg: bytes, x: int, y: int) -> int:
    plane = picture(jpeg).planes[0]
    return bytes(plane)[y * plane.line_size + x]


@pytest.mark.parametrize(
    ("rotation", "shown", "dark", "bright"),
    [
        (0, (WIDTH, HEIGHT), (1, 16), (62, 16)),
        (90, (HEIGHT, WIDTH), (16, 62), (16, 1)),
        (-90, (HEIGHT, WIDTH), (16, 1), (16, 62)),
        (180, (WIDTH, HEIGHT), (62, 16), (1, 16)),
    ],
)
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
def test_a_rotated_video_has_the_size_that_is_shown_and_an_upright_poster(
    tmp_path: Path,
    container: str,
    rotation: int,
    shown: tuple[int, int],
    dark: tuple[int, int],
    bright: tuple[int, int],
) -> None:
    path = on_disk(tmp_path, video(container=container, width=WIDTH, height=HEIGHT, seconds=0.5, rotation=rotation))
    assert size(path) == shown
    jpeg = poster(path).jpeg
    made = picture(jpeg)
    assert (made.width, made.height) == shown
    assert brightness(jpeg, *dark) < 75 < brightness(jpeg, *bright)


def test_the_matrix_of_a_track_rotates_it(tmp_path: Path) -> None:
    content = video(width=WIDTH, height=HEIGHT, seconds=0.5)
    matrix = content.index(b"tkhd") + 44  # after the type: version 0's times, ids, duration, layer and volume
    plain = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert content[matrix : matrix + 36] == plain
    path = on_disk(tmp_path, content[:matrix] + CLOCKWISE + content[matrix + 36 :])
    assert size(path) == (HEIGHT, WIDTH)
    jpeg = poster(path).jpeg
    assert brightness(jpeg, 16, 1) < 75 < brightness(jpeg, 16, 62)


@pytest.mark.parametrize(
    ("pixel_shape", "shown"),
    [
        (Fraction(32, 27), (853, 480)),
        (Fraction(1, 2), (360, 480)),
        (Fraction(1280, 1281), (720, 480)),
        (Fraction(1), (720, 480)),
        (Fraction(255), (720, 480)),
    ],
)
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_pixels_that_are_not_square_scale_the_width(
    tmp_path: Path, container: str, pixel_shape: Fraction, shown: tuple[int, int]
) -> None:
    content = video(container=container, width=720, height=480, seconds=0.25, pixel_shape=pixel_shape)
    assert size(on_disk(tmp_path, content)) == shown


def test_the_box_of_a_track_decides_about_its_pixels(tmp_path: Path) -> None:
    content = video(width=64, height=32, seconds=0.25, pixel_shape=Fraction(4, 3))
    shape = content.index(b"pasp") + 4
    assert content[shape : shape + 8] == struct.pack(">2I", 4, 3)
    assert size(on_disk(tmp_path, content[:shape] + struct.pack(">2I", 2, 1) + content[shape + 8 :])) == (128, 32)
    assert size(on_disk(tmp_path, content[:shape] + bytes(8) + content[shape + 8 :])) == (85, 32)


def test_pixels_are_scaled_before_the_picture_is_rotated(tmp_path: Path) -> None:
    content = video(width=64, height=32, seconds=0.25, pixel_shape=Fraction(2), rotation=90)
    assert size(on_disk(tmp_path, content)) == (32, 128)


@pytest.mark.parametrize(("rotation", "shown"), [(0, (65, 33)), (90, (33, 65)), (180, (65, 33)), (270, (33, 65))])
def test_pictures_of_odd_sizes_are_rotated(tmp_path: Path, rotation: int, shown: tuple[int, int]) -> None:
    content = video(container="webm", width=65, height=33, seconds=0.25, rotation=rotation)
    assert size(on_disk(tmp_path, content)) == shown
