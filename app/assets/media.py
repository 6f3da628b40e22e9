"""What a film is, and that it plays: the one place that knows PyAV (FFmpeg).

The bytes come from outside, so FFmpeg gets no choice. The container is told from the first bytes and must be one of
four; FFmpeg's own guess, which knows playlists and scripts that name other files, is never asked. The film is handed
over as an open file: no protocol may be used and nothing else be opened. Pixels, seconds and packets are bounded.

Everything here blocks, and FFmpeg is large: it runs in a process of its own (:mod:`app.assets.probe_process`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from app.assets.errors import NotPlayable, TooBig, of_os_error
from app.assets.media_info import Container, Film, Poster

MAX_SIDE = 8192
MAX_SECONDS = 3600
MAX_PACKETS = 2_000_000
POSTER_SIDE = 1280
OPEN_SECONDS = 30
# So many packets are decoded at most to reach one picture: half a minute of film.
DECODE_PACKETS = 900
MAX_BLANK_SECONDS = 1
READ_BYTES = 256 * 1024
UNKNOWN_PROTOCOL = "none"


_DEMUXERS = {
    Container.MP4: "mov",
    Container.QUICKTIME: "mov",
    Container.WEBM: "matroska",
    Container.MATROSKA: "matroska",
}


def probe(path: Path) -> Film:
    """What the film is. Every packet is read; the first picture and one near the end are decoded.

    Raises:
        NotPlayable: not such a file, cut off, without a picture, or not decodable.
        TooBig: beyond the bounds above.
    """
    with _opened(path) as (container, source):
        video = _video(source)
        extent = _measure(source, video)
        _check_late_picture(source, video, extent)
        rate = video.average_rate
        return Film(
            container=container,
            codec=video.codec_context.codec.canonical_name,
            width=extent.first.width,
            height=extent.first.height,
            seconds=round(extent.seconds, 3),
            frame_rate=round(float(rate) if rate else extent.pictures / extent.seconds, 3),
            has_audio=bool(source.streams.audio),
        )


def poster(path: Path) -> Poster:
    """A JPEG of the picture a third into the film, its longest side at most 1,280 pixels.

    Raises:
        NotPlayable: no picture can be decoded.
    """
    try:
        return _poster_at(path, 1 / 3)
    except NotPlayable:
        return _poster_at(path, 0)


@dataclass(frozen=True, slots=True)
class _Extent:
    """How far the pictures reach. ``last`` and ``last_key`` are the times of pictures in the stream's own unit."""

    first: VideoFrame
    pictures: int
    seconds: float
    last: int
    last_key: int


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Container, InputContainer]]:
    with path.open("rb") as file:
        container = _container(file.read(64))
        file.seek(0)
        try:
            with av.open(
                file,
                "r",
                format=_DEMUXERS[container],
                options={"max_pixels": str(MAX_SIDE**2), "protocol_whitelist": UNKNOWN_PROTOCOL},
                metadata_errors="replace",
                buffer_size=READ_BYTES,
                timeout=OPEN_SECONDS,
            ) as source:
                yield container, source
        except av.FFmpegError as error:
            raise NotPlayable("it is damaged, or not what it seems to be", repr(error)) from error
        except OSError as error:
            raise of_os_error(error) from error


def _container(head: bytes) -> Container:
    if head[4:8] == b"ftyp":
        return Container.QUICKTIME if head[8:12] == b"qt  " else Container.MP4
    if head[4:8] in {b"moov", b"mdat", b"wide", b"free", b"skip"}:
        return Container.QUICKTIME
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return Container.WEBM if b"webm" in head else Container.MATROSKA
    raise NotPlayable("it is not an MP4, QuickTime, WebM or Matroska file")


def _video(source: InputContainer) -> VideoStream:
    video = next((stream for stream in source.streams.video if not stream.disposition.value & _STILL), None)
    if video is None or video.codec_context is None:
        raise NotPlayable("it has no picture that can be decoded")
    if not (0 < video.width <= MAX_SIDE and 0 < video.height <= MAX_SIDE):
        raise TooBig(f"The film's picture is larger than {MAX_SIDE}x{MAX_SIDE}.")
    if (source.duration or 0) > MAX_SECONDS * av.time_base:
        raise TooBig(f"The film is longer than {MAX_SECONDS} seconds.")
    video.codec_context.thread_count = 1  # memory grows with every thread
    video.codec_context.options = {"max_pixels": str(MAX_SIDE**2)}
    return video


_STILL = av.stream.Disposition.attached_pic.value


