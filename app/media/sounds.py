"""Reads sounds with PyAV (FFmpeg): MP3, WAV, and AAC in MP4. As :mod:`app.media.video` does with videos."""

from itertools import islice
from pathlib import Path
from typing import Final

import av
from av.audio.stream import AudioStream

from app.media.errors import NotPlayable, TooBig, of_os_error
from app.media.info import FileFormat, FileInfo
from app.media.video import MAX_SECONDS, OPEN_SECONDS, READ_BYTES, UNKNOWN_PROTOCOL

MAX_PACKETS: Final = 1_000_000
#: Frames that are decoded to see that it is sound.
DECODED: Final = 50
DEMUXERS: Final = {FileFormat.MP3: "mp3", FileFormat.WAV: "wav", FileFormat.M4A: "mov"}


def inspect(path: Path, format: FileFormat) -> FileInfo:  # noqa: A002  # the field's name
    """The properties of a sound.

    Raises:
        NotPlayable: not of that format, damaged, or without sound.
        TooBig: longer than an hour.
    """
    try:
        with (
            path.open("rb") as file,
            av.open(
                file,
                "r",
                format=DEMUXERS[format],
                options={"protocol_whitelist": UNKNOWN_PROTOCOL},
                metadata_errors="replace",
                buffer_size=READ_BYTES,
                timeout=OPEN_SECONDS,
            ) as source,
        ):
            if not source.streams.audio:
                raise NotPlayable("it has no sound")
            return FileInfo(format=format, seconds=_seconds(source, source.streams.audio[0]), has_audio=True)
    except av.FFmpegError as error:
        raise NotPlayable("it is damaged, or not of the format that it claims", repr(error)) from error
    except OSError as error:
        raise of_os_error(error) from error


def _seconds(source: av.container.InputContainer, sound: AudioStream) -> float:
    sound.codec_context.thread_count = 1
    end = 0.0
    decoded = 0
    for packet in islice(source.demux(sound), MAX_PACKETS):
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if end > MAX_SECONDS:
            raise TooBig(f"The sound is longer than {MAX_SECONDS} seconds.")
        if decoded < DECODED:
            decoded += len(packet.decode())
    if not decoded or not end:
        raise NotPlayable("no sound of it can be decoded")
    return round(end, 3)
