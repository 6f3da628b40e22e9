"""The HTTP response that carries a file or a range of it."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import structlog
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from app.errors import Unavailable
from app.media.errors import StorageError
from app.media.ranges import Part, Version, not_modified, wanted
from app.media.storage import Storage

Disposition = Literal["attachment", "inline"]
_DESCRIPTIONS: dict[str, str] = {
    "ETag": "The SHA-256 of the file; send it as `If-None-Match`.",
    "Last-Modified": "When the file was stored.",
    "Accept-Ranges": "`bytes`.",
    "Content-Disposition": "A name for the file.",
}
_HEADERS = {
    name: {"schema": {"type": "string"}, "description": description} for name, description in _DESCRIPTIONS.items()
}
_RANGE = {"schema": {"type": "string"}, "description": "The range and the size of the file: `bytes 0-99/1048576`."}
#: The request headers that :func:`respond` reads, as parameters of the document.
CONDITIONS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
    for name, description in (
        ("If-None-Match", "An `ETag`: if it is still that of the file, the response is a 304 without content."),
        ("Range", "`bytes=0-99`: only these bytes, as a 206."),
    )
]

log = structlog.get_logger()


def documented(content_types: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """The ``responses=`` of a route that ends in :func:`respond`, without its problems."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    # The first is for generators of clients, some of which return nothing for a type that they do not know.
    content = dict.fromkeys(["application/octet-stream", *content_types], binary)
    return {
        200: {"description": "The whole file", "content": content, "headers": _HEADERS},
        206: {
            "description": "The requested range",
            "content": content,
            "headers": {**_HEADERS, "Content-Range": _RANGE},
        },
        304: {"description": "Not modified: the caller has this file already (`If-None-Match`)", "headers": _HEADERS},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a response needs to know of a stored object. ``name`` is the file name that it suggests."""

    object_key: str
    name: str
    content_type: str
    size_bytes: int
    sha256: bytes
    created_at: datetime


async def respond(storage: Storage, content: Content, request: Request, disposition: Disposition) -> Response:
    """The whole file (200), one range of it (206), or "not modified" (304); a HEAD gets only the headers.

    Raises:
        RangeNotSatisfiable: the range begins after the end of the file.
        Unavailable: the storage cannot be read now.
    """
    version = Version(f'"{content.sha256.hex()}"', content.created_at)
    headers = _headers(content, version, disposition)
    if not_modified(request.headers, version):
        return Response(status_code=304, headers=headers)
    # A range is only defined for GET.
    part = wanted(request.headers, version, content.size_bytes) if request.method == "GET" else None
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{content.size_bytes}"
    status = 200 if part is None else 206
    part = part or Part(0, content.size_bytes)
    headers["Content-Length"] = str(part.end - part.start)
    headers["Content-Type"] = content.content_type
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return StreamingResponse(await _opened(storage, content, part), status, headers)


async def _opened(storage: Storage, content: Content, part: Part) -> AsyncIterator[bytes]:
    """The bytes in chunks of at most 1 MiB. The first is read now, while an error can still become an HTTP status."""
    chunks = storage.read(content.object_key, part.start, part.end)
    try:
        first = await anext(chunks)
    except StorageError as error:
        log.error("object not readable", key=content.object_key, error=error.detail)  # noqa: TRY400
        raise Unavailable(error.message) from error
    return _with_first(first, chunks)


async def _with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _headers(content: Content, version: Version, disposition: Disposition) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-transform",
        "Content-Disposition": f'{disposition}; filename="{content.name}"',
        # A browser executes nothing in the file and does not sniff its type.
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
        "ETag": version.etag,
        "Last-Modified": version.last_modified,
    }
