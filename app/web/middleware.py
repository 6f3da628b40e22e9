"""Middleware around FastAPI. Pure ASGI, because every request passes through it.

``Observed`` (outermost) assigns the request id, logs and measures each request, adds the common response headers, and
turns uncaught exceptions into problems. ``BoundedBody`` reads the body before anything else runs; ``Concurrency``
(innermost) lets a limited number of requests in at once.
"""

import re
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any
from uuid import uuid4

import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.infra.metrics import HTTP_SECONDS
from app.settings import ApiSettings
from app.web import problems
from app.web.bodies import BoundedBody
from app.web.concurrency import Concurrency, network_of

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

_CORS_REQUEST_HEADERS = ("Authorization", "Idempotency-Key", "Prefer", "Last-Event-ID", "X-Request-Id", "Range")
_CORS_RESPONSE_HEADERS = (
    "Location",
    "Idempotency-Replayed",
    "Preference-Applied",
    "Retry-After",
    "X-Request-Id",
    "Content-Range",
    "ETag",
)


def install(
    app: FastAPI,
    settings: ApiSettings,
    account_of: Callable[[Scope], str | None],
    streamed: Callable[[Scope], bool] = lambda _: False,
) -> None:
    """Add all of them to an app, and CORS where it is configured: without credentials, which the API does not use.

    ``account_of`` says who takes turns in line: an account, or for None an address. Unauthenticated, it decides about
    nothing but the order. ``streamed`` says which requests read their bodies themselves.
    """
    app.add_middleware(Concurrency, limit=settings.max_concurrent, line=settings.max_waiting, account_of=account_of)
    app.add_middleware(
        BoundedBody,
        max_bytes=settings.max_body_bytes,
        timeout=settings.body_timeout,
        caller_of=lambda scope: account_of(scope) or network_of(scope),
        streamed=streamed,
    )
    app.add_middleware(Observed)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=sorted(_METHODS),
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_RESPONSE_HEADERS,
        )


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
