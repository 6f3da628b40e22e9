"""Draws the inputs of a create on the frames of its video. Where everything is, exactly:

*First frame.* Frame 0 is the picture, and nothing else: scaled to cover the video, centred, cropped where it is too
long. The orientation in its EXIF data is not applied, as most providers ignore it. On frame ``n`` its weight is
``1 - n / fade``; from frame ``fade`` on (12 frames, half a second; in a short video less than half of it) only the
usual picture is seen, lettering included.

*Last frame.* The same backwards from the video's last frame.

*References.* Insets in the order of the request, on the usual picture, and fading with it. With ``short`` the shorter
side of the video, an inset is a square of :func:`inset_side` pixels, ``short // 5`` rounded down to an even number, and
:func:`inset_gap` pixels, ``short // 40`` likewise and at least 2, are above, before and between the insets. The first
is in the top left corner; a full row continues in a row below it. A picture covers its square, centred; a reference
video shows its first frame.

*Source video, extend.* The source's frames come first, at the sandbox's rate, scaled to cover the video and without
lettering; there are ``Input.frames`` of them. The new part begins with the source's last frame as its first frame, as
above, and a last frame ends it.

*Source video, edit.* The source's frames, tinted: luma is kept, and each chroma value is the mean of its own and that
of :data:`TINT`. Insets are drawn on them, other pictures are not.
"""

from collections.abc import Iterator

import av
import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.sandbox.frame_rate import FPS
from app.sandbox.inputs import Input, Operation, Role, source_video
from app.sandbox.overlay import pixels_of
from app.sandbox.picture import Shot

FADE = FPS // 2
TINT = (96, 176)  # U and V: a warm orange
SOON = 0.01  # of a frame: times of frames are rounded

Planes = tuple[NDArray[np.uint8], ...]


class Insertions:
    """The inputs of one video. Draw the frames in order."""

    def __init__(self, shot: Shot, frames: int) -> None:
        self._size = size = shot.width, shot.height
        source = source_video(shot.inputs)
        self._source = None if source is None else _frames_of(source, size)
        self._edits = source is not None and source.operation is Operation.EDIT
        self._start = 0 if source is None else source.frames
        self._end = frames - 1
        self._fade = max(1, min(FADE, (self._end - self._start) // 2))
        self._first = _pinned(shot, Role.FIRST_FRAME)
        self._last = _pinned(shot, Role.LAST_FRAME)
        references = [item for item in shot.inputs if item.role in {Role.REFERENCE_IMAGE, Role.REFERENCE_VIDEO}]
        side = inset_side(*size)
        self._insets = [_planes(_still(item), (side, side)) for item in references]

    def draw(self, frame: VideoFrame, number: int) -> None:
        """Draw the inputs on one yuv420p frame, which already shows the usual picture."""
        planes = tuple(pixels_of(plane) for plane in frame.planes)
        if self._source is not None and number < self._start:
            self._first = next(self._source, self._first)
            assert self._first is not None
            _blend(planes, _tinted(self._first) if self._edits else self._first, 1)
            if self._edits:
                self._draw_insets(planes)
            return
        self._draw_insets(planes)
        if self._first is not None:
            _blend(planes, self._first, 1 - (number - self._start) / self._fade)
        if self._last is not None:
            _blend(planes, self._last, 1 - (self._end - number) / self._fade)

    def _draw_insets(self, planes: Planes) -> None:
        for (left, top), inset in zip(inset_places(len(self._insets), *self._size), self._insets, strict=True):
            for scale, plane, part in zip((1, 2, 2), planes, inset, strict=True):
                area = plane[top // scale :, left // scale :][: part.shape[0], : part.shape[1]]
                area[:] = part[: area.shape[0], : area.shape[1]]


def inset_side(width: int, height: int) -> int:
    return min(width, height) // 5 // 2 * 2


def inset_gap(width: int, height: int) -> int:
    return max(2, min(width, height) // 40 // 2 * 2)


def inset_places(count: int, width: int, height: int) -> list[tuple[int, int]]:
    """The left and the top edge of each inset."""
    gap = inset_gap(width, height)
    step = inset_side(width, height) + gap
    columns = (width - gap) // step
    return [(gap + index % columns * step, gap + index // columns * step) for index in range(count)]


def _pinned(shot: Shot, role: Role) -> Planes | None:
    item = next((item for item in shot.inputs if item.role is role), None)
    return None if item is None else _planes(_still(item), (shot.width, shot.height))


def _still(item: Input) -> Image.Image:
    """The picture, or the first frame of a video."""
    if item.role.is_video:
        with av.open(str(item.path)) as container:
            return _image(next(container.decode(video=0)))
    with Image.open(item.path) as image:
        return image.convert("RGB")


def _image(frame: VideoFrame) -> Image.Image:
    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def _planes(image: Image.Image, size: tuple[int, int]) -> Planes:
    """The image as the planes of a frame of this size, which it covers."""
    fitted = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    frame = VideoFrame.from_ndarray(np.asarray(fitted), format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
    return tuple(pixels_of(plane).copy() for plane in frame.planes)


def _frames_of(source: Input, size: tuple[int, int]) -> Iterator[Planes]:
    """The source's frames at the sandbox's rate: at each time the latest frame."""
    with av.open(str(source.path)) as container:
        decoded = container.decode(video=0)
        first = next(decoded)
        planes, coming = _planes(_image(first), size), next(decoded, None)
        for number in range(source.frames):
            shown = None
            while coming is not None and ((coming.time or 0) - (first.time or 0)) * FPS <= number + SOON:
                shown, coming = coming, next(decoded, None)
            if shown is not None:
                planes = _planes(_image(shown), size)
            yield planes


def _tinted(planes: Planes) -> Planes:
    luma, *chroma = planes
    return luma, *((plane // 2 + tint // 2) for plane, tint in zip(chroma, TINT, strict=True))


def _blend(planes: Planes, other: Planes, weight: float) -> None:
    """Mix ``other`` into the planes; it replaces them at a weight of 1, and at 0 or less nothing changes."""
    share = round(weight * 256)
    if share <= 0:
        return
    for plane, new in zip(planes, other, strict=True):
        plane[:] = (plane * np.uint16(256 - share) + new * np.uint16(share)) >> 8
