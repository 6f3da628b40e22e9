"""Middleware around FastAPI. Pure ASGI, because every request passes through it.

``Observed`` (outer) assigns the request id, logs and measures each request, adds the common response headers, and turns
uncaught exceptions into problems. ``BoundedBody`` (inner) reads the body before anything else runs, within a size and a
time limit, so that a slow client occupies nothing but its own socket.

FastAPI's ``max_body_size`` is not used: it is applied outside all middleware, and rejects a declared length that is too
large with a plain-text response that no exception handler can change.
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
# Requested every few seconds by probes and scrapers: measured, but logged at debug level only.
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
# Defaults: a route may set its own.
_DEFAULT_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def install(app: FastAPI, settings: ApiSettings) -> None:
    """Add both middlewares to an app."""
    app.add_middleware(BoundedBody, max_bytes=settings.max_body_bytes, timeout=settings.body_timeout)
    app.add_middleware(Observed)


class Observed:
    """Request id, access log, metrics, common headers, and a problem for every uncaught exception."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _accepted(Headers(scope=scope).get("x-request-id")) or uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        # Requests of one connection may share a context: drop values bound by an earlier one.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        sender = _Sender(send, request_id)
        try:
            await self._app(scope, receive, sender.send)
        except Exception as error:
            if sender.status is not None:
                raise  # the response has started: the server can only close the connection
            await problems.respond(scope, error)(scope, receive, sender.send)
        finally:
            _record(scope, sender.status, perf_counter() - started)


class _Sender:
    """Forwards a response with the common headers; ``status`` is None until it has started."""

    __slots__ = ("_request_id", "_send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._with_defaults(message.get("headers", ()))}
        await self._send(message)

    def _with_defaults(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in headers}
        missing = [header for header in _DEFAULT_HEADERS if header[0] not in present]
        return [*headers, *missing, (b"x-request-id", self._request_id.encode())]


def _accepted(text: str | None) -> str | None:
    return text if text is not None and _REQUEST_ID.fullmatch(text) else None


def _record(scope: Scope, status: int | None, seconds: float) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "OTHER"
    route = _template(scope)
    HTTP_SECONDS.labels(method, route, str(status or "none")).observe(seconds)
    write = log.debug if route in _QUIET_ROUTES else log.info
    client = scope.get("client")
    write(
        "request completed" if status else "request dropped",
        method=method,
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
        client=client[0] if client else None,
    )


def _template(scope: Scope) -> str:
    """The path template of the route: few distinct values, and no secrets from the actual path."""
    # Routes of an included router lack its prefix; FastAPI puts the full path in the scope.
    route: Any = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return getattr(route, "path_format", None) or getattr(route, "path", None) or UNROUTED


class BoundedBody:
    """Buffers the request body before calling the app; responds 413 or 408 and closes the connection if it cannot."""

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
            await self._reject(error, scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _Buffered(body, receive).receive, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None if the client disconnected.

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

    async def _reject(self, error: TooLarge | TooSlow, scope: Scope, receive: Receive, send: Send) -> None:
        response = problems.respond(scope, error)
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        if isinstance(error, TooLarge):
            await self._discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, receive: Receive) -> None:
        """Read and discard the rest of the body, for at most the body time limit.

        Many clients send the whole body before they read. Closing a connection with unread bytes resets it, and the
        client may lose the response.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                    pass

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body of a request may have at most {self._max_bytes} bytes.")


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class _Buffered:
    """``receive`` of a request whose body is already read."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
