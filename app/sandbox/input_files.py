"""Reads the inputs of creates: fetches them, checks what they are, and keeps their bytes as files named by digest."""

import asyncio
import hashlib
import io
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import av
from PIL import Image, UnidentifiedImageError

from app.sandbox.fetch import Fetcher
from app.sandbox.frame_rate import FPS
from app.sandbox.inputs import Input, InputRules, InputSource, InvalidInput

MAX_PIXELS = 64 * 1024 * 1024
#: By the name of Pillow's plugin. An MPO is a JPEG with further pictures behind it, as some cameras write them.
FORMATS = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
#: By a word in the name of FFmpeg's demuxer: the types that such a file may be declared as, the usual one first.
CONTAINERS = {
    "mp4": ("video/mp4", "video/quicktime"),
    "webm": ("video/webm", "video/x-matroska"),
    "ogg": ("video/ogg",),
}


class InputFiles:
    """The inputs of one sandbox. Call :meth:`close` at shutdown."""

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._fetcher = Fetcher()

    async def read_all(self, sources: Iterable[InputSource], rules: InputRules) -> list[Input]:
        """The inputs that the sources name, one after the other.

        Raises:
            InvalidInput: one is invalid.
        """
        return [await self.read(source, rules) for source in sources]

    async def read(self, source: InputSource, rules: InputRules) -> Input:
        """The input that a source names.

        Raises:
            InvalidInput: it cannot be fetched, is damaged, or is not acceptable.
        """
        content, declared = source.content, source.content_type
        if content is None:
            content, declared = await self._fetcher.fetch(source, rules)
        if not rules.typed:
            declared = None
        inspect = _video if source.role.is_video else _picture
        return await asyncio.to_thread(self._read, source, content, declared, rules, inspect)

    async def keep(self, content: bytes) -> Path:
        """Keep the bytes as a file."""
        return await asyncio.to_thread(self._keep, hashlib.sha256(content).hexdigest(), content)

    async def close(self) -> None:
        await self._fetcher.close()

    def _read(
        self,
        source: InputSource,
        content: bytes,
        declared: str | None,
        rules: InputRules,
        inspect: Callable[[bytes], "tuple[tuple[str, ...], int, int, int]"],
    ) -> Input:
        try:
            types, width, height, frames = inspect(content)
        except (av.FFmpegError, OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
            raise InvalidInput(source, "The asset is damaged or of an unknown format") from error
        accepted = [kind for kind in types if kind in rules.types(source.role)]
        if not accepted:
            raise InvalidInput(source, f"Unsupported asset type: {types[0]}")
        if declared is not None and declared not in types:
            raise InvalidInput(source, f"The Content-Type {declared} does not match the asset, which is {types[0]}")
        if not source.role.is_video:
            _check_shape(source, width, height, rules)
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._keep(sha256, content)
        return Input(source.role, path, sha256, declared or accepted[0], width, height, source.operation, frames)

    def _keep(self, name: str, content: bytes) -> Path:
        directory = self._directory() / "inputs"
        directory.mkdir(exist_ok=True)
        path = directory / name
        if not path.exists():
            # Two requests may write the same input at once.
            unfinished = path.with_name(f"{name}.{os.getpid()}-{threading.get_ident()}.part")
            unfinished.write_bytes(content)
            unfinished.replace(path)
        return path


def _check_shape(source: InputSource, width: int, height: int, rules: InputRules) -> None:
    if min(width, height) < rules.min_side:
        raise InvalidInput(source, f"The picture is {width}x{height}; a side has at least {rules.min_side} pixels")
    if max(width, height) > rules.max_ratio * min(width, height):
        raise InvalidInput(source, f"The picture is {width}x{height}; its aspect ratio is out of range")


def _picture(content: bytes) -> tuple[tuple[str, ...], int, int, int]:
    """The types, the size and no length. The size is the stored one: the orientation in EXIF is not applied."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata
        try:
            with Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name != "MPO"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError("too many pixels")
                image.load()
                return (FORMATS[image.format or ""],), image.width, image.height, 0
        except (UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ValueError("not a picture") from error


def _video(content: bytes) -> tuple[tuple[str, ...], int, int, int]:
    """The types, the size and the number of frames at the sandbox's rate."""
    with av.open(io.BytesIO(content), "r") as container:
        types = next((kinds for word, kinds in CONTAINERS.items() if word in container.format.name), None)
        if types is None or not container.streams.video:
            raise ValueError("not a video")
        stream = container.streams.video[0]
        first = next(container.decode(stream), None)
        if first is None:
            raise ValueError("a video without frames")
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        else:
            seconds = (container.duration or 0) / av.time_base
        return types, first.width, first.height, max(1, round(seconds * FPS))
