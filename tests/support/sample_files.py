"""Small real files of the kinds that callers give."""

import struct
import zlib
from functools import cache
from io import BytesIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from PIL import Image

SIZE = (96, 64)
RATE = 44_100
#: Codec, form of samples, and FFmpeg's name of the container.
CODECS = {"wav": ("pcm_s16le", "s16", "wav"), "mp3": ("libmp3lame", "s16p", "mp3"), "m4a": ("aac", "fltp", "ipod")}


@cache
def picture(kind: str = "JPEG", *, size: tuple[int, int] = SIZE, color: str = "teal", turned: int = 1) -> bytes:
    """A picture of one colour. ``turned`` is EXIF's orientation: 6 for a phone that was held upright, 1 for no EXIF."""
    target = BytesIO()
    image = Image.new("RGB", size, color)
    exif = Image.Exif()
    exif[0x0112] = turned
    image.save(target, kind, **({} if turned == 1 else {"exif": exif}))
    return target.getvalue()


@cache
def animation(kind: str) -> bytes:
    """Three pictures, one after the other."""
    target = BytesIO()
    first, *others = (Image.new("RGB", SIZE, color) for color in ("red", "green", "blue"))
    first.save(target, kind, save_all=True, append_images=others, duration=100)
    return target.getvalue()


def huge_picture(side: int = 30_000) -> bytes:
    """A PNG of some hundred bytes that claims ``side`` by ``side`` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + name + data + struct.pack("!I", zlib.crc32(name + data))

    head = struct.pack("!IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@cache
def sound(container: str = "wav", *, seconds: float = 1) -> bytes:
    """Silence."""
    target = BytesIO()
    codec, layout, name = CODECS[container]
    with av.open(target, "w", format=name) as output:
        stream = output.add_stream(codec, rate=RATE)
        assert isinstance(stream, AudioStream)
        stream.layout = "mono"
        samples = stream.codec_context.frame_size or 1024
        for number in range(int(RATE * seconds) // samples):
            frame = AudioFrame(layout, "mono", samples)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts = RATE, number * samples
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return target.getvalue()
