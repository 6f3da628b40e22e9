"""Two timeouts that uvicorn lacks: for the head of a request, and for a client that stops reading."""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

#: Limit of the request line and headers. Body bytes in the same read count too, so it exceeds what headers need.
MAX_HEAD_BYTES = 512 * 1024
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def bounded(*, head_timeout: float, write_timeout: float) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn: ``uvicorn.Config(app, http=bounded(…))``.

    A connection is closed if the whole head of a request does not arrive within ``head_timeout`` seconds after it was
    opened, or after the first byte that follows a response. It is aborted if the client does not read within
    ``write_timeout`` seconds; a response being streamed then ends as for any client that disconnects.
    """

    class Configured(_Bounded):
        pass

    Configured.head_timeout = head_timeout
    Configured.write_timeout = write_timeout
    return Configured


class _Bounded(HttpToolsProtocol):
    head_timeout: ClassVar[float]
    write_timeout: ClassVar[float]
    _head: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_write()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.write(TOO_LARGE)
                self.transport.close()
                return
        super().data_received(data)
        # Bytes after a response stop uvicorn's keep-alive timer, even if they never become a request.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.response_complete and not self.transport.is_closing():
            self._await_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write = self.loop.call_later(self.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        self._end_write()
        super().resume_writing()

    def _await_head(self) -> None:
        if self._head is None:
            self._head_bytes = 0
            self._head = self.loop.call_later(self.head_timeout, self.transport.close)

    def _end_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _end_write(self) -> None:
        if self._write is not None:
            self._write.cancel()
            self._write = None
