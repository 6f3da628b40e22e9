"""Limits of an HTTP connection that uvicorn lacks: on time, on every byte that is not body, and on what is a header.

A refusal at this level is a problem too: no request has begun, so nothing of it is logged or measured.
"""

import asyncio
from collections.abc import Mapping
from typing import ClassVar, Final
from uuid import uuid4

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.errors import FilmgateError, HeadersTooLarge, Malformed
from app.web import problems
from app.web.forwarded import path_prefix

#: Of the request line and the headers.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
#: Of all else around the body: sizes and extensions of chunks, trailers, line ends; but for what arrives in the same
#: read as the begin of the request. A chunk of one byte needs five more.
MAX_FRAMING_BYTES = 64 * 1024
MAX_FRAMING_PER_BODY_BYTE = 8
#: Requests of one connection that wait for the response to an earlier one. Few clients pipeline at all.
MAX_PIPELINED = 16

NOT_HTTP: Final = Malformed("This is not a valid HTTP/1.1 request.")
HOSTS: Final = Malformed("A request needs exactly one Host header.")
NO_PROXY: Final = Malformed("This server is not a proxy: CONNECT is not possible.")
HEAD: Final = HeadersTooLarge(
    f"The head of a request may have at most {MAX_HEAD_BYTES} bytes in {MAX_HEADERS} headers."
)
FRAMING: Final = Malformed("The request has too many bytes around its body; send larger chunks, and no trailers.")
#: After a refusal, what the client still sends is discarded: closing at once would reset the connection, and the client
#: might lose the response.
LINGER_SECONDS = 2
#: Headers, and tokens of ``Connection``, that a request for another protocol has and no other.
UPGRADING: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})
REASONS: Final[Mapping[int, str]] = {400: "Bad Request", 431: "Request Header Fields Too Large"}


def bounded(*, head_timeout: float, write_timeout: float, prefix: str = "") -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn: ``uvicorn.Config(app, http=bounded(…))``.

    A connection is closed if the whole head of a request does not arrive within ``head_timeout`` seconds after it was
    opened, or after the first byte that follows a response. It is aborted if the client does not read within
    ``write_timeout`` seconds; a response being streamed then ends as for any client that disconnects.

    Trailers are counted and dropped: uvicorn would add them to the headers, after the request was authenticated by
    them or before. A wish for another protocol is dropped too, as RFC 9110 allows: the parser would drop the body with
    it, and Java's client and ``curl --http2`` say ``Upgrade: h2c`` in every first request.

    ``prefix`` is the path prefix of clients; a request that cannot be parsed names none.
    """

    class Configured(_Bounded):
        pass

    Configured.head_timeout = head_timeout
    Configured.write_timeout = write_timeout
    Configured.prefix = prefix
    return Configured


class _Refused(Exception):
    """Leaves a parser callback: as an error of the parser."""


class _Bounded(HttpToolsProtocol):
    head_timeout: ClassVar[float]
    prefix: ClassVar[str]
    write_timeout: ClassVar[float]
    _head: asyncio.TimerHandle | None = None
    _write: asyncio.TimerHandle | None = None
    _refusal: FilmgateError = NOT_HTTP
    _refused = False
    # Of the current message
    _in_head = True
    _fields = 0
    _head_bytes = 0
    _body_bytes = 0
    _received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_write()
        super().connection_lost(exc)
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if self._is_closing():
            return
        self._received += len(data)
        self._parse(data)
        if self._is_closing():
            return
        around = self._received - self._head_bytes - self._body_bytes
        if self._in_head and self._received > MAX_HEAD_BYTES:
            self._refuse(HEAD)
        elif around > MAX_FRAMING_BYTES + MAX_FRAMING_PER_BODY_BYTE * self._body_bytes:
            self._refuse(FRAMING)
        else:
            # Bytes after a response stop uvicorn's keep-alive timer, even if they never become a request.
            cycle: RequestResponseCycle | None = self.cycle
            if cycle is not None and cycle.response_complete:
                self._await_head()

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])

    def _stay(self, rest: bytes) -> None:
        """Begin the request anew as one that asks for no other protocol; ``rest`` is what follows its head."""
        kept = [(name, value) for name, value in self.headers if name not in UPGRADING]
        for value in (value for name, value in self.headers if name == b"connection"):
            tokens = [token for token in value.split(b",") if token.strip().lower() not in UPGRADING]
            kept += [(b"connection", b",".join(tokens))] if tokens else []
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._parse(line + b"".join(b"%b: %b\r\n" % header for header in kept) + b"\r\n" + rest)

    def on_message_begin(self) -> None:
        self._begin_head()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _Refused  # the connection is closed after the responses to the earlier requests
        super().on_message_begin()

    def _begin_head(self) -> None:
        self._in_head = True
        self._fields = self._head_bytes = self._body_bytes = self._received = 0

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._in_head:
            self._head_bytes += len(name) + len(value)
        if self._fields > MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = HEAD
            raise _Refused
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        self._in_head = False
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._refusal = HOSTS
            raise _Refused
        if self.parser.get_method() == b"CONNECT":
            self._refusal = NO_PROXY  # what follows is neither a body nor a request
            raise _Refused
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._begin_head()
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if self._refused and last:
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write = self.loop.call_later(self.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        self._end_write()
        super().resume_writing()

    def _is_closing(self) -> bool:
        return self._refused or self.transport.is_closing()

    def _refuse(self, error: FilmgateError) -> None:
        """Respond and close the connection, after the responses to earlier requests: those may have been executed."""
        self._refused = True
        self._end_head()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._in_head and not cycle.response_started:
                cycle.keep_alive = False  # it is the last of the earlier ones
                return
            if self.pipeline:
                self.pipeline.popleft()  # it waits behind earlier ones, and its body will never be whole
                return
            if cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True  # for the app, the client has gone
            cycle.message_event.set()
        path_prefix.set(self.prefix)
        request_id = uuid4().hex
        response = problems.render(problems.problem_of(error), request_id)
        response.headers["X-Request-Id"] = request_id
        response.headers["Connection"] = "close"
        head = f"HTTP/1.1 {response.status_code} {REASONS[response.status_code]}\r\n".encode()
        fields = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(head + fields + b"\r\n" + bytes(response.body))
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _await_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(self.head_timeout, self.transport.close)

    def _end_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _end_write(self) -> None:
        if self._write is not None:
            self._write.cancel()
            self._write = None
