"""What happens to every request, around FastAPI: pure ASGI, because it is on the path of everything.

``Observed`` (outside) gives the request an id, logs and counts its end, adds the headers that every answer has, and has
the last word when something fails. ``BoundedBody`` (inside) reads the body before anything else is done, within a size
and a time, so that a slow client holds nothing but its own socket.

FastAPI's ``max_body_size`` is not used: it stands outside all middleware and answers a declared length that is too
large in plain text, past every handler.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any
from uuid import uuid4

import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TooLarge, TooSlow
from app.infra.metrics import HTTP_SECONDS
from app.settings import ApiSettings
from app.web import problems

log = structlog.get_logger()

UNROUTED = "unrouted"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked for every few seconds by machines: worth counting, not worth a line.
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
# An answer keeps what its route decided about these.
_DEFAULT_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def install(app: FastAPI, settings: ApiSettings) -> None:
    """Puts both around an app."""
    app.add_middleware(BoundedBody, max_bytes=settings.max_body_bytes, timeout=settings.body_timeout)
    app.add_middleware(Observed)


class Observed:
    """Request id, access log, metrics, headers, and a problem for whatever nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _accepted(Headers(scope=scope).get("x-request-id")) or uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        # A connection's tasks may hand their context on to the next request's.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer = _Sender(send, request_id)
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            if answer.status is not None:
                raise  # the server breaks the connection off, which is all that the client can still be told
            await problems.respond(scope, error)(scope, receive, answer.send)
        finally:
            _record(scope, answer.status, perf_counter() - started)


class _Sender:
    """Sends an answer on, with our headers; ``status`` is None until it has begun."""

    __slots__ = ("_request_id", "_send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._with_ours(message.get("headers", ()))}
        await self._send(message)

    def _with_ours(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in headers}
        ours = [header for header in _DEFAULT_HEADERS if header[0] not in present]
        return [*headers, *ours, (b"x-request-id", self._request_id.encode())]


def _accepted(text: str | None) -> str | None:
    return text if text is not None and _REQUEST_ID.fullmatch(text) else None


def _record(scope: Scope, status: int | None, seconds: float) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    route = _template(scope)
    HTTP_SECONDS.labels(method, route, str(status or "none")).observe(seconds)
    write = log.debug if route in _QUIET_ROUTES else log.info
    client = scope.get("client")
    write(
        "request answered" if status else "request dropped",
        method=method,
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
        client=client[0] if client else None,
    )


def _template(scope: Scope) -> str:
    """The path of the route with its parameters unfilled: few values, and no secrets that a path may hold."""
    # An included router's routes do not know their prefix; FastAPI keeps the whole path beside them.
    route: Any = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None) or UNROUTED


class BoundedBody:
    """Hands the app a request whose body has arrived; answers 413 or 408 itself when it does not, and hangs up."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(headers := Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(headers, receive)
        except (TooLarge, TooSlow) as error:
            await self._refuse(error, scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _Arrived(body, receive).receive, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None when the client went away.

        Raises:
            TooLarge, TooSlow
        """
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout):
                while (message := await receive())["type"] == "http.request":
                    body += message.get("body", b"")
                    if len(body) > self._max_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise TooSlow(f"The body of the request did not arrive within {self._timeout:g} seconds.") from None
        return None

    async def _refuse(self, error: TooLarge | TooSlow, scope: Scope, receive: Receive, send: Send) -> None:
        response = problems.respond(scope, error)
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        if isinstance(error, TooLarge):
            await self._discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, receive: Receive) -> None:
        """Reads on for a while after the answer: many clients send all before they listen, and a connection that is
        closed with bytes unread is reset, which takes the answer away from them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                    pass

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body of a request may have at most {self._max_bytes} bytes.")


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class _Arrived:
    """``receive`` of a request whose body has been read already."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
