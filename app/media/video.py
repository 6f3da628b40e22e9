"""Probes a video and checks that it plays, with PyAV (FFmpeg).

The file is untrusted, so FFmpeg's options are fixed. :mod:`app.media.containers` selects one of two demuxers. FFmpeg
gets an open file and may use no protocol and open nothing else. Pixels, seconds and packets are bounded, and so is what
is decoded (:mod:`app.media.decode_budget`): a video that exhausts its budget is accepted on what was decoded of it.

Everything here blocks, and FFmpeg is large, so it runs in a subprocess (:mod:`app.media.probe_process`).
"""

from __future__ import annotations

from collections import defaultdict, deque
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
from av.video.stream import VideoStream

from app.media import containers
from app.media.decode_budget import FIRST_PACKETS, DecodeBudget
from app.media.errors import NotPlayable, TooBig, of_os_error
from app.media.info import Container, PosterInfo, VideoInfo
from app.media.pictures import displayed, jpeg_of, save_png

MAX_SIDE = 8192
MAX_SECONDS = 3600
MAX_PACKETS = 2_000_000
OPEN_SECONDS = 30
# The most packets decoded to reach one frame: half a minute of video.
DECODE_PACKETS = 900
MAX_BLANK_SECONDS = 1
#: The part of the budget that the check of the end may use; the rest is for the poster.
CHECK_PART = 0.5
READ_BYTES = 256 * 1024
UNKNOWN_PROTOCOL = "none"


_DEMUXERS = {
    Container.MP4: "mov",
    Container.QUICKTIME: "mov",
    Container.WEBM: "matroska",
    Container.MATROSKA: "matroska",
}


def probe(path: Path, budget: DecodeBudget | None = None) -> VideoInfo:
    """The properties of a video. Reads every packet; decodes the first frame and, within the budget, one near the end.

    Raises:
        NotPlayable: not an accepted format, truncated, without a video stream, or not decodable.
        TooBig: beyond the limits above.
    """
    budget = budget or DecodeBudget()
    with _opened(path) as (container, source):
        video = _video(source)
        extent = _measure(source, video, budget)
        _check_late_frame(source, video, extent, budget)
        rate = video.average_rate
        width, height = displayed(extent.first, video.sample_aspect_ratio)
        return VideoInfo(
            container=container,
            codec=video.codec_context.codec.canonical_name,
            width=width,
            height=height,
            seconds=round(extent.seconds, 3),
            frame_rate=round(float(rate) if rate else extent.frames / extent.seconds, 3),
            has_audio=bool(source.streams.audio),
        )


def poster(path: Path, budget: DecodeBudget | None = None) -> PosterInfo:
    """A JPEG of the frame a third into the video, its longest side at most 1,280 pixels.

    It is an earlier frame if the budget does not reach that far.

    Raises:
        NotPlayable: no frame can be decoded.
    """
    budget = budget or DecodeBudget()
    try:
        return _poster_at(path, 1 / 3, budget)
    except NotPlayable:
        return _poster_at(path, 0, budget)


def still(path: Path, target: Path, *, last: bool, budget: DecodeBudget | None = None) -> None:
    """Write the first or the last frame of a video as a PNG, as it is displayed.

    Raises:
        NotPlayable: it cannot be decoded, or it takes too much.
    """
    budget = budget or DecodeBudget()
    with _opened(path) as (_, source):
        video = _video(source)
        if last:
            source.seek(_measure(source, video, budget).last_key, stream=video)
        frames = _frames(source, video, budget)
        wanted = deque(frames if last else islice(frames, 1), maxlen=1)
        if not wanted or (last and budget.exhausted()):
            raise NotPlayable("its frame cannot be decoded")
        save_png(wanted[0], video.sample_aspect_ratio, target)


@dataclass(frozen=True, slots=True)
class _Extent:
    """The frames of a stream. ``last`` and ``last_key`` are presentation times in the stream's time base."""

    first: VideoFrame
    frames: int
    seconds: float
    last: int
    last_key: int


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Container, InputContainer]]:
    with path.open("rb") as file:
        container = containers.detect(file)
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
            raise NotPlayable("it is damaged, or not of the format that it claims", repr(error)) from error
        except OSError as error:
            raise of_os_error(error) from error


def _video(source: InputContainer) -> VideoStream:
    video = next((stream for stream in source.streams.video if not stream.disposition.value & _STILL), None)
    if video is None or video.codec_context is None:
        raise NotPlayable("it has no video stream that can be decoded")
    if not (0 < video.width <= MAX_SIDE and 0 < video.height <= MAX_SIDE):
        raise TooBig(f"The video is larger than {MAX_SIDE}x{MAX_SIDE} pixels.")
    if (source.duration or 0) > MAX_SECONDS * av.time_base:
        raise TooBig(f"The video is longer than {MAX_SECONDS} seconds.")
    video.codec_context.thread_count = 1  # memory grows with every thread
    video.codec_context.options = {"max_pixels": str(MAX_SIDE**2)}
    return video


