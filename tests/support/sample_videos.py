"""Small real videos for tests, made once each, and what passes for one."""

import random
import tempfile
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

SAMPLE_RATE = 48_000
SAMPLES = 960
CODECS = {
    "mp4": ("libx264", "aac"),
    "mov": ("libx264", "aac"),
    "webm": ("libvpx", "libopus"),
    "mkv": ("libx264", "aac"),
}
FORMATS = {"mkv": "matroska"}


@cache
def video(
    *,
    seconds: float = 2,
    width: int = 160,
    height: int = 96,
    rate: int = 12,
    container: str = "mp4",
    audio: bool = False,
    key_every: int = 250,
    index_first: bool = True,
    title: str = "",
    rotation: int = 0,
    pixel_shape: Fraction | None = None,
) -> bytes:
    """A video whose picture brightens from left to right and moves. ``index_first``: the moov is before the data.

    ``rotation`` is what players turn the stored picture by, in degrees, counter-clockwise.
    """
    video_codec, audio_codec = CODECS[container]
    options = {"movflags": "faststart"} if index_first and container in {"mp4", "mov"} else {}
    with (
        tempfile.NamedTemporaryFile(suffix=f".{container}") as file,  # FFmpeg opens it again to move the index
        av.open(file.name, "w", format=FORMATS.get(container, container), options=options) as target,
    ):
        video = target.add_stream(video_codec, rate=rate)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt, video.gop_size = width, height, "yuv420p", key_every
        if rotation:
            video.set_display_rotation(rotation)
        if pixel_shape is not None:
            video.codec_context.sample_aspect_ratio = pixel_shape
        sound = _sound(target, audio_codec) if audio else None
        if title:
            target.metadata["title"] = title
        for number in range(round(seconds * rate)):
            target.mux(video.encode(_picture(width, height, number, rate)))
        target.mux(video.encode())
        if sound is not None:
            _add_silence(target, sound, seconds)
        target.close()
        return Path(file.name).read_bytes()


@cache
def fragmented() -> bytes:
    """A fragmented MP4 of two seconds, as it is streamed: its boxes refer to nothing by a position in the file."""
    file = BytesIO()
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(file, "w", format="mp4", options=options) as target:
        video = target.add_stream("libx264", rate=12)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt, video.gop_size = 160, 96, "yuv420p", 6
        for number in range(24):
            target.mux(video.encode(_picture(160, 96, number, 12)))
        target.mux(video.encode())
    return file.getvalue()


@cache
def still(side: int, frames: int) -> bytes:
    """A video with one key frame whose picture never changes: hundreds of large pictures in a few kilobytes."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as target:
        video = target.add_stream("libx264", rate=24)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt, video.gop_size = side, side, "yuv420p", frames
        video.codec_context.options = {"preset": "ultrafast"}
        picture = VideoFrame(side, side, "yuv420p")
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(frames):
            picture.pts, picture.time_base = number, Fraction(1, 24)
            target.mux(video.encode(picture))
        target.mux(video.encode())
    return file.getvalue()


@cache
def noise(side: int) -> bytes:
    """A video of one picture that is expensive to decode: no two pixels are alike."""
    file = BytesIO()
    source = random.Random(0)
    with av.open(file, "w", format="mp4") as target:
        video = target.add_stream("mpeg4", rate=4)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = side, side, "yuv420p"
        video.codec_context.options = {"qmin": "1", "qmax": "1"}
        picture = VideoFrame(side, side, "yuv420p")
        for plane in picture.planes:
            plane.update(source.randbytes(plane.buffer_size))
        picture.pts, picture.time_base = 0, Fraction(1, 4)
        target.mux(video.encode(picture))
        target.mux(video.encode())
    return file.getvalue()


@cache
def sound_only() -> bytes:
    """An MP4 without a picture."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as target:
        _add_silence(target, _sound(target, "aac"), 1)
    return file.getvalue()


def cut(content: bytes, part: float) -> bytes:
    """The beginning of a file."""
    return content[: int(len(content) * part)]


def with_hole(content: bytes, begin: float, end: float) -> bytes:
    """An MP4 with its index first, whose pictures are all zeros from one part of them to another."""
    data = content.index(b"mdat") + 4
    size = len(content) - data
    first, last = data + int(size * begin), data + int(size * end)
    return content[:first] + bytes(last - first) + content[last:]


def padded(content: bytes, size: int) -> tuple[bytes, int]:
    """An MP4 that goes on with so many bytes of nothing: what comes before them, and how many they are.

    A box of type ``free`` is skipped by every player.
    """
    header = size.to_bytes(4, "big") + b"free"
    return content + header, size - len(header)


def _picture(width: int, height: int, number: int, rate: int) -> VideoFrame:
    picture = VideoFrame(width, height, "yuv420p")
    for plane in picture.planes:
        row = bytes((column * 2 + number * 5) % 256 for column in range(plane.line_size))
        plane.update(row * plane.height)
    picture.pts, picture.time_base = number, Fraction(1, rate)
    return picture


def _sound(target: OutputContainer, codec: str) -> AudioStream:
    sound = target.add_stream(codec, rate=SAMPLE_RATE)
    assert isinstance(sound, AudioStream)
    return sound


def _add_silence(target: OutputContainer, sound: AudioStream, seconds: float) -> None:
    for start in range(0, round(seconds * SAMPLE_RATE), SAMPLES):
        samples = AudioFrame(format="s16", layout="stereo", samples=SAMPLES)
        samples.planes[0].update(bytes(SAMPLES * 4))
        samples.pts, samples.sample_rate, samples.time_base = start, SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        target.mux(sound.encode(samples))
    target.mux(sound.encode())