class _Reach:
    """From when to when the packets of one stream go, in seconds."""

    def __init__(self) -> None:
        self.start: Fraction | None = None
        self.end = Fraction(0)

    def add(self, begin: Fraction, length: Fraction) -> None:
        self.start = begin if self.start is None else min(self.start, begin)
        self.end = max(self.end, begin + length)


def _measure(source: InputContainer, video: VideoStream) -> _Extent:
    """Read every packet, decode up to the first picture."""
    reaches: defaultdict[int, _Reach] = defaultdict(_Reach)
    first: VideoFrame | None = None
    pictures = last = last_key = 0
    for packet in _packets(source):
        if packet.stream_index == video.index and first is None and pictures < DECODE_PACKETS:
            first = next(iter(_decoded(video, packet)), None)
        if packet.pts is None:
            continue
        reaches[packet.stream_index].add(packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base)
        if packet.stream_index == video.index:
            pictures += 1
            last = max(last, packet.pts)
            last_key = packet.pts if packet.is_keyframe else last_key
    _check_claim(source, reaches.values())
    reach = reaches[video.index]
    if first is None or (first.pts is not None and first.time - (reach.start or 0) > MAX_BLANK_SECONDS):
        raise NotPlayable("its beginning cannot be decoded")
    seconds = float(reach.end - (reach.start or 0))
    if seconds <= 0:
        raise NotPlayable("it has no length")
    if seconds > MAX_SECONDS:
        raise TooBig(f"The film is longer than {MAX_SECONDS} seconds.")
    return _Extent(first=first, pictures=pictures, seconds=seconds, last=last, last_key=last_key)


def _packets(source: InputContainer) -> Iterator[Packet[Stream]]:
    for number, packet in enumerate(source.demux()):
        if number > MAX_PACKETS:
            raise TooBig(f"The film has more than {MAX_PACKETS} packets.")
        if packet.is_corrupt:
            raise NotPlayable("it is cut off")
        yield packet


def _check_claim(source: InputContainer, reaches: Collection[_Reach]) -> None:
    """A file that was cut off still claims its whole length."""
    claimed = (source.duration or 0) / av.time_base
    start = min((reach.start for reach in reaches if reach.start is not None), default=Fraction(0))
    found = float(max((reach.end for reach in reaches), default=start) - start)
    if claimed - found > 0.5 + claimed * 0.02:
        raise NotPlayable("it is cut off", f"{found:.1f} of {claimed:.1f} seconds are there")


def _check_late_picture(source: InputContainer, video: VideoStream, extent: _Extent) -> None:
    """Decode from the last key picture to half way from there to the last one."""
    goal = (extent.last_key + extent.last) // 2
    source.seek(extent.last_key, stream=video)
    decoded = 0
    for picture in _pictures(source, video):
        decoded += 1
        if picture.pts is None or picture.pts >= goal:
            return
    if not decoded or extent.pictures <= DECODE_PACKETS:
        raise NotPlayable("its end cannot be decoded")


def _poster_at(path: Path, part: float) -> Poster:
    """Of the picture at that part of the film, or the nearest before it that can be decoded."""
    with _opened(path) as (_, source):
        video = _video(source)
        goal = ((source.start_time or 0) + (source.duration or 0) * part) / av.time_base
        if part:
            source.seek(int(goal * av.time_base))
        picture = None
        for picture in _pictures(source, video):
            if not part or picture.pts is None or picture.time >= goal:
                break
        if picture is None:
            raise NotPlayable("no picture of it can be decoded")
        return _jpeg(picture)


def _pictures(source: InputContainer, video: VideoStream) -> Iterator[VideoFrame]:
    """What can be decoded from here on."""
    for packet in islice(source.demux(video), DECODE_PACKETS):
        yield from _decoded(video, packet)


def _decoded(video: VideoStream, packet: Packet[Any]) -> Sequence[VideoFrame]:
    """The pictures that a packet completes; none of a broken packet, which players skip too."""
    try:
        return video.decode(packet)
    except av.InvalidDataError:
        return ()


def _jpeg(picture: VideoFrame) -> Poster:
    scale = min(1.0, POSTER_SIDE / max(picture.width, picture.height))
    width, height = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    still = picture.reformat(width, height, format="yuv420p", dst_color_range=ColorRange.JPEG)
    still.pts, still.time_base = 0, Fraction(1)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.color_range = Fraction(1), ColorRange.JPEG
    encoder.options = {"qmin": "2", "qmax": "4"}
    jpeg = b"".join(bytes(packet) for packet in [*encoder.encode(still), *encoder.encode()])
    return Poster(jpeg=jpeg, width=width, height=height)