_STILL = av.stream.Disposition.attached_pic.value


class _TimeSpan:
    """The span of the packets of one stream, in seconds."""

    def __init__(self) -> None:
        self.start: Fraction | None = None
        self.end = Fraction(0)

    def add(self, begin: Fraction, length: Fraction) -> None:
        self.start = begin if self.start is None else min(self.start, begin)
        self.end = max(self.end, begin + length)


def _measure(source: InputContainer, video: VideoStream, budget: DecodeBudget) -> _Extent:
    """Read every packet; decode up to the first frame."""
    spans: defaultdict[int, _TimeSpan] = defaultdict(_TimeSpan)
    first: VideoFrame | None = None
    frames = last = last_key = 0
    for packet in _packets(source):
        if (
            packet.stream_index == video.index
            and first is None
            and frames < DECODE_PACKETS
            and (frames < FIRST_PACKETS or not budget.exhausted())
        ):
            first = next(iter(_decoded(video, packet, budget)), None)
        if packet.pts is None:
            continue
        spans[packet.stream_index].add(packet.pts * packet.time_base, (packet.duration or 0) * packet.time_base)
        if packet.stream_index == video.index:
            frames += 1
            last = max(last, packet.pts)
            last_key = packet.pts if packet.is_keyframe else last_key
    _check_duration(source, spans.values())
    span = spans[video.index]
    if first is None or (first.pts is not None and first.time - (span.start or 0) > MAX_BLANK_SECONDS):
        raise NotPlayable("its beginning cannot be decoded")
    seconds = float(span.end - (span.start or 0))
    if seconds <= 0:
        raise NotPlayable("it has no length")
    if seconds > MAX_SECONDS:
        raise TooBig(f"The video is longer than {MAX_SECONDS} seconds.")
    return _Extent(first=first, frames=frames, seconds=seconds, last=last, last_key=last_key)


def _packets(source: InputContainer) -> Iterator[Packet[Stream]]:
    for number, packet in enumerate(source.demux()):
        if number > MAX_PACKETS:
            raise TooBig(f"The video has more than {MAX_PACKETS} packets.")
        if packet.is_corrupt:
            raise NotPlayable("it is truncated")
        yield packet


def _check_duration(source: InputContainer, spans: Collection[_TimeSpan]) -> None:
    """Compare the packets with the header, which states the whole duration even in a truncated file."""
    claimed = (source.duration or 0) / av.time_base
    start = min((span.start for span in spans if span.start is not None), default=Fraction(0))
    found = float(max((span.end for span in spans), default=start) - start)
    if claimed - found > 0.5 + claimed * 0.02:
        raise NotPlayable("it is truncated", f"{found:.1f} of {claimed:.1f} seconds found")


def _check_late_frame(source: InputContainer, video: VideoStream, extent: _Extent, budget: DecodeBudget) -> None:
    """Decode from the last key frame to half way between it and the last frame, or until the budget is spent."""
    goal = (extent.last_key + extent.last) // 2
    source.seek(extent.last_key, stream=video)
    decoded = 0
    for frame in _frames(source, video, budget, CHECK_PART):
        decoded += 1
        if frame.pts is None or frame.pts >= goal:
            return
    if not decoded or not (budget.exhausted(CHECK_PART) or extent.frames > DECODE_PACKETS):
        raise NotPlayable("its end cannot be decoded")


def _poster_at(path: Path, part: float, budget: DecodeBudget) -> PosterInfo:
    """The poster from the frame at that fraction of the video, or the nearest decodable one before it."""
    with _opened(path) as (_, source):
        video = _video(source)
        goal = ((source.start_time or 0) + (source.duration or 0) * part) / av.time_base
        if part:
            source.seek(int(goal * av.time_base))
        frame = None
        for frame in _frames(source, video, budget):
            if not part or frame.pts is None or frame.time >= goal:
                break
        if frame is None:
            raise NotPlayable("no frame of it can be decoded")
        return jpeg_of(frame, video.sample_aspect_ratio)


def _frames(source: InputContainer, video: VideoStream, budget: DecodeBudget, part: float = 1) -> Iterator[VideoFrame]:
    """The decodable frames from the current position on, until that part of the budget is spent."""
    found = False
    for number, packet in enumerate(islice(source.demux(video), DECODE_PACKETS)):
        if (found or number >= FIRST_PACKETS) and budget.exhausted(part):
            return
        for frame in _decoded(video, packet, budget):
            found = True
            yield frame


def _decoded(video: VideoStream, packet: Packet[Any], budget: DecodeBudget) -> Sequence[VideoFrame]:
    """The frames that a packet completes; none for a corrupt packet, which players skip too."""
    try:
        frames = video.decode(packet)
    except av.InvalidDataError:
        frames = []
    # After decoding: the stream itself states the size of its pictures, and may change it.
    budget.spend(video.width * video.height * max(1, len(frames)))
    return frames
