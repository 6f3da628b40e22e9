"""Decodes downloads that were encoded although ``identity`` was asked for.

gzip, deflate and aws-chunked are decoded. Other names in ``Content-Encoding`` are no encoding (``utf-8``), or one that
cannot be decoded here: such a body is passed on as it is, and the probe tells whether it is a video.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

from app.providers.aws_chunked import Misframed, unframed

#: A highly compressed body is returned in pieces of this size, so that its receiver can stop at its limit.
PIECE_BYTES = 1024 * 1024
#: Compression adds less than this to what it cannot compress. More is a body made to cost time and yield nothing.
MOST_OVERHEAD_PART = 0.1
MOST_OVERHEAD_BYTES = 1024 * 1024
HEAD_BYTES = 8
AWS_CHUNKED = "aws-chunked"
GZIP_MAGIC = b"\x1f\x8b"
EBML = b"\x1a\x45\xdf\xa3"
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Undecodable(ValueError):
    """The body is damaged, incomplete, or expands to less than it must."""


def codings_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """What ``content-encoding`` names and can be decoded, in the order of decoding."""
    named = [name.strip().lower().removeprefix("x-") for name in headers.get("content-encoding", "").split(",")]
    framing = (AWS_CHUNKED,) if AWS_CHUNKED in named else ()
    compressions = tuple(name for name in named if name in _DETECT)
    # Of several compressions, one could multiply what the other one has multiplied.
    return framing + (compressions if len(compressions) == 1 else ())


async def decoded(body: AsyncIterator[bytes], codings: Iterable[str]) -> AsyncIterator[bytes]:
    """The decoded body, in pieces of at most 1 MiB and constant memory.

    A body that is not encoded, despite its header, is passed on as it is.

    Raises:
        Undecodable
    """
    for coding in codings:
        body = unframed(body) if coding == AWS_CHUNKED else _inflated(body, coding)
    try:
        async for piece in body:
            yield piece
    except Misframed as error:
        raise Undecodable(str(error)) from error


async def _inflated(body: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    head = b""
    async for chunk in body:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    start = _DETECT[coding](head)
    if start is None:
        if head:
            yield head
        async for chunk in body:
            yield chunk
        return
    inflater = _Inflater(start)
    data: bytes | None = head
    while data is not None:
        while data:
            # In a thread: a megabyte takes milliseconds, and one chunk may expand to many.
            piece, data = await asyncio.to_thread(inflater.step, data)
            if piece:
                yield piece
        data = await anext(body, None)
    if not inflater.complete:
        raise Undecodable("the compressed body is incomplete")


class _Inflater:
    """Inflates step by step; several gzip members are one body."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._stream = zlib.decompressobj(window)
        self._received = self._produced = 0

    @property
    def complete(self) -> bool:
        return self._stream.eof

    def step(self, data: bytes) -> tuple[bytes, bytes]:
        """The next piece of output, and the input that is left; neither when this input yields no more."""
        piece = b""
        while data and not piece:
            piece, data = self._inflate(data)
        return piece, data

    def _inflate(self, data: bytes) -> tuple[bytes, bytes]:
        """At most one piece of at most one member, and the input that is left."""
        if self._stream.eof:
            if not (self._window == _GZIP and data.startswith(GZIP_MAGIC[:1])):
                return b"", b""  # padding after the end, which browsers ignore too
            self._stream = zlib.decompressobj(self._window)
        try:
            piece = self._stream.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise Undecodable(f"the compressed body is damaged: {error}") from error
        left = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        self._received += len(data) - len(left)
        self._produced += len(piece)
        if self._received > self._produced * (1 + MOST_OVERHEAD_PART) + MOST_OVERHEAD_BYTES:
            raise Undecodable("the compressed body holds almost nothing")
        return piece, left


def _gzip_window(head: bytes) -> int | None:
    return _GZIP if head.startswith(GZIP_MAGIC) else None


def _deflate_window(head: bytes) -> int | None:
    """``deflate`` is the zlib format (RFC 9110), but some servers send it without zlib's header."""
    if not head or head.startswith(EBML) or (head[:1] == b"\0" and head[4:8].isalnum()):
        return None
    with_header = len(head) > 1 and head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return _ZLIB if with_header else _RAW


_DETECT: dict[str, Callable[[bytes], int | None]] = {"gzip": _gzip_window, "deflate": _deflate_window}
