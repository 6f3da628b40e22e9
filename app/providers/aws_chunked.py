"""Removes the framing of ``aws-chunked`` bodies.

S3 removes it from an upload and may keep the name in ``Content-Encoding``. Some stores that imitate S3 keep the framing
too, and return the object with a hexadecimal size before each chunk and a signature or a checksum after the last:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
"""

import re
from collections.abc import AsyncIterator

#: A chunk is at least this long, unless it is the last: smaller ones would only cost time.
SMALLEST_CHUNK = 8192
LONGEST_LINE = 256
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;chunk-signature=[0-9a-f]{64})?\r\n")


class Misframed(ValueError):
    """The framing is damaged or incomplete."""


async def unframed(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body without its framing; a body that has none is passed on as it is. Memory is constant.

    Raises:
        Misframed
    """
    source = _Source(body)
    line = await source.line()
    if not _SIZE_LINE.fullmatch(line):
        if line:
            yield line
        async for piece in source.rest():
            yield piece
        return
    short = False
    while size := _size_of(line):
        if short:
            raise Misframed("the aws-chunked body has a short chunk")
        short = size < SMALLEST_CHUNK
        async for piece in source.exactly(size):
            yield piece
        if await source.line() != b"\r\n":
            raise Misframed("the aws-chunked body is damaged")
        line = await source.line()


def _size_of(line: bytes) -> int:
    found = _SIZE_LINE.fullmatch(line)
    if found is None:
        raise Misframed("the aws-chunked body is damaged or incomplete")
    return int(found[1], 16)


class _Source:
    """A body that is read by lines and by lengths."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._held = b""

    async def line(self) -> bytes:
        """Up to the next line feed, inclusive, or as much as a line may have."""
        while b"\n" not in self._held[:LONGEST_LINE] and len(self._held) < LONGEST_LINE:
            more = await anext(self._body, None)
            if more is None:
                break
            self._held += more
        end = self._held.find(b"\n", 0, LONGEST_LINE) + 1 or LONGEST_LINE
        line, self._held = self._held[:end], self._held[end:]
        return line

    async def exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            piece = self._held or await anext(self._body, b"")
            if not piece:
                raise Misframed("the aws-chunked body is incomplete")
            yield piece[:size]
            self._held = piece[size:]
            size -= len(piece[:size])

    async def rest(self) -> AsyncIterator[bytes]:
        if self._held:
            yield self._held
        async for piece in self._body:
            yield piece
