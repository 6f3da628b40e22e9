"""Pictures as they are displayed: with the rotation and the pixel shape that the container states.

Phones record lying pictures with a display matrix that says how to turn them, and some encoders make pixels that are
not square. Players follow both, so sizes and posters do too.
"""

from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from app.media.info import PosterInfo

POSTER_SIDE = 1280
#: Encoders round: 854x480 with pixels of 1280:1281 is meant to be 16:9, and to be shown as 854x480.
SQUARE_TOLERANCE = Fraction(1, 100)
#: Pixels beyond this shape, in either direction, are an error or an attack.
MAX_PIXEL_SHAPE = 8
#: FFmpeg's numbers of colour spaces.
BT709, UNSPECIFIED = 1, 2
HIGH_DEFINITION = 720


def displayed(frame: VideoFrame, pixel_shape: Fraction | None) -> tuple[int, int]:
    """Width and height in which players show a frame. ``pixel_shape``: the width of a pixel divided by its height."""
    width, height = _unrotated(frame, pixel_shape)
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


def jpeg_of(frame: VideoFrame, pixel_shape: Fraction | None) -> PosterInfo:
    """A frame as it is displayed, its longest side at most 1,280 pixels."""
    width, height = _unrotated(frame, pixel_shape)
    scale = min(1.0, POSTER_SIDE / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    still = frame.reformat(width, height, format="yuv420p", dst_color_range=ColorRange.JPEG)
    still = _turned(still, _quarter_turns(frame))
    still.pts, still.time_base = 0, Fraction(1)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = still.width, still.height, "yuv420p"
    encoder.time_base, encoder.color_range = Fraction(1), ColorRange.JPEG
    encoder.options = {"qmin": "2", "qmax": "4"}
    jpeg = b"".join(bytes(packet) for packet in [*encoder.encode(still), *encoder.encode()])
    return PosterInfo(jpeg=jpeg, width=still.width, height=still.height)


def save_png(frame: VideoFrame, pixel_shape: Fraction | None, target: Path) -> None:
    """Write a frame as it is displayed, in all its pixels."""
    width, height = _unrotated(frame, pixel_shape)
    # What the stream does not say, players assume by the size.
    high = frame.colorspace == BT709 or (frame.colorspace == UNSPECIFIED and frame.height >= HIGH_DEFINITION)
    space = Colorspace.ITU709 if high else Colorspace.ITU601
    pixels = frame.reformat(width, height, "rgb24", src_colorspace=space).to_ndarray()
    turns = _quarter_turns(frame)
    image = Image.fromarray(pixels)
    (image.rotate(90 * turns, expand=True) if turns else image).save(target, "PNG", compress_level=1)


def _unrotated(frame: VideoFrame, pixel_shape: Fraction | None) -> tuple[int, int]:
    shape = pixel_shape or Fraction(1)
    if abs(shape - 1) <= SQUARE_TOLERANCE or not 1 <= max(shape, 1 / shape) <= MAX_PIXEL_SHAPE:
        return frame.width, frame.height
    return max(1, round(frame.width * shape)), frame.height


def _quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise quarter turns from the stored picture to the displayed one, 0 to 3."""
    return round(frame.rotation / 90) % 4


def _turned(frame: VideoFrame, turns: int) -> VideoFrame:
    if not turns:
        return frame
    width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    turned = VideoFrame(width, height, "yuv420p")
    turned.color_range = ColorRange.JPEG
    for source, target in zip(frame.planes, turned.planes, strict=True):
        rows = _turned_rows(_pixels(source), source.width, turns)
        padding = bytes(target.line_size - target.width)
        target.update(b"".join(row + padding for row in rows))
    return turned


def _pixels(plane: VideoPlane) -> bytes:
    """The bytes of a plane, one for each pixel, without the padding of its lines."""
    data, step = bytes(plane), plane.line_size
    return b"".join(data[start : start + plane.width] for start in range(0, step * plane.height, step))


def _turned_rows(pixels: bytes, width: int, turns: int) -> list[bytes]:
    if turns == 2:
        return [pixels[start : start + width][::-1] for start in range(len(pixels) - width, -1, -width)]
    # A column becomes a row: the last column is the first row of a counter-clockwise turn.
    columns = [pixels[column::width] for column in range(width)]
    return columns[::-1] if turns == 1 else [column[::-1] for column in columns]
