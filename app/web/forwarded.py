"""What a proxy in front of the API says about a request: the client's address, the scheme, and the path prefix."""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.settings import API_PATH

#: A path of one or more segments: neither ``//host`` nor ``/..`` nor anything that a browser would read as a URL.
_PREFIX: Final = re.compile(r"(?:/(?!\.+(?:/|$))[A-Za-z0-9._~-]+)+")
MAX_PREFIX: Final = 256
#: The prefix under which the client sent the request that is worked on; empty outside of one.
path_prefix: ContextVar[str] = ContextVar("path_prefix", default="")


class Forwarded(ProxyHeadersMiddleware):
    """Believes ``X-Forwarded-For``, ``-Proto`` and ``-Prefix`` of trusted proxies.

    The prefix becomes the ``root_path``, whether the proxy leaves it in the path or not; ``prefix`` is the one of
    requests that name none.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[str], prefix: str) -> None:
        super().__init__(app, list(trusted))  # type: ignore[arg-type]  # Starlette's type of the same
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] == "http":
            scope["root_path"] = self._forwarded_prefix(scope) or self._prefix
            path_prefix.set(scope["root_path"])
        await super().__call__(scope, receive, send)  # type: ignore[arg-type]

    def _forwarded_prefix(self, scope: Scope) -> str | None:
        client = scope.get("client")
        if not client or client[0] not in self.trusted_hosts:
            return None
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
        prefix = given[0].rstrip("/") if len(given) == 1 else ""
        valid = len(prefix) <= MAX_PREFIX and _PREFIX.fullmatch(prefix) and not API_PATH.match(prefix)
        return prefix if valid else None
