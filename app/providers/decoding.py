"""Decodes downloads that were compressed although ``identity`` was asked for.

Only gzip and deflate are decoded. Other names in ``Content-Encoding`` are no compression (``aws-chunked``, ``utf-8``),
or one that cannot be decoded here: such a body is passed on as it is, and the probe tells whether it is a video.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Mapping

#: A highly compressed body is returned in pieces of this size, so that its receiver can stop at its limit.
PIECE_BYTES = 1024 * 1024
#: Compression adds less than this to what it cannot compress. More is a body made to cost time and yield nothing.
MOST_OVERHEAD_PART = 0.1
MOST_OVERHEAD_BYTES = 1024 * 1024
HEAD_BYTES = 8
GZIP_MAGIC = b"\x1f\x8b"
EBML = b"\x1a\x45\xdf\xa3"
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Undecodable(ValueError):
    """The body is damaged, incomplete, or expands to less than it must."""


def coding_of(headers: Mapping[str, str]) -> str | None:
    """The compression that ``content-encoding`` names, if it can be decoded: ``gzip``, ``deflate`` or None."""
    named = [name.strip().lower().removeprefix("x-") for name in headers.get("content-encoding", "").split(",")]
    codings = [name for name in named if name in {"gzip", "deflate"}]
    # Of several, one could multiply what the other one has multiplied.
    return codings[0] if len(codings) == 1 else None


async def decoded(body: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """The decoded body, in pieces of at most 1 MiB and constant memory.

    A body that is not compressed, despite its header, is passed on as it is.

    Raises:
        Undecodable
    """
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
        """At most one piece of output, and the input that is left."""
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
