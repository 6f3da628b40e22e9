"""HTTP below the dialects: parsing of bodies, ordinary replies and broken ones.

The only file that depends on the HTTP server: a reply is *lost* by closing the connection, which ASGI cannot express.
:class:`Severable` adds a function for it to the scope's ``extensions``.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

SEVER = "filmgate.sever"
CHUNK = 64 * 1024
DECLARED_HUGE = 1 << 40
HTML_PAGE = "<!doctype html><title>Please wait</title><h1>Checking your browser</h1><p>This takes a few seconds."


class Severable:
    """ASGI middleware that lets the application close the connection in the middle of a reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # uvicorn's `send` is a method of the request's cycle, and the cycle owns the transport.
            transport = getattr(getattr(send, "__self__", None), "transport", None)
            if transport is not None:
                scope.setdefault("extensions", {})[SEVER] = transport.close
        await self._app(scope, receive, send)


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(content, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")


class LostReply(Response):
    """No reply, or only its first half."""

    def __init__(self, beginning: Response | None = None) -> None:
        super().__init__()
        self._beginning = beginning

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._beginning is not None:
            whole = bytes(self._beginning.body)
            await _start(send, self._beginning.status_code, "application/json", len(whole))
            await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})
        await _sever(scope, receive)


class TruncatedVideo(Response):
    """A video that ends at half of its content-length."""

    def __init__(self, video: Path) -> None:
        super().__init__()
        self._video = video

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole = await asyncio.to_thread(self._video.read_bytes)
        await _start(send, 200, "video/mp4", len(whole))
        await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})
        await _sever(scope, receive)


class EndlessVideo(Response):
    """A video that starts valid and never ends, with or without a declared length."""

    def __init__(self, video: Path, *, declared: bool) -> None:
        super().__init__()
        self._video = video
        self._declared = declared

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        chunk = await asyncio.to_thread(self._video.read_bytes)
        await _start(send, 200, "video/mp4", DECLARED_HUGE if self._declared else None)
        gone = asyncio.create_task(_disconnected(receive))
        left = DECLARED_HUGE
        try:
            while not gone.done() and left > CHUNK:
                await send({"type": "http.response.body", "body": chunk[:CHUNK], "more_body": True})
                left -= len(chunk[:CHUNK])
                chunk = chunk[CHUNK:] or bytes(CHUNK)
                await asyncio.sleep(0)  # a full socket makes `send` wait; a closed one does not
        finally:
            gone.cancel()


def file_reply(path: Path, media_type: str) -> Response:
    """A file; supports Range requests."""
    return FileResponse(path, media_type=media_type)


async def read_json(request: Request) -> Any:
    """The decoded body, or None when it is not JSON."""
    try:
        return json.loads(await request.body())
    except ValueError:
        return None


def is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in {"multipart/form-data", "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file in a form. ``content_type`` is empty if the part states none."""

    content: bytes = field(repr=False)
    content_type: str


async def read_form(request: Request) -> dict[str, Any]:
    """The fields of a form, multipart (RFC 7578) or URL-encoded: text as str, a file as :class:`FormFile`.

    If a name appears twice, the last one counts.
    """
    return dict(await read_parts(request))


async def read_parts(request: Request) -> list[tuple[str, str | FormFile]]:
    """The fields of a form in their order. Of a malformed one, those before the error."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    body = await request.body()
    if kind != "multipart/form-data":
        return list(parse_qsl(body.decode(errors="replace")))
    parts: list[tuple[str, str | FormFile]] = []
    try:
        with PushMultipartParser(options.get("boundary", "")) as parser:
            segment, content = None, bytearray()
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    segment, content = event, bytearray()
                elif event is not None:
                    content += event
                elif segment is not None:
                    parts.append((segment.name or "", _value(segment, bytes(content))))
    except MultipartError:
        pass
    return parts


def _value(segment: MultipartSegment, content: bytes) -> str | FormFile:
    if segment.filename is None:
        return content.decode(errors="replace")
    return FormFile(content, segment.content_type or "")


async def _start(send: Send, status: int, media_type: str, length: int | None) -> None:
    headers = [(b"content-type", media_type.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _sever(scope: Scope, receive: Receive) -> None:
    close = scope.get("extensions", {}).get(SEVER)
    if close is not None:
        close()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
