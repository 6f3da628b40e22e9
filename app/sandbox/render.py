"""Renders a picture to a video file: H.264 in MP4, with the exact number of frames for its length.

:mod:`app.sandbox.insertions` draws the inputs of the create on the frames.
"""

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from app.sandbox.frame_rate import FPS
from app.sandbox.insertions import Insertions
from app.sandbox.picture import Picture, Shot

BT709 = 1
# No B-frames: the first frame has timestamp 0 and the container has the video's length. One thread: reproducible bytes.
X264 = {"preset": "superfast", "crf": "22", "bf": "0", "threads": "1", "g": str(2 * FPS)}


class Stopped(Exception):
    """Rendering was stopped."""


def render(shot: Shot, video: Path, poster: Path, stop: threading.Event) -> Iterator[float]:
    """Write the video and its poster (WebP); yields the progress, from 0 to 1, after each frame.

    Raises:
        Stopped: ``stop`` was set.
        OSError: a file cannot be written.
    """
    picture = Picture(shot)
    frames = max(1, round(shot.seconds * FPS))
    insertions = Insertions(shot, frames) if shot.inputs else None
    with av.open(str(video), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=X264)
        stream.width, stream.height, stream.pix_fmt = shot.width, shot.height, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG
        for number in range(frames):
            if stop.is_set():
                raise Stopped
            frame = av.VideoFrame.from_ndarray(picture.background(number), format="rgb48le").reformat(
                shot.width,
                shot.height,
                "yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=Interpolation.BICUBIC,
            )
            picture.letter(frame, number, frames)
            if insertions is not None:
                insertions.draw(frame, number)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            if number == frames // 2:
                _save_poster(frame, poster)
            container.mux(stream.encode(frame))
            yield (number + 1) / frames
        container.mux(stream.encode(None))


def _save_poster(frame: av.VideoFrame, poster: Path) -> None:
    rgb = frame.to_ndarray(format="rgb24", src_colorspace=Colorspace.ITU709)
    image = Image.fromarray(rgb)
    image.thumbnail((960, 960))
    image.save(poster, format="WEBP", quality=82)
