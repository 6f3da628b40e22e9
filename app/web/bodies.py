"""Reads the body of a request before anything else runs, so that a slow client occupies nothing but its own socket.

FastAPI's ``max_body_size`` is not used: it is applied outside all middleware, and rejects a declared length that is too
large with a plain-text response that no exception handler can change.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakValueDictionary

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TooLarge, TooSlow, Unavailable
from app.web import problems

#: Of all bodies that are being received or wait for their request to be worked on.
MOST_BUFFERED_BYTES = 64 * 1024 * 1024
RETRY_AFTER = 2.0
#: A body from this size on takes turns with the other large ones of its caller: to receive and to read one takes a
#: thousand times the work of a small one, and other callers wait for it.
LARGE_BODY_BYTES = 32 * 1024
LARGE_AT_ONCE = 1
BUSY = "The gateway receives more than it can hold just now; try again."


class BoundedBody:
    """Buffers the request body before calling the app; if it cannot, responds 413, 408 or 503 and hangs up."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        timeout: float,
        caller_of: Callable[[Scope], str],
        streamed: Callable[[Scope], bool] = lambda _: False,
    ) -> None:
        """``caller_of`` says who takes turns; ``streamed``, which requests read their bodies themselves."""
        self._app = app
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._caller_of = caller_of
        self._streamed = streamed
        self._buffered = 0
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._streamed(scope):
            await self._stream(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not _may_be_large(headers):
            await self._buffer(headers, scope, receive, send)
            return
        # Until its turn nothing of the body is read: the client's network holds it.
        turns = self._turns.setdefault(self._caller_of(scope), asyncio.Semaphore(LARGE_AT_ONCE))
        try:
            await asyncio.wait_for(turns.acquire(), self._timeout)
        except TimeoutError:
            await self._reject(Unavailable(BUSY, retry_after=RETRY_AFTER), scope, receive, send)
            return
        try:
            await self._buffer(headers, scope, receive, send)
        finally:
            turns.release()

    async def _buffer(self, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._read(headers, receive) if _has_body(headers) else b""
        except (TooLarge, TooSlow, Unavailable) as error:
            await self._reject(error, scope, receive, send)
            return
        if body is None:
            return
        try:
            await self._app(scope, Buffered(body, receive), send)
        finally:
            self._buffered -= len(body)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app read. A client that pauses too long ends it; what the app has not read, it did not want."""
        body = Streamed(receive, self._timeout)

        async def respond(message: Message) -> None:
            if body.complete:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message["headers"], (b"connection", b"close")]})
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await self._discard(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, body, respond)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body, which stays counted in ``_buffered``; None if the client disconnected.

        Raises:
            TooLarge, TooSlow
            Unavailable: it is too much beside other bodies.
        """
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        body, complete = bytearray(), False
        try:
            async with asyncio.timeout(self._timeout):
                while not complete and (message := await receive())["type"] == "http.request":
                    chunk = message.get("body", b"")
                    body += chunk
                    self._buffered += len(chunk)
                    if len(body) > self._max_bytes:
                        raise self._too_large()
                    if self._buffered > MOST_BUFFERED_BYTES:
                        raise Unavailable(BUSY, retry_after=RETRY_AFTER)
                    complete = not message.get("more_body", False)
        except TimeoutError:
            raise TooSlow(f"The body of the request did not arrive within {self._timeout:g} seconds.") from None
        finally:
            if not complete:
                self._buffered -= len(body)
        return bytes(body) if complete else None

    async def _reject(
        self, error: TooLarge | TooSlow | Unavailable, scope: Scope, receive: Receive, send: Send
    ) -> None:
        response = problems.respond(scope, error)
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        if not isinstance(error, TooSlow):
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


def _may_be_large(headers: Headers) -> bool:
    declared = headers.get("content-length", "")
    return "transfer-encoding" in headers or (declared.isdecimal() and int(declared) >= LARGE_BODY_BYTES)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


class Buffered:
    """``receive`` of a request whose body is already read."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self.disconnect()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def disconnect(self) -> Message:
        """Wait until the client has gone, or has got its response."""
        while (message := await self._receive())["type"] == "http.request":
            pass
        return message


class Streamed:
    """``receive`` of a request whose body is read as it arrives; ``timeout`` is the longest pause, in seconds."""

    __slots__ = ("_receive", "_timeout", "complete")

    def __init__(self, receive: Receive, timeout: float) -> None:
        self._receive = receive
        self._timeout = timeout
        self.complete = False

    async def __call__(self) -> Message:
        try:
            async with asyncio.timeout(self._timeout):
                message = await self._receive()
        except TimeoutError:
            raise TooSlow(f"Nothing of the body arrived for {self._timeout:g} seconds.") from None
        self.complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def disconnect(self) -> Message:
        """Wait: whether the client has gone shows only when its body is read."""
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await never
