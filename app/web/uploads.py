"""Reads the one file of a ``multipart/form-data`` request as it arrives, without a temporary file."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from app.errors import FieldError, InvalidRequest, TooSlow, Unavailable

PART = "file"
MULTIPART = "multipart/form-data"
MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Upload:
    """``name`` is what the client calls the file. ``chunks`` is read once, and raises as :func:`uploaded` does."""

    name: str | None
    chunks: AsyncIterator[bytes]


def media_type(content_type: str) -> str:
    """Of a Content-Type, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


async def uploaded(request: Request, *, timeout: float) -> Upload:
    """The file of the request, which must arrive within ``timeout`` seconds.

    Raises:
        InvalidRequest: not exactly one part, named ``file``; or not multipart at all.
        TooSlow: it does not arrive in time.
        Unavailable: the client has gone.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    if not options.get("boundary"):
        raise _refused("is not valid multipart/form-data: its Content-Type has no boundary")
    try:
        parser = PushMultipartParser(options["boundary"], max_segment_count=2, strict=True)
    except MultipartError as error:
        raise _refused(f"is not valid multipart/form-data: {error}") from error
    events = _events(request, parser, asyncio.get_running_loop().time() + timeout, timeout)
    first = await anext(events, None)
    if not isinstance(first, MultipartSegment) or first.name != PART or first.filename is None:
        raise _refused(f"must have one part, named `{PART}`, with a file name")
    return Upload(_name(first.filename), _chunks(events))


async def _chunks(events: "AsyncIterator[MultipartSegment | bytes | bytearray | None]") -> AsyncIterator[bytes]:
    async for event in events:
        if event is None:
            break
        assert not isinstance(event, MultipartSegment)
        yield bytes(event)
    async for _ in events:
        raise _refused(f"must have no part beside `{PART}`")


async def _events(
    request: Request, parser: PushMultipartParser, deadline: float, seconds: float
) -> "AsyncIterator[MultipartSegment | bytes | bytearray | None]":
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(stream, b"")
            if not chunk:
                break
            for event in parser.parse(chunk):
                yield event
        parser.close()
    except TimeoutError:
        raise TooSlow(f"The file did not arrive within {seconds:g} seconds.") from None
    except ClientDisconnect:
        raise Unavailable("The client has gone.") from None
    except MultipartError as error:
        raise _refused(f"is not valid multipart/form-data: {error}") from error


def _name(text: str) -> str | None:
    """The last part of what may be a path; None if nothing printable is left."""
    name = text.replace("\\", "/").rpartition("/")[2].strip()
    return name[:MAX_NAME] if name and name.isprintable() else None


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(f"The body {message}.", [FieldError("body", "invalid_upload", message)])
